"""Task `images`: which sign is this? Rendered signs of ten kinds, or the images of a folder for each class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.gate_limits import ExplanationLimits
from pipelines.recipes.image.finetune import FinetuneImage
from pipelines.recipes.image.neural import ImageLoop
from pipelines.recipes.image.probe import LinearProbe
from pipelines.recipes.image.resnet import ResnetImage, ResnetModel
from pipelines.recipes.image.task import ImageClassification
from pipelines.task import GateConfig, TaskConfig, Threshold
from pipelines.training.pictures import AugmentConfig

# What the sample reaches with room for another seed; real data deserves limits of its own.
_GATE = GateConfig(
    primary="accuracy",
    thresholds=(Threshold(metric="accuracy", minimum=0.85), Threshold(metric="ood_auroc", minimum=0.75)),
    explanations=ExplanationLimits(above_random=0.0),
)
# Left and right are different signs, so that nothing is mirrored.
_AUGMENT = AugmentConfig(flip=False, color=0.2)


class ImagesTask(ImageClassification):
    """See `pipelines.recipes.image.task`."""

    name = "images"
    title = "Which sign is this?"
    recipes: Mapping[str, TaskConfig] = {
        "resnet": ResnetImage(
            recipe="resnet",
            gate=_GATE,
            augment=_AUGMENT,
            model=ResnetModel(widths=(8, 16, 32), blocks=(1, 1)),
            training=ImageLoop(epochs=10, batch_size=32, learning_rate=0.1, warmup=30),
        ),
        "linear_probe": LinearProbe(recipe="linear_probe", gate=_GATE),
        "finetune": FinetuneImage(recipe="finetune", gate=_GATE, augment=_AUGMENT),
    }

    def sample(self, config: Any) -> Iterator[tuple[str, bytes, str]]:
        """See `pipelines.tasks.images.signs`."""
        from pipelines.tasks.images.signs import signs

        return signs(seed=1, each=80)


TASK = ImagesTask()
