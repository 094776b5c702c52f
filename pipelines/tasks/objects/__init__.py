"""Task `objects`: what lies where? Rendered trays with bolts, nuts and washers, or images with boxes of your own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.gate_limits import ExplanationLimits
from pipelines.recipes.detection.centernet import CenternetModel, CenternetRecipe, DetectorLoop
from pipelines.recipes.detection.finetune import FinetuneDetector
from pipelines.recipes.detection.task import ObjectDetection
from pipelines.recipes.image.base import ImageConfig
from pipelines.task import GateConfig, TaskConfig, Threshold
from pipelines.training.scenes import SceneAugment

# What the sample reaches with room for another seed; real data deserves limits of its own.
_GATE = GateConfig(
    primary="map",
    thresholds=(Threshold(metric="map50", minimum=0.8), Threshold(metric="f1", minimum=0.75)),
    explanations=ExplanationLimits(above_random=0.0),
)


class ObjectsTask(ObjectDetection):
    """See `pipelines.recipes.detection.task`."""

    name = "objects"
    title = "What lies where?"
    recipes: Mapping[str, TaskConfig] = {
        "centernet": CenternetRecipe(
            recipe="centernet",
            gate=_GATE,
            image=ImageConfig(width=160, height=128, fit="pad"),
            model=CenternetModel(widths=(16, 24, 48), head=32),
            training=DetectorLoop(epochs=12, batch_size=4),
            augment=SceneAugment(upend=True),
        ),
        "finetune": FinetuneDetector(
            recipe="finetune",
            gate=_GATE,
            image=ImageConfig(width=160, height=128, fit="pad"),
            augment=SceneAugment(upend=True),
        ),
    }

    def sample(self, config: Any) -> Iterator[tuple[str, bytes, str]]:
        """See `pipelines.tasks.objects.parts`."""
        from pipelines.tasks.objects.parts import trays

        return trays(seed=1, count=280)


TASK = ObjectsTask()
