"""What all tasks are that tell the class of a text: a subclass says which columns it has and what they mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from contracts.bundle import Input
from pipelines.task import Column, Progress, TaskConfig

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


class TextClassification:
    """Base of a task, see `pipelines.task.Task`; a subclass has the attributes without a value, and recipes.

    Attributes:
        fields: what the columns say that a text is made of, in their order; the inputs of the model.
        together: fields whose equal values keep rows in one part of the split; () for all, as the same text is.
        sample: CSV file with the built-in data.
        texts: what errors call the rows.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    label: str
    fields: Mapping[str, str]
    sample: Path
    recipes: Mapping[str, TaskConfig]
    together: tuple[str, ...] = ()
    texts: str = "texts"
    modality: Literal["tabular", "text"] = "text"
    id: str = "id"
    timestamp: str | None = None
    entities: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    feature_service: str | None = None
    default_recipe = "linear"

    def default_source(self, config: Any) -> Iterator[pa.Table]:
        """The shipped sample, all columns of the task as strings."""
        import pyarrow as pa
        from pyarrow import csv

        types = dict.fromkeys([column.name for column in self.columns], pa.string())
        options = csv.ConvertOptions(column_types=types, include_columns=list(types), strings_can_be_null=False)
        yield csv.read_csv(
            self.sample, convert_options=options, parse_options=csv.ParseOptions(newlines_in_values=True)
        )

    def write_features(self, clean: Path, out: Path, progress: Progress) -> None:
        """The task has no features beside its text."""

    def split(self, frame: pd.DataFrame, config: Any) -> dict[str, pd.DataFrame]:
        """By class and hash of the text, or with the test part of its own file."""
        from pipelines.recipes.text.split import split_texts

        return split_texts(self, frame, config)

    def left_out(self, frame: pd.DataFrame, frames: Mapping[str, pd.DataFrame], config: Any) -> Mapping[str, Any]:
        """Texts that stand in the test source too."""
        used = {name for part, rows in frames.items() if part != "test" for name in rows["id"]}
        overlap = ~frame["id"].astype(str).isin(used) if config.split.test_source else [False] * len(frame)
        return {"the text stands in split.test_source too": overlap}

    def inputs(self, config: Any) -> list[Input]:
        """The fields; each may be empty."""
        return [Input(name=name, dtype="string", default="", description=about) for name, about in self.fields.items()]

    def request(self, config: Any) -> list[Input]:
        """Nothing beside the inputs."""
        return []
