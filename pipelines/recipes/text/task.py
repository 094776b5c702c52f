"""What all tasks of texts are: a subclass says which columns it has, what they mean and what is predicted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.bundle import Input
from pipelines.task import Column, TaskConfig

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


class TextTask(ABC):
    """Base of a task, see `pipelines.task.Task`; a subclass has the attributes without a value, and recipes.

    Below are bases for each problem, which say what the column of labels holds.

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
    modality: str = "text"
    id: str = "id"
    timestamp: str | None = None
    entities: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    problem = "classification"
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

    def split(self, frame: pd.DataFrame, config: Any) -> dict[str, pd.DataFrame]:
        """By `strata` and hash of the text, or with the test part of its own file."""
        from pipelines.recipes.text.split import split_texts

        return split_texts(self, frame, config)

    def left_out(self, frame: pd.DataFrame, frames: Mapping[str, pd.DataFrame], config: Any) -> Mapping[str, Any]:
        """Texts that stand in the source of the test or the validation part too."""
        given = [f"{part}_source" for part in ("test", "valid") if getattr(config.split, f"{part}_source")]
        used = {name for part, rows in frames.items() if f"{part}_source" not in given for name in rows["id"]}
        overlap = ~frame["id"].astype(str).isin(used) if given else [False] * len(frame)
        return {f"the text stands in {' or '.join(f'split.{one}' for one in given)} too": overlap}

    def inputs(self, config: Any) -> list[Input]:
        """The fields; each may be empty."""
        return [Input(name=name, dtype="string", default="", description=about) for name, about in self.fields.items()]

    def request(self, config: Any) -> list[Input]:
        """Nothing beside the inputs."""
        return []

    @abstractmethod
    def labels(self, values: pd.Series[Any], config: Any) -> pd.Series[Any]:
        """What the data set has as labels, of the values of the column `label`."""

    def keys(self, rows: pd.DataFrame) -> list[str]:
        """Of each row; rows of one key are never in two parts of the split."""
        from pipelines.recipes.text.split import text_keys

        return text_keys(rows, self.together)

    def strata(self, labels: pd.Series[Any]) -> list[str]:
        """What is spread over all parts of the split, however rare: of each row."""
        return [""] * len(labels)

    @abstractmethod
    def check_labels(self, parts: Mapping[str, pd.DataFrame], config: Any) -> None:
        """Refuse what cannot be learned or measured."""


class TextClassification(TextTask):
    """Base of a task that tells the class of a text."""

    def labels(self, values: pd.Series[Any], config: Any) -> pd.Series[Any]:
        """Classes, as `labels` of the configuration renames them."""
        from pipelines.recipes.text.split import class_labels

        return class_labels(self, values, config.labels)

    def strata(self, labels: pd.Series[Any]) -> list[str]:
        """The classes."""
        return list(labels)

    def check_labels(self, parts: Mapping[str, pd.DataFrame], config: Any) -> None:
        """See `check_classes`."""
        from pipelines.recipes.text.split import check_classes

        check_classes(self, parts, config)


class TextMultilabel(TextTask):
    """Base of a task that gives a text any number of labels; in the data they are separated by ``|``."""

    problem = "multilabel"

    def labels(self, values: pd.Series[Any], config: Any) -> pd.Series[Any]:
        """As they are; none where the value is missing."""
        return values.fillna("").astype(str)

    def strata(self, labels: pd.Series[Any]) -> list[str]:
        """The rarest label of each row."""
        from pipelines.evaluation.multilabel import labels_of
        from pipelines.recipes.text.split import rarest

        return rarest([labels_of(text) for text in labels])

    def check_labels(self, parts: Mapping[str, pd.DataFrame], config: Any) -> None:
        """Every label must be in the training part."""
        from pipelines.recipes.text.split import check_known_labels

        check_known_labels(self, parts)


class TextRegression(TextTask):
    """Base of a task that tells a number from a text."""

    problem = "regression"

    def labels(self, values: pd.Series[Any], config: Any) -> pd.Series[Any]:
        """Numbers."""
        from pipelines.recipes.text.split import number_labels

        return number_labels(self, values)

    def check_labels(self, parts: Mapping[str, pd.DataFrame], config: Any) -> None:
        """Numbers of the training part must differ."""
        from pipelines.recipes.text.split import check_two

        check_two(self, parts, "train", "a regression", "different numbers")


class TextEmbedding(TextTask):
    """Base of a task that gives texts vectors; texts of the same label mean the same, and stay in one part together."""

    problem = "embedding"

    def labels(self, values: pd.Series[Any], config: Any) -> pd.Series[Any]:
        """The names of the groups."""
        from pipelines.recipes.text.split import class_labels

        return class_labels(self, values, {})

    def keys(self, rows: pd.DataFrame) -> list[str]:
        """The groups."""
        return list(rows["label"])

    def check_labels(self, parts: Mapping[str, pd.DataFrame], config: Any) -> None:
        """The test must have groups to tell apart."""
        from pipelines.recipes.text.split import check_two

        check_two(self, parts, "test", "the measure of vectors", "groups")


class TextTagging(TextTask):
    """Base of a task that finds spans in a text; in the data JSON, see `contracts.problems.tagging.labelled`."""

    problem = "tagging"
    default_recipe = "crf"

    def labels(self, values: pd.Series[Any], config: Any) -> pd.Series[Any]:
        """Spans by place, in one form of JSON; none where the value is missing."""
        from pipelines.recipes.text.spans import span_labels

        return span_labels(self, values)

    def strata(self, labels: pd.Series[Any]) -> list[str]:
        """The rarest type of each row."""
        from contracts.problems.tagging import labelled
        from pipelines.recipes.text.split import rarest

        return rarest([[kind for _, _, kind in labelled(value)] for value in labels])

    def check_labels(self, parts: Mapping[str, pd.DataFrame], config: Any) -> None:
        """Every type must be in the training part, and no span beyond its text."""
        from pipelines.recipes.text.spans import check_spans

        check_spans(self, parts)


class TextGeneration(TextTask):
    """Base of a task that writes a text for each text; the label is one that a person wrote."""

    problem = "generation"
    default_recipe = "lead"

    def labels(self, values: pd.Series[Any], config: Any) -> pd.Series[Any]:
        """The references."""
        from pipelines.recipes.text.split import reference_labels

        return reference_labels(self, values)

    def check_labels(self, parts: Mapping[str, pd.DataFrame], config: Any) -> None:
        """Every row has one, so there is nothing more to refuse."""
