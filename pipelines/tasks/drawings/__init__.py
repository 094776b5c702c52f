"""Task `drawings`: draw a fish. Pen drawings of ten things, or the images of a folder for each class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.recipes.drawing.base import SamplingConfig
from pipelines.recipes.drawing.flow import FlowLoop, FlowRecipe, UnetModel
from pipelines.recipes.drawing.pretrained import PretrainedDrawing
from pipelines.recipes.drawing.task import DrawingTask
from pipelines.recipes.drawing.unet2d import Unet2dRecipe
from pipelines.task import GateConfig, TaskConfig, Threshold

# What the sample reaches, with much room, so that a shorter training passes; see docs/vision.md. Real data deserves
# limits of its own.
_GATE = GateConfig(
    primary="kid",
    champion_tolerance=0.02,
    thresholds=(Threshold(metric="label_accuracy", minimum=0.9), Threshold(metric="c2st", maximum=0.85)),
    max_latency_ms=2_000.0,
)
# Of 1, 1.25 and 1.5 that from which validation images were told least.
_SAMPLING = SamplingConfig(guidance=1.25)
# Drawings are simple: what a larger network would bring has not been measured.
_LOOP = FlowLoop(epochs=26, patience=26, batch_size=32, average=0.997)


class DrawingsTask(DrawingTask):
    """See `pipelines.recipes.drawing.task`."""

    name = "drawings"
    title = "Draw a fish"
    recipes: Mapping[str, TaskConfig] = {
        "flow": FlowRecipe(
            recipe="flow", gate=_GATE, sampling=_SAMPLING, model=UnetModel(widths=(16, 32)), training=_LOOP
        ),
        "unet2d": Unet2dRecipe(recipe="unet2d", gate=_GATE, sampling=_SAMPLING),
        "pretrained": PretrainedDrawing(recipe="pretrained", gate=_GATE),
    }

    def sample(self, config: Any) -> Iterator[tuple[str, bytes, str]]:
        """See `pipelines.tasks.drawings.sketches`."""
        from pipelines.tasks.drawings.sketches import sketches

        return sketches(seed=1, each=300)


TASK = DrawingsTask()
