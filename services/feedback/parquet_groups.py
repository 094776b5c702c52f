"""Groups of rows of the log's Parquet files, of which only those are read that may hold what is looked for.

Each group has the least and the greatest value of its columns at the end of the file; ids begin with their time, so
the groups that hold some ids are few. Of a file in S3 only these parts are fetched.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contracts import storage
from contracts.errors import PlatformError
from services.feedback.records import id_time, is_id

LABEL_DAYS = b"label_days"  # in the metadata of a file of labels: how many are of predictions of each day
IsNew = Callable[[str, int], bool]


def groups(uri: str, first: int = 0, is_new: IsNew = lambda source, at: True) -> Iterator[tuple[int, pa.Table]]:
    """The groups of a file from number `first`, one at a time.

    Args:
        is_new: whether a line of this file and byte is wanted; a group without such a line is left out.

    Raises:
        PlatformError: ``code="unreadable_log"``, or the storage's own.
    """
    with _opened(uri) as file:
        for number in range(first, file.num_row_groups):
            origins = file.read_row_group(number, columns=["source", "at"])
            last = origins.group_by("source").aggregate([("at", "max")])
            if any(map(is_new, last["source"].to_pylist(), last["at_max"].to_pylist())):
                yield number, file.read_row_group(number)


def groups_between(uri: str, start: datetime, end: datetime) -> Iterator[pa.Table]:
    """The groups that may have records with start <= time < end."""
    with _opened(uri) as file:
        for number in range(file.num_row_groups):
            low, high = _limits(file, number, "time")
            if low is None or (_utc(low) < end and _utc(high) >= start):
                yield file.read_row_group(number)


def rows_of(uri: str, ids: Sequence[str]) -> Iterator[pa.Table]:
    """The rows of these ids, which are in their order."""
    wanted = pa.array(ids, pa.string())
    with _opened(uri) as file:
        for number in range(file.num_row_groups):
            low, high = _limits(file, number, "id")
            at = 0 if low is None else bisect_left(ids, low)
            if at == len(ids) or (high is not None and ids[at] > high):
                continue
            mask = pc.is_in(file.read_row_group(number, columns=["id"])["id"], value_set=wanted)
            if pc.any(mask).as_py():
                yield file.read_row_group(number).filter(mask)


def summary(uri: str) -> tuple[int, set[str]]:
    """How many predictions a file has, and of which versions."""
    versions = set[str]()
    with _opened(uri) as file:
        for number in range(file.num_row_groups):
            low, high = _limits(file, number, "version")
            if low is not None and low == high:
                versions.add(low)
            else:
                versions |= set(file.read_row_group(number, columns=["version"])["version"].unique().to_pylist())
        return file.metadata.num_rows, versions


def labelled_days(uri: str) -> Counter[date]:
    """How many labels a file has of predictions of each day."""
    with _opened(uri) as file:
        if known := (file.metadata.metadata or {}).get(LABEL_DAYS):
            return Counter({date.fromisoformat(day): count for day, count in json.loads(known).items()})
        found = Counter[date]()
        for number in range(file.num_row_groups):
            ids = file.read_row_group(number, columns=["id"])["id"].to_pylist()
            found.update(id_time(one).date() for one in ids if is_id(one))
        return found


def _limits(file: pq.ParquetFile, number: int, name: str) -> tuple[Any, Any]:
    """The least and the greatest value of a column in a group; None where the file does not say."""
    statistics = file.metadata.row_group(number).column(file.schema_arrow.names.index(name)).statistics
    return (statistics.min, statistics.max) if statistics is not None and statistics.has_min_max else (None, None)


def _utc(at: datetime) -> datetime:
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at


@contextmanager
def _opened(uri: str) -> Iterator[pq.ParquetFile]:
    try:
        with storage.open_parts(uri) as parts, pq.ParquetFile(parts, pre_buffer=True) as file:
            yield file
    except FileNotFoundError:
        raise PlatformError(f"not found: {uri}", fix="read again, it was replaced", code="not_found") from None
    except (pa.ArrowException, OSError) as err:
        raise PlatformError(
            f"cannot read {uri}", detail=str(err), fix="restore the file, or remove it", code="unreadable_log"
        ) from err
