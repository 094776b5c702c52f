"""Rows cut by a key: parts give what all rows give, and what is wrong with a file or a key is named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.errors import PlatformError
from feature_repo.stores import parts
from feature_repo.stores.join import point_in_time_join


class Cutting:
    """An engine that cuts into three parts and does the work here."""

    workers, memory_limit = 2, "200MB"

    def __init__(self, folder: Path) -> None:
        self.folder, self.said = folder, list[str]()
        self.done: list[str] = []

    def parts(self, rows: int) -> int:
        return 3

    def map(self, work: str, items: Sequence[Mapping[str, Any]]) -> list[Any]:
        self.done.append(work.partition(":")[2])
        return [parts.function(work)(item) for item in items]

    @contextmanager
    def place(self) -> Iterator[str]:
        yield str(self.folder / "place")

    def shared(self, files: Sequence[str], place: str) -> list[str]:
        return list(files)

    def say(self, message: str) -> None:
        self.said.append(message)


PLAN: dict[str, Any] = {
    "timestamp": "at",
    "views": [
        {
            "name": "v",
            "join_keys": [{"name": "who", "dtype": "string"}, {"name": "where", "dtype": "int64", "asked": "place"}],
            "features": [{"name": "x", "dtype": "int64"}, {"name": "late", "dtype": "string", "as": "v_late"}],
            "ttl_seconds": 40,
            "source": "v",
            "timestamp_field": "event",
            "created_field": "made",
        }
    ],
}


def history(folder: Path, files: int = 5, rows: int = 60) -> None:
    """Later files have a column more, another type of key, and rows of the same moment; some keys are missing."""
    rng = np.random.default_rng(3)
    (folder / "v").mkdir()
    for number in range(files):
        who = [None if k == 0 else f"c{k}" for k in rng.integers(0, 6, rows)]
        moment = pa.array(rng.integers(0, 100, rows) * 1_000_000, pa.timestamp("us", "UTC"))
        made = pa.array(rng.integers(0, 3, rows), pa.timestamp("us", "UTC"))
        kind = pa.int64() if number % 2 else pa.int32()
        table = {"who": who, "where": pa.array(rng.integers(0, 2, rows), kind), "event": moment, "made": made}
        table["x"] = pa.array(np.arange(rows) + number * rows)
        if number > 2:
            table["late"] = [f"{number}-{row}" for row in range(rows)]
        pq.write_table(pa.table(table), folder / "v" / f"{number}.parquet")


def asked(rows: int = 200) -> pd.DataFrame:
    rng = np.random.default_rng(4)
    moments = pd.to_datetime(rng.integers(0, 120_000_000, rows), unit="us", utc=True)
    return pd.DataFrame(
        {"who": [f"c{k}" for k in rng.integers(1, 8, rows)], "place": rng.integers(0, 3, rows), "at": moments}
    )


def test_a_join_by_parts_is_the_join(tmp_path: Path) -> None:
    history(tmp_path)
    engine = Cutting(tmp_path)
    whole = point_in_time_join(PLAN, tmp_path, asked())
    joined = point_in_time_join(PLAN, tmp_path, asked(), engine=engine)
    pd.testing.assert_frame_equal(joined, whole)
    assert 20 < whole["x"].notna().sum() < 200
    assert whole["v_late"].notna().any()
    assert engine.done == ["cut_asked", "cut_history", "choose_in_part", "gather_in_share"]


def test_parts_are_tables_to_the_planner_so_that_it_joins_no_loop(tmp_path: Path) -> None:
    """An ASOF join over Arrow, which has no statistics, became a loop that took sixty times as long."""
    from feature_repo.stores import join_sql
    from feature_repo.stores.parquet_sources import connect

    with connect("200MB", threads=1) as connection:
        connection.execute(
            "CREATE TEMP TABLE asked AS SELECT range % 50 AS key0, range % 7 AS key1, range AS moment, range AS nr "
            "FROM range(3000)"
        )
        connection.execute("CREATE TEMP TABLE history AS SELECT *, nr AS pos, 0 AS made FROM asked, range(20)")
        choose = join_sql.choose(PLAN["views"][0])[0].partition(" AS ")[2]
        plan = str(connection.execute(f"EXPLAIN {choose}").fetchall())
    assert "ASOF_JOIN" in plan
    assert "LOOP" not in plan


def test_every_part_has_all_rows_of_its_keys_in_their_order(tmp_path: Path) -> None:
    files = []
    for number in range(6):
        table = {"key": [f"k{(number * 50 + row) % 11}" for row in range(50)], "n": np.arange(50) + number * 50}
        files.append(str(tmp_path / f"{number}.parquet"))
        pq.write_table(pa.table(table), files[-1])
    engine = Cutting(tmp_path)
    assert parts.map_parts(engine, files, "key", ["key", "n"], f"{__name__}:copy", tmp_path / "out") == 3
    made = [pq.read_table(file) for file in sorted((tmp_path / "out").iterdir())]
    assert len(made) == 3
    assert sum(table.num_rows for table in made) == 300
    assert not set(made[0]["key"].to_pylist()) & set(made[1]["key"].to_pylist())
    for table in made:
        assert table["n"].to_pylist() == sorted(table["n"].to_pylist())
    assert not engine.said


def copy(files: Sequence[str], out: str) -> None:
    pq.write_table(pa.concat_tables([pq.read_table(file) for file in files]), out)


def test_a_key_with_a_third_of_the_rows_is_named(tmp_path: Path) -> None:
    keys = ["big" if row % 3 == 0 else f"k{row}" for row in range(900)]
    pq.write_table(pa.table({"key": keys}), tmp_path / "a.parquet")
    engine = Cutting(tmp_path)
    parts.map_parts(engine, [str(tmp_path / "a.parquet")], "key", ["key"], f"{__name__}:copy", tmp_path / "out")
    (said,) = engine.said
    assert "key 'big' has 300 of 900 rows (33%)" in said


def test_a_broken_file_among_many_is_named(tmp_path: Path) -> None:
    history(tmp_path, files=20, rows=2)
    (tmp_path / "v" / "13.parquet").write_bytes(b"PAR1 is how it begins, and there it ends")
    with pytest.raises(PlatformError, match=r"13\.parquet is broken") as failed:
        point_in_time_join(PLAN, tmp_path, asked(), engine=Cutting(tmp_path))
    assert failed.value.code == "bad_source"
