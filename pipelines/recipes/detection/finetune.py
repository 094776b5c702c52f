"""Recipe `finetune`: a pretrained network of images learns to find objects; torch, then ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any

from pydantic.dataclasses import dataclass

from contracts.errors import PlatformError
from pipelines.recipes.detection.centernet import DetectorLoop, DetectorModel, NeuralDetector
from pipelines.task import STRICT

if TYPE_CHECKING:
    from contracts.images import ImageSpec


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FinetuneDetectorModel(DetectorModel):
    """Where the network is: a folder with ``config.json`` and ``model.safetensors`` as transformers saves them."""

    backbone: str = ""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FinetuneDetector(NeuralDetector):
    """All layers of a pretrained network of convolutions, whose maps of strides 4 to 32 get the answers of a detector.

    `image.mean` and `image.std` must be those that it was trained with.
    """

    model: FinetuneDetectorModel = field(default_factory=FinetuneDetectorModel)
    training: DetectorLoop = field(default_factory=lambda: DetectorLoop(epochs=12, learning_rate=5e-4))

    def body(self, spec: ImageSpec) -> tuple[Any, Sequence[int]]:
        """The maps of the pretrained network."""
        from pipelines.training.image_backbone import backbone_here, pretrained_maps

        with backbone_here(self.model.backbone) as place:
            if place.is_file():
                raise PlatformError(
                    f"a graph cannot be trained: {place}",
                    fix="give a folder with config.json and model.safetensors",
                    code="bad_weights",
                )
            return pretrained_maps(place, spec)
