"""Recipe `resnet`: a small residual network, learned from the task's images alone; torch, then ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from contracts.errors import PlatformError
from pipelines.federation.settings import FederationConfig
from pipelines.recipes.image.base import Images, write_spec
from pipelines.recipes.image.neural import NeuralImage, begin, fit, scores
from pipelines.settings import setting
from pipelines.task import STRICT, Progress
from pipelines.training.image_network import widest
from pipelines.training.pictures import Pictures
from pipelines.training.privacy import PrivacyConfig, check_settings, pay

if TYPE_CHECKING:
    from contracts.images import ImageSpec
    from pipelines.federation.pictures import Residual
    from pipelines.task import Task

_SEEN = 2**21  # pixels that a whitened first layer is made from
_Positive = Annotated[int, Field(ge=1, le=2048)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ResnetModel:
    """Sizes of the network, see `pipelines.training.image_network.residual_network`.

    widths: channels of the stages, of which each but the first halves the sides.  blocks: residual blocks of each stage
    but the first.  norm: ``group`` for a private training, which ``batch`` cannot have.  mirror: answer with the mean
    over an image and its mirror image, which takes twice as long; not where left and right are different classes.
    stem: the first layer is ``learned``, or ``whitened``: made from patches of the training images and then fixed, for
    trainings of few epochs; its width is even, and at most 54 for colors, 18 for gray.  halve: how a stage halves the
    sides: ``stride`` is less work, ``pool`` is more exact.
    """

    widths: Annotated[tuple[_Positive, ...], Field(min_length=2, max_length=8)] = (16, 32, 64, 128)
    blocks: tuple[Annotated[int, Field(ge=0, le=16)], ...] = (1, 1, 0)
    norm: Literal["batch", "group"] = "batch"
    mirror: bool = False
    stem: Literal["learned", "whitened"] = "learned"
    halve: Literal["stride", "pool"] = "stride"

    @model_validator(mode="after")
    def _one_count_each(self) -> Self:
        if len(self.blocks) != len(self.widths) - 1:
            raise ValueError(f"blocks needs {len(self.widths) - 1} numbers, one for each width after the first")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ResnetImage(NeuralImage):
    """A residual network from scratch."""

    model: ResnetModel = field(default_factory=ResnetModel)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    federation: FederationConfig = field(default_factory=FederationConfig)

    def train(self, task: Task, dataset: Path, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """As any recipe of images, or by a federation."""
        if not self.federation.is_on:
            return super().train(task, dataset, out, checkpoints, progress)
        return self.by_sites(task, dataset, out, checkpoints, progress)

    def federated(self, task: Task, classes: Sequence[str]) -> Residual:
        """What sites train together.

        Raises:
            PlatformError: ``code="bad_config"``: a first layer made of all images, or batch norm (`tensors_of`);
                ``code="not_private"``: images of which others have parts, in a private training.
        """
        from pipelines.federation.pictures import residual_of
        from pipelines.training.device import import_torch

        import_torch()
        if self.model.stem == "whitened":
            raise PlatformError(
                "sites cannot have a whitened first layer: it is made of patches of all training images",
                detail="each site has other images, and the main directions of their patches are no sums of rows",
                fix=setting("model.stem", "learned"),
                code="bad_config",
            )
        made = residual_of(self, next(item.name for item in task.inputs(self) if item.dtype == "bytes"), classes)
        made.layout()
        if self.privacy.is_on:
            self._check(1)
        return made

    def finish(
        self,
        network: Any,
        task: Task,
        spec: ImageSpec,
        pixels: Any,
        labels: Any,
        classes: list[str],
        column: str,
        out: Path,
    ) -> dict[str, Any]:
        """Write what a federation has trained, by the coordinator's validation images alone."""
        valid = Pictures(pixels, labels)
        images = Images(
            task=task, train=valid, valid=valid, classes=classes, spec=spec, dataset=out, column=column, scratch=out
        )
        found = finish(network, images, self, "cpu", [], out, self.model.mirror, self.privacy.is_on)
        return self.served(images, found, out)

    @model_validator(mode="after")
    def _stem_fits(self) -> Self:
        first, most = self.model.widths[0], widest(len(self.image.mode))
        if self.model.stem == "whitened" and (first % 2 or first > most):
            raise ValueError(
                f"model.widths begins with {first}, expected an even number up to {most} for model.stem whitened"
            )
        return self

    def learn(self, images: Images, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """Train, calibrate on ``valid``, and write the graph and ``image.json`` to `out`."""
        from pipelines.training.image_network import residual_network

        device, shape = begin(self), self.model
        paid = self._paid(len(images.train.labels), checkpoints) if self.privacy.is_on else None
        channels = len(images.spec.mode)
        network = residual_network(
            len(images.classes),
            channels,
            shape.widths,
            shape.blocks,
            shape.norm,
            halve=shape.halve,
            stem=self._stem(images) if shape.stem == "whitened" else None,
        )
        history = fit(
            network.to(device), images, self, device, checkpoints, progress, (self.privacy, paid) if paid else None
        )
        return finish(network, images, self, device, history, out, shape.mirror, bool(paid)) | (
            {"privacy": paid} if paid else {}
        )

    def _stem(self, images: Images) -> Any:
        from pipelines.training.image_network import whitened

        pixels, each = images.train.pixels, images.spec.width * images.spec.height
        some = pixels[:: max(1, len(pixels) // max(8, _SEEN // each))]
        return whitened(images.spec.normalised(some), self.model.widths[0])

    def _paid(self, rows: int, checkpoints: Path) -> dict[str, Any]:
        """What a private training costs, once nothing else tells of single images."""
        self._check(rows)
        return pay(self.privacy, rows, self.training.batch_size, self.training.epochs, checkpoints)

    def _check(self, rows: int) -> None:
        whole = self.augment.mixup + self.augment.cutmix
        check_settings(
            self.privacy,
            rows,
            {
                "model.norm": (self.model.norm == "batch", "batch norm mixes the images of a batch", "group"),
                "model.stem": (self.model.stem == "whitened", "it is made from images and pays nothing", "learned"),
                "augment.mixup": (self.augment.mixup > 0, f"{whole:g} of the batches lay images over one another", 0.0),
                "augment.cutmix": (self.augment.cutmix > 0, "images get parts of one another", 0.0),
                "training.precision": (self.training.precision != "fp32", "gradients are kept of each image", "fp32"),
                "loader.workers": (self.loader.workers > 0, "a private training draws its images itself", 0),
                "int8": (self.int8, "weights of 8 bits are chosen by images and pay nothing", False),
            },
        )


def finish(
    network: Any,
    images: Images,
    config: NeuralImage,
    device: str,
    history: list[dict[str, float]],
    out: Path,
    mirror: bool,
    private: bool = False,
) -> dict[str, Any]:
    """Calibrate a trained network on ``valid``, if it is not private, and write its graph; see `ImageRecipe.learn`."""
    from pipelines.training.calibration import fit_temperature
    from pipelines.training.distributed import group
    from pipelines.training.image_network import export, mirrored_too

    if not group().leads:
        return {"history": history, "parameters": {}, "device": device}
    served = mirrored_too(network) if mirror else network
    held = scores(served, images.valid.pixels, config, images, device)
    factor = 1.0 if private else fit_temperature(held, images.valid.labels)
    sides = (len(images.spec.mode), images.spec.height, images.spec.width)
    (out / "model.onnx").write_bytes(export(served, sides, factor))
    write_spec(out, images.spec)
    parameters = {
        "temperature": 1 / factor,
        "epochs_run": len(history),
        "weights": sum(one.numel() for one in network.parameters()),
    }
    return {"history": history, "parameters": parameters, "device": device}
