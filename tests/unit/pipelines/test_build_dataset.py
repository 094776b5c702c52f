"""Data sets: the task's split, checked; features joined point in time when there are any."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from contracts.errors import PlatformError
from pipelines.data import left_out
from pipelines.data.file_rows import FileRows
from pipelines.steps import build_dataset as step


def build(folder: Path, config: str, out: Path, features: str = "") -> dict[str, Any]:
    return step.build_dataset("toy", config, str(folder / "clean"), features, str(out))


def test_splits_follow_time_and_carry_inputs_label_and_slices(candidate: Path) -> None:
    frames = {name: pd.read_parquet(candidate / "dataset" / f"{name}.parquet") for name in step.SPLITS}
    assert [len(frame) for frame in frames.values()] == [200, 80, 120]
    assert frames["train"]["id"].max() < frames["valid"]["id"].min() < frames["test"]["id"].min()
    assert set(frames["test"].columns) == {"distance", "stops", "kind", "id", "label", "row_key", "slice_kind"}


def test_the_document_has_counts_and_inputs(candidate: Path) -> None:
    found = json.loads((candidate / "dataset" / "dataset.json").read_text())
    assert found["rows"] == {"train": 200, "valid": 80, "test": 120}
    assert sum(found["labels"]["train"].values()) == 200
    assert [item["name"] for item in found["inputs"]] == ["distance", "stops", "kind"]
    assert found["slices"] == ["slice_kind"]
    assert not (candidate / "dataset" / "features.json").exists()


def test_features_are_joined_and_their_plan_travels_along(
    candidate: Path, toy: Any, toy_config: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    def join(frame: pd.DataFrame, history: Any) -> pd.DataFrame:
        calls.append(history)
        return frame.assign(distance=1.0)

    monkeypatch.setattr(step, "join", join)
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "clean").symlink_to(candidate / "clean")
    (folder / "features.json").write_text(json.dumps({"path": "history", "plan": {"views": []}}))
    build(folder, toy_config(), tmp_path / "out", str(folder / "features.json"))
    assert calls == [{"path": "history", "plan": {"views": []}}]
    assert (pd.read_parquet(tmp_path / "out" / "test.parquet")["distance"] == 1.0).all()
    assert json.loads((tmp_path / "out" / "features.json").read_text()) == {"views": []}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda frames: {**frames, "test": frames["test"][:0]}, "no rows are left for test"),
        (lambda frames: {**frames, "valid": frames["valid"].drop(columns="stops")}, "no column 'stops' for valid"),
        (lambda frames: {**frames, "train": frames["train"].assign(label="no")}, "the label 'no'"),
    ],
)
def test_a_useless_split_is_refused(
    candidate: Path, toy: Any, toy_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any, said: str
) -> None:
    split = type(toy).split
    monkeypatch.setattr(type(toy), "split", lambda self, frame, config: change(split(self, frame, config)))
    with pytest.raises(PlatformError, match=said):
        build(candidate, toy_config(), tmp_path / "out")


def test_clean_rows_that_are_gone_are_an_error_with_a_cure(candidate: Path, toy_config: Any, tmp_path: Path) -> None:
    (tmp_path / "clean").mkdir()
    with pytest.raises(PlatformError, match="missing or damaged") as caught:
        build(tmp_path, toy_config(), tmp_path / "out")
    assert caught.value.fix == "make it again: --no-cache"


def test_the_same_clean_rows_give_the_same_bytes(candidate: Path, toy_config: Any, tmp_path: Path) -> None:
    build(candidate, toy_config(), tmp_path / "out")
    for file in (tmp_path / "out").iterdir():
        assert file.read_bytes() == (candidate / "dataset" / file.name).read_bytes()


def test_rows_that_the_split_leaves_out_are_told_with_those_from_before(
    candidate: Path, toy: Any, toy_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = tmp_path / "clean"
    shutil.copytree(candidate / "clean", clean)
    read = len(FileRows.of_folder(clean).frame())
    earlier = {"step": "validate", "reason": "stops: not a whole number", "rows": 5, "where": "/q.csv"}
    report = {"left_out": left_out.document(read + 5, [earlier], [])}
    (clean / "report.json").write_text(json.dumps(report))
    split = toy.split

    def without_ten(frame: Any, config: Any) -> Any:
        parts = split(frame, config)
        return {**parts, "test": parts["test"][10:]}

    monkeypatch.setattr(toy, "split", without_ten, raising=False)
    build(tmp_path, toy_config(), tmp_path / "dataset")
    found = json.loads((tmp_path / "dataset" / "dataset.json").read_text())["left_out"]
    assert (found["rows_read"], found["rows_left_out"]) == (read + 5, 15)
    assert [(group["step"], group["rows"]) for group in found["groups"]] == [("validate", 5), ("build_dataset", 10)]
