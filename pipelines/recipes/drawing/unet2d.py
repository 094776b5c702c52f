"""Recipe `unet2d`: the U-Net of the library diffusers turns noise into images by flow matching, from scratch or from a
folder of its weights; torch, then ONNX."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from contracts.errors import PlatformError
from pipelines.recipes.drawing.flow import NeuralFlow
from pipelines.task import STRICT

_Width = Annotated[int, Field(ge=8, le=1024, multiple_of=8)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Unet2dModel:
    """The network `diffusers.UNet2DModel`.

    widths: channels, each but the first at half the sides.  blocks: residual blocks of each.  attention: whether the
    coarsest looks at all places.  weights: a folder with ``config.json`` and ``diffusion_pytorch_model.safetensors`` as
    diffusers saves it, of as many classes and one more; "" begins from scratch, else its sizes are those of the folder.
    """

    widths: Annotated[tuple[_Width, ...], Field(min_length=2, max_length=6)] = (32, 64)
    blocks: Annotated[int, Field(ge=1, le=8)] = 1
    attention: bool = True
    weights: str = ""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Unet2dRecipe(NeuralFlow):
    """A U-Net of diffusers."""

    model: Unet2dModel = field(default_factory=Unet2dModel)

    @property
    def stride(self) -> int:
        """Of the coarsest map."""
        return int(2 ** (len(self.model.widths) - 1))

    @model_validator(mode="after")
    def _square(self) -> Self:
        if self.image.width != self.image.height:
            raise ValueError(f"image is {self.image.width}x{self.image.height}, expected a square")
        return self

    def network(self, classes: int) -> Any:
        """Images, times and class numbers to directions, as `pipelines.training.flow_network.unet` has them."""
        import torch
        from torch import nn

        class Directed(nn.Module):
            def __init__(self, inner: Any) -> None:
                super().__init__()
                self.inner = inner

            def forward(self, pixels: Any, time: Any, label: Any) -> Any:
                return self.inner(pixels, time * 1000, class_labels=label, return_dict=False)[0]

        found = self._inner(classes)
        table = found.class_embedding.weight if found.class_embedding is not None else torch.zeros(0)
        channels = len(self.image.mode)
        if len(table) != classes + 1 or found.config.in_channels != channels or found.config.out_channels != channels:
            raise PlatformError(
                f"the weights of {self.model.weights} are of another model",
                detail=f"{len(table)} classes and {found.config.in_channels} channels, "
                f"expected {classes + 1} (with none) and {channels}",
                fix="give weights of the same classes, or begin from scratch: --set model.weights=",
                code="bad_weights",
            )
        return Directed(found)

    def _inner(self, classes: int) -> Any:
        try:
            from diffusers import UNet2DModel
        except ImportError as err:
            raise PlatformError(
                "recipe unet2d needs diffusers", fix="pip install 'fairlead[diffusion]'", code="missing_package"
            ) from err
        model = self.model
        if model.weights:
            folder = Path(model.weights).expanduser()
            try:
                load: Any = UNet2DModel.from_pretrained
                return load(folder, local_files_only=True, use_safetensors=True)
            except (OSError, ValueError, KeyError) as err:
                raise PlatformError(
                    f"no usable weights in {folder}",
                    detail=(str(err).strip() or type(err).__name__).splitlines()[0],
                    fix="give a folder with config.json and diffusion_pytorch_model.safetensors, as diffusers saves it",
                    code="bad_weights",
                ) from err
        coarse = len(model.widths) - 1
        down = ["DownBlock2D"] * coarse + ["AttnDownBlock2D" if model.attention else "DownBlock2D"]
        up = ["AttnUpBlock2D" if model.attention else "UpBlock2D"] + ["UpBlock2D"] * coarse
        make: Any = UNet2DModel
        return make(
            sample_size=self.image.width,
            in_channels=len(self.image.mode),
            out_channels=len(self.image.mode),
            layers_per_block=model.blocks,
            block_out_channels=model.widths,
            down_block_types=tuple(down),
            up_block_types=tuple(up),
            attention_head_dim=8,
            norm_num_groups=8,
            num_class_embeds=classes + 1,
        )
