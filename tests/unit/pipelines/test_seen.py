"""The rows that a model has learned from, as hashes in its bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import PlatformError
from pipelines.data import seen
from pipelines.steps.build_dataset import SPLITS, build_dataset
from pipelines.tasks import get_task

KEYS = st.sets(st.text(max_size=5), max_size=40)


@given(learned=KEYS, others=KEYS, limit=st.integers(1, 50))
@settings(deadline=None)
def test_of_every_row_it_is_told_rightly_or_not_at_all(learned: set[str], others: set[str], limit: int) -> None:
    rows = sorted(learned | others)
    found, hashes = seen.Seen.of(seen.row_hashes(sorted(learned)), limit=limit), seen.row_hashes(rows)
    assert len(found.hashes) <= limit
    for key, told, had in zip(rows, found.tells(hashes), found.has(hashes), strict=True):
        if told:
            assert had == (key in learned)
    if len(learned) <= limit:
        assert found.tells(hashes).all()


@given(a=KEYS, b=KEYS, limit=st.integers(1, 50))
@settings(deadline=None)
def test_two_records_together_are_the_record_of_both(a: set[str], b: set[str], limit: int) -> None:
    def of(keys: set[str]) -> seen.Seen:
        return seen.Seen.of(seen.row_hashes(sorted(keys)), limit=limit)

    both, rows = of(a).with_those_of(of(b), limit), seen.row_hashes(sorted(a | b))
    assert len(both.hashes) <= limit
    assert (both.has(rows) | ~both.tells(rows)).all()
    assert not of(a).with_those_of(seen.Seen.unknown()).known


def test_the_file_is_eight_bytes_a_row_and_the_same_for_any_order(tmp_path: Path) -> None:
    keys = [f"row {i}" for i in range(1000)]
    content = []
    for rows in (keys, keys[::-1] + keys):
        seen.Seen.of(seen.row_hashes(rows)).write(tmp_path)
        content.append((tmp_path / seen.FILE).read_bytes())
    assert content[0] == content[1]
    assert len(content[0]) == 8 * 1001
    found = seen.read_seen(tmp_path)
    assert found.has(seen.row_hashes(keys)).all()
    assert not found.has(seen.row_hashes(["another"])).any()
    (tmp_path / seen.FILE).write_bytes(content[0][:-3])
    with pytest.raises(PlatformError, match=r"damaged: .*seen\.bin"):
        seen.read_seen(tmp_path)


@given(keys=st.lists(st.text(max_size=4), max_size=20), other=st.text(max_size=4))
def test_the_digest_of_rows_depends_on_which_they_are_and_not_on_their_order(keys: list[str], other: str) -> None:
    assert seen.digest(keys) == seen.digest(keys[::-1])
    assert seen.digest(keys) != seen.digest([*keys, other])


def test_many_rows_take_a_bounded_file(tmp_path: Path) -> None:
    limit, rows = 100_000, np.random.default_rng(1).integers(0, 2**64, 300_000, dtype=np.uint64)
    seen.Seen.of(rows, limit=limit).write(tmp_path)
    assert (tmp_path / seen.FILE).stat().st_size == 8 * (limit + 1)
    found = seen.read_seen(tmp_path)
    told = found.tells(rows)
    assert told.mean() == pytest.approx(limit / len(rows), abs=0.01)
    assert found.has(rows[told]).all()


def test_a_candidate_carries_the_rows_of_training_and_validation(candidate: Path) -> None:
    frames = {name: pd.read_parquet(candidate / "dataset" / f"{name}.parquet") for name in SPLITS}
    found = seen.read_seen(candidate / "candidate")
    has = {name: found.has(seen.row_hashes(frame["row_key"])) for name, frame in frames.items()}
    assert has["train"].all()
    assert has["valid"].all()
    assert not has["test"].any()
    assert not list((candidate / "candidate" / "model").glob(seen.FILE))


def test_a_model_taken_from_a_bundle_has_seen_what_that_has_seen(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("dataset", "bundle", "older", "model", "candidate")}
    for folder in folders.values():
        folder.mkdir()
    seen.Seen.of(seen.row_hashes(["new"])).write(folders["dataset"])
    seen.Seen.of(seen.row_hashes(["old"])).write(folders["bundle"])
    seen.keep_of(folders["bundle"], folders["model"])
    seen.carry(folders["dataset"], folders["model"], folders["candidate"])
    found = seen.read_seen(folders["candidate"])
    assert found.has(seen.row_hashes(["new", "old", "none"])).tolist() == [True, True, False]
    seen.keep_of(folders["older"], folders["model"])
    seen.carry(folders["dataset"], folders["model"], folders["candidate"])
    assert not seen.read_seen(folders["candidate"]).known


@pytest.mark.parametrize("text", ["700593.0", " 700593", "7.00593e5"])
def test_an_id_is_the_same_row_however_it_is_written(text: str) -> None:
    task = get_task("fraud")
    rows = pd.DataFrame({"id": [text, "700593", "7005930"]})
    first, second, third = seen.row_hashes(seen.row_keys(rows, rows, task, numbered=False))
    assert first == second != third


def test_rows_without_ids_of_their_own_are_known_by_their_values(
    candidate: Path, toy_config: Callable[..., str], tmp_path: Path
) -> None:
    """A numbered id moves on when a row is put before it; the values do not."""
    config = toy_config(data={"columns": {"parcel": "#row"}})
    parts = sorted((candidate / "clean").glob("part-*.parquet"))
    frame = pd.concat([pd.read_parquet(part) for part in parts], ignore_index=True)
    keys: dict[int, dict[float, Any]] = {}
    for shift in (0, 1):
        clean = tmp_path / f"clean{shift}"
        clean.mkdir()
        numbers = [str(number + shift) for number in range(len(frame))]
        corrected = frame["late"].where(frame.index > 5 * shift, "no")
        frame.assign(parcel=numbers, late=corrected).to_parquet(clean / "part-00000.parquet")
        out = tmp_path / f"dataset{shift}"
        build_dataset("toy", config, str(clean), "", str(out))
        rows = pd.concat([pd.read_parquet(out / f"{name}.parquet") for name in SPLITS])
        keys[shift] = dict(zip(rows["distance"], rows["row_key"], strict=True))
    assert keys[0] == keys[1]
    assert len(set(keys[0].values())) == len(frame)
