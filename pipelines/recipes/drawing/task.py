"""What all tasks of models that draw are: a subclass says where its sample comes from."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.bundle import Input
from contracts.problems.image import GUIDANCE, LARGEST_SEED, PROMPT, SEED, STEPS
from pipelines.recipes.image.task import ImageTask
from pipelines.task import AddedStep, Progress

if TYPE_CHECKING:
    import pandas as pd


def add_reference(
    config: Any, given: Mapping[str, Path], out: Path, checkpoints: Path, progress: Progress
) -> Mapping[str, Any]:
    """The data set with the network on whose features images are compared."""
    from pipelines.evaluation.image_reference import image_column
    from pipelines.training.reference_network import write_reference

    dataset = given["build_dataset"]
    shutil.copytree(dataset, out, dirs_exist_ok=True)
    column = image_column(dataset / "train.parquet")
    return write_reference(dataset, column, config.image.spec(), config.reference, config.seed, out, progress)


class DrawingTask(ImageTask):
    """Base of a task that draws, see `pipelines.task.Task`; its rows are images and their classes, as those of a task
    that tells them apart, and its model is asked with a class."""

    problem = "image"
    modality = "drawing"
    default_recipe = "flow"
    steps: Mapping[str, AddedStep] = {"reference": AddedStep(after="build_dataset", work=add_reference)}

    def split(self, frame: pd.DataFrame, config: Any) -> dict[str, pd.DataFrame]:
        """By a hash of the image, near duplicates together, or with the test part of its own source."""
        from pipelines.recipes.drawing.split import split_drawings

        return split_drawings(self, frame, config)

    def variants(self, frame: pd.DataFrame, config: Any) -> Iterator[tuple[str, pd.DataFrame]]:
        """None: what a model is asked does not come with noise."""
        return iter(())

    def inputs(self, config: Any) -> list[Input]:
        """What to draw, and how."""
        sampling = config.sampling
        return [
            Input(name=PROMPT, dtype="string", description="a text that names one class of the model"),
            Input(
                name=SEED,
                dtype="int64",
                default=0,
                optional=True,
                minimum=0,
                maximum=LARGEST_SEED,
                description="the same one gives the same image",
            ),
            Input(
                name=STEPS,
                dtype="int64",
                default=sampling.steps,
                optional=True,
                minimum=1,
                maximum=sampling.max_steps,
                description="of sampling: more take longer, and are more exact",
            ),
            Input(
                name=GUIDANCE,
                dtype="float64",
                default=sampling.guidance,
                optional=True,
                minimum=1,
                maximum=20,
                description="how far images are pushed towards their class; 1 is as the training images are",
            ),
        ]
