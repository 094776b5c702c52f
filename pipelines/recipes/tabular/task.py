"""What tasks of tables may be made of: a subclass says which columns it has, and what is predicted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic.dataclasses import dataclass

from contracts.bundle import Input
from contracts.errors import PlatformError
from pipelines.evaluation import get_evaluation
from pipelines.settings import setting
from pipelines.task import STRICT, Column

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

PARTS = ("train", "valid", "test")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SplitConfig:
    """Shares of the rows: the newest are the test; without moments a hash of the id decides."""

    valid_share: float = 0.2
    test_share: float = 0.2


class TabularTask:
    """Base of a task, see `pipelines.task.Task`; a subclass has the attributes without a value, and recipes.

    Its configurations have ``split``, a `SplitConfig`. Every column that is not named below is an input of a request.

    Attributes:
        features: names of the features that are read online, all numbers.
        slices: columns of strings whose values metrics are kept for.
        sample: CSV file with the built-in data.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    label: str
    sample: Path
    problem = "classification"
    modality: str = "tabular"
    id = "id"
    timestamp: str | None = None
    entities: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    feature_service: str | None = None
    features: tuple[str, ...] = ()
    slices: tuple[str, ...] = ()
    default_recipe = "lightgbm"

    def default_source(self, config: Any) -> Iterator[pa.Table]:
        """The shipped sample."""
        import pyarrow as pa
        from pyarrow import csv

        kinds = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64()}
        kinds["timestamp"] = pa.timestamp("us", tz="UTC")
        types = {column.name: kinds[column.dtype] for column in self.columns}
        yield csv.read_csv(self.sample, convert_options=csv.ConvertOptions(column_types=types, include_columns=types))

    def inputs(self, config: Any) -> list[Input]:
        """The columns, numbers as such and strings as categories; then the features."""
        own = {self.id, self.label, self.timestamp, *self.entities}
        given = [column for column in self.columns if column.name not in own and column.dtype != "timestamp"]
        return [*map(_input, given), *(Input(name=name, dtype="float64", source="online") for name in self.features)]

    def request(self, config: Any) -> list[Input]:
        """Nothing beside the inputs."""
        return []

    def split(self, frame: pd.DataFrame, config: Any) -> dict[str, pd.DataFrame]:
        """In order of time, or by a hash of the id."""
        return split_rows(self, frame, config)

    def split_large(
        self, files: Sequence[Path], config: Any, memory: str = ""
    ) -> Iterator[dict[str, pd.DataFrame]] | None:
        """The parts of `split`, some rows of each at a time, for a table that memory need not hold.

        Args:
            files: the clean rows.  memory: of DuckDB, which sorts them.

        Returns:
            None where rows have to be seen together: of a task with a split, features or sensitive columns of its own,
            or whose id, label or slices have gaps.
        """
        from pipelines.data.large_tables import has_gaps
        from pipelines.data.sensitive import sensitive_of

        own = type(self).split is not TabularTask.split or hasattr(self, "left_out") or self.feature_service
        if own or sensitive_of(self) or has_gaps(files, (self.id, self.label, *self.slices)):
            return None
        return _split_in_batches(self, files, config, memory)


def _split_in_batches(
    task: TabularTask, files: Sequence[Path], config: Any, memory: str
) -> Iterator[dict[str, pd.DataFrame]]:
    import numpy as np

    from pipelines.data.file_rows import rows_in
    from pipelines.data.large_tables import in_order

    edges, rows, first = _edges(config), rows_in(files), 0
    for frame in in_order(files, (task.timestamp, task.id) if task.timestamp else (), memory):
        if task.timestamp:
            place = np.arange(first, first + len(frame)) / max(rows, 1)
        else:
            place = np.asarray(_hashes(frame[task.id].astype(str)))
        first += len(frame)
        yield _parted(_columns(task, frame, config), place, edges)


def split_rows(task: TabularTask, frame: pd.DataFrame, config: Any) -> dict[str, pd.DataFrame]:
    """Train, valid and test; the order of the file does not count, nor does the seed.

    With moments, newer rows move older ones towards training only; without, a row keeps its part.

    Raises:
        PlatformError: shares that leave nothing.
    """
    import numpy as np

    edges = _edges(config)
    if task.timestamp:
        rows = frame.sort_values([task.timestamp, task.id]).reset_index(drop=True)
        place = np.arange(len(rows)) / max(len(rows), 1)
    else:
        rows, place = frame.reset_index(drop=True), _hashes(frame[task.id].astype(str))
    return _parted(_columns(task, rows, config), place, edges)


def _edges(config: Any) -> list[float]:
    """Where the validation part and the test part begin, of places from 0 to 1."""
    valid, test = config.split.valid_share, config.split.test_share
    if min(valid, test) <= 0 or valid + test >= 1:
        raise PlatformError(
            "the shares of the split leave nothing for a part",
            detail=f"split.valid_share is {valid:g}, split.test_share is {test:g}",
            fix=f"give shares above 0 that add up to less than 1: {setting('split.valid_share', 0.2)}",
            code="bad_config",
        )
    return [1 - test - valid, 1 - test]


def _columns(task: TabularTask, rows: pd.DataFrame, config: Any) -> pd.DataFrame:
    """What a part has of each row."""
    inputs = list(task.inputs(config))
    made = rows[[item.name for item in inputs]].copy()
    for item in inputs:
        if item.dtype != "string":
            made[item.name] = made[item.name].astype("float64")
    made["id"], made["label"] = rows[task.id].astype(str), get_evaluation(task.problem).labels(rows[task.label])
    for name in task.slices:
        made[f"slice_{name}"] = rows[name].astype(str)
    return made


def _parted(made: pd.DataFrame, place: Any, edges: Sequence[float]) -> dict[str, pd.DataFrame]:
    import numpy as np

    part = np.digitize(place, edges)
    return {name: made[part == at].reset_index(drop=True) for at, name in enumerate(PARTS)}


def _hashes(keys: pd.Series[Any]) -> Any:
    """A number from 0 to 1 for each key."""
    import hashlib

    return [int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64 for key in keys]


def _input(column: Column) -> Input:
    if column.dtype == "string":
        return Input(name=column.name, dtype="string", categories=list(column.categories or ()) or None)
    return Input(name=column.name, dtype="float64", minimum=column.minimum, maximum=column.maximum)
