"""What all tasks are that find the objects of an image: a subclass says where its sample comes from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pipelines.recipes.image.task import ImageTask
from pipelines.task import Column

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.data.image_sources import Entry
    from pipelines.task import DataConfig

_VARIANT_ROWS = 12  # images that are changed in each kind and strength: a detector takes its time


class ObjectDetection(ImageTask):
    """Base of a task that finds objects, see `pipelines.task.Task`; sources are `pipelines.data.box_sources`.

    The label of a row has its objects, as `contracts.problems.detection.write_truth` writes them.
    """

    problem = "detection"
    default_recipe = "centernet"
    columns: tuple[Column, ...] = tuple(
        Column(name="label", dtype="string", max_length=10_000_000) if one.name == "label" else one
        for one in ImageTask.columns
    )

    def entries(self, source: str, column: str, label: str, data: DataConfig) -> Iterator[Entry]:
        """Images with boxes, or without any."""
        from pipelines.data.box_sources import entries

        return entries(source, column, label, data)

    def split(self, frame: pd.DataFrame, config: Any) -> dict[str, pd.DataFrame]:
        """By a hash of the image, near duplicates together, or with the test part of its own source."""
        from pipelines.recipes.detection.split import split_objects

        return split_objects(self, frame, config)

    def variants(self, frame: pd.DataFrame, config: Any) -> Iterator[tuple[str, pd.DataFrame]]:
        """Some test images with noise, blur, other light and so on, none of which moves an object."""
        from pipelines.evaluation.image_corruptions import corrupted

        return corrupted(frame, next(iter(self.fields)), _VARIANT_ROWS, still=True)
