"""What all tasks of images are: a subclass says where its sample comes from and what it tells of an image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from contracts.bundle import Input
from pipelines.task import Column, TaskConfig

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from pipelines.task import Task


class ImageTask(ABC):
    """Base of a task whose rows are images, see `pipelines.task.Task`; a subclass has ``problem`` and ``split``.

    Sources are those of `pipelines.data.image_files`. The columns after the label are what ingest knows of a file.

    Attributes:
        fields: the input, and what it is.  texts: what errors call the rows.
    """

    name: str
    title: str
    recipes: Mapping[str, TaskConfig]
    fields: Mapping[str, str] = {"image": "a file: JPEG, PNG, WebP, GIF or BMP"}
    columns: tuple[Column, ...] = (
        Column(name="id", dtype="string", unique=True),
        Column(name="image", dtype="bytes"),
        Column(name="label", dtype="string", max_length=200),
        Column(name="sha256", dtype="string"),
        Column(name="look", dtype="string"),
        Column(name="width", dtype="int64", minimum=1),
        Column(name="height", dtype="int64", minimum=1),
        Column(name="brightness", dtype="float64", minimum=0, maximum=1),
    )
    texts = "images"
    modality = "image"
    label = "label"
    id = "id"
    timestamp: str | None = None
    entities: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    feature_service: str | None = None

    @abstractmethod
    def sample(self, config: Any) -> Iterator[tuple[str, bytes, str]]:
        """The built-in data: name, file and class of each image."""

    def default_source(self, config: Any) -> Iterator[pa.Table]:
        """The sample as ingest would read it from files."""
        from pipelines.data.image_files import sample_table

        yield sample_table(self.sample(config), cast("Task", self))

    def left_out(self, frame: pd.DataFrame, frames: Mapping[str, pd.DataFrame], config: Any) -> Mapping[str, Any]:
        """Images that stand in the test source too, or nearly so."""
        used = {name for part, rows in frames.items() if part != "test" for name in rows["id"]}
        overlap = ~frame["id"].astype(str).isin(used) if config.split.test_source else [False] * len(frame)
        return {"the image, or one that is nearly the same, stands in split.test_source too": overlap}

    def variants(self, frame: pd.DataFrame, config: Any) -> Iterator[tuple[str, pd.DataFrame]]:
        """Test images with noise, blur, other light and so on, each in three strengths."""
        from pipelines.evaluation.image_corruptions import corrupted

        return corrupted(frame, next(iter(self.fields)))

    def inputs(self, config: Any) -> list[Input]:
        """The file."""
        return [Input(name=name, dtype="bytes", description=about) for name, about in self.fields.items()]

    def request(self, config: Any) -> list[Input]:
        """Nothing beside the input."""
        return []


class ImageClassification(ImageTask):
    """Base of a task that tells the class of an image."""

    problem = "classification"
    default_recipe = "resnet"

    def split(self, frame: pd.DataFrame, config: Any) -> dict[str, pd.DataFrame]:
        """By a hash of the image, near duplicates together, or with the test part of its own source."""
        from pipelines.recipes.image.split import split_images

        return split_images(self, frame, config)
