"""Rows with files that are larger than memory: numbers in the place of files, and parts written as bounded shards."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyarrow import parquet

from contracts.bundle import Input
from contracts.errors import PlatformError
from pipelines.data import file_rows
from pipelines.data.file_rows import FileRows, StoredFile, digest_of, file_column, row_count, shards_of, some_rows
from pipelines.evaluation.scoring import for_engine, read_rows


def parts(folder: Path, counts: tuple[int, ...] = (7, 5, 9)) -> pd.DataFrame:
    """Clean parts of so many rows; returns all of them with their files."""
    rng, frames, at = np.random.default_rng(0), [], 0
    folder.mkdir()
    for number, count in enumerate(counts):
        files = [rng.bytes(100 + (at + row) % 3) for row in range(count)]
        frames.append(pd.DataFrame({"id": [f"{at + row}" for row in range(count)], "image": files, "note": None}))
        frames[-1].to_parquet(folder / f"part-{number:05d}.parquet", index=False)
        at += count
    return pd.concat(frames, ignore_index=True)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_rows, "_GROUP_ROWS", 4)
    monkeypatch.setattr(file_rows, "_GROUP_BYTES", 350)
    monkeypatch.setattr(file_rows, "_SHARD_BYTES", 900)


def bounded(target: Path) -> None:
    for shard in shards_of(target):
        with parquet.ParquetFile(shard) as file:
            groups = [file.read_row_group(at).column("image").to_pylist() for at in range(file.num_row_groups)]
        assert all(len(group) <= 4 and sum(map(len, group)) <= 350 for group in groups)
        assert sum(len(one) for group in groups for one in group) <= 900


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("order", ["as they are", "mixed"])
def test_a_part_has_its_rows_with_their_files_in_bounded_shards(tmp_path: Path, order: str) -> None:
    whole = parts(tmp_path / "clean")
    files = FileRows.of_folder(tmp_path / "clean", "image")
    frame = files.frame()
    assert frame["image"].tolist() == list(range(21)), "no file is held"
    assert frame["id"].tolist() == whole["id"].tolist()
    chosen = np.flatnonzero(np.arange(21) % 4 != 1)
    if order == "mixed":
        chosen = np.random.default_rng(1).permutation(chosen)
    target = tmp_path / "train.parquet"
    for _ in range(2):  # a step that runs again leaves nothing of before
        files.write(frame.iloc[chosen].reset_index(drop=True), target)
        pd.testing.assert_frame_equal(pd.read_parquet(target), whole.iloc[chosen].reset_index(drop=True))
        (target / "part-00099.parquet").write_bytes(b"of an earlier run")
        assert len(shards_of(target)) > 3
        (target / "part-00099.parquet").unlink()
    bounded(target)
    assert row_count(target) == len(chosen)
    assert files.digests(frame["image"]) == files.digests(whole["image"])


@pytest.mark.usefixtures("small")
def test_files_in_the_rows_themselves_are_written_alike(tmp_path: Path) -> None:
    whole = parts(tmp_path / "clean")
    files = FileRows.of_folder(tmp_path / "clean", "image")
    files.write(files.frame(), tmp_path / "one.parquet")
    files.write(whole, tmp_path / "other.parquet")
    assert digest_of(tmp_path / "one.parquet") == digest_of(tmp_path / "other.parquet")
    bounded(tmp_path / "other.parquet")
    files.write(whole.drop(columns="image"), tmp_path / "plain.parquet")
    assert (tmp_path / "plain.parquet").is_file()


@pytest.mark.usefixtures("small")
def test_some_rows_are_read_without_the_row_groups_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = parts(tmp_path / "clean")
    files = FileRows.of_folder(tmp_path / "clean", "image")
    files.write(files.frame(), tmp_path / "train.parquet")
    read: list[int] = []
    given = parquet.ParquetFile.read_row_group

    def counted(self: Any, *arguments: Any) -> Any:
        read.append(arguments[0])
        return given(self, *arguments)

    monkeypatch.setattr(parquet.ParquetFile, "read_row_group", counted)
    found = [one for table in some_rows(tmp_path / "train.parquet", np.array([0, 2, 20])) for one in table.to_pylist()]
    assert [one["image"] for one in found] == whole["image"].iloc[[0, 2, 20]].tolist()
    assert len(read) == 2
    every = [one["id"] for table in some_rows(tmp_path / "train.parquet", columns=["id"]) for one in table.to_pylist()]
    assert every == whole["id"].tolist()


def test_a_part_without_shards_is_an_error_with_a_cure(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").mkdir()
    for part in (tmp_path / "train.parquet", tmp_path / "valid.parquet"):
        with pytest.raises(PlatformError, match="missing or damaged"):
            row_count(part)
    with pytest.raises(PlatformError, match="missing or damaged"):
        FileRows.of_folder(tmp_path)


@pytest.mark.usefixtures("small")
def test_stored_files_are_read_as_they_are_asked_for_a_row_group_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = parts(tmp_path / "clean")
    files = FileRows.of_folder(tmp_path / "clean", "image")
    files.write(files.frame(), tmp_path / "test.parquet")
    assert file_column(tmp_path / "test.parquet") == "image"
    groups: list[int] = []
    read = parquet.ParquetFile.read_row_group
    monkeypatch.setattr(
        parquet.ParquetFile, "read_row_group", lambda *given, **more: groups.append(given[1]) or read(*given, **more)
    )
    frame = read_rows(tmp_path / "test.parquet")
    assert frame.drop(columns="image").equals(whole.drop(columns="image"))
    assert list(frame) == list(whole)
    assert not groups, "no file is read yet"
    assert [bytes(one) for one in frame["image"]] == whole["image"].tolist()
    assert len(groups) == sum(parquet.read_metadata(one).num_row_groups for one in shards_of(tmp_path / "test.parquet"))
    mixed = np.random.default_rng(0).permutation(21)
    assert [bytes(one) for one in frame["image"].iloc[mixed]] == whole["image"].iloc[mixed].tolist()
    for engine, kind in ((SimpleNamespace(reads_stored=True), StoredFile), (SimpleNamespace(), bytes)):
        given: Any = for_engine(frame, engine, [Input(name="image", dtype="bytes")])
        assert type(given["image"].iloc[0]) is kind
