"""Training: what it checks, and what happens to its checkpoints."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import PlatformError
from pipelines.steps import train as step
from pipelines.task import TaskConfig


def train(candidate: Path, config: str, checkpoints: Path, out: Path) -> dict[str, Any]:
    return step.train("toy", config, str(candidate / "dataset"), str(checkpoints), str(out))


def test_a_killed_training_goes_on_from_its_checkpoint(
    candidate: Path, toy_config: Callable[..., str], tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / "done.txt").write_text("9")
    train(candidate, toy_config(), folder, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "train.json").read_text())["parameters"]["resumed_after"] == 9
    assert not folder.exists()  # done: the next training starts afresh


def test_two_trainings_never_share_checkpoints(
    candidate: Path, toy_config: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "_PATIENCE", 0.1)
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / "done.txt").write_text("9")
    with folder.with_suffix(".lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        train(candidate, toy_config(), folder, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "train.json").read_text())["parameters"]["resumed_after"] == 0
    assert (folder / "done.txt").read_text() == "9"
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"model", "train.json"}


def test_checkpoints_belong_to_one_exact_training() -> None:
    first = step.checkpoint_folder("/c", "task", "config")
    assert first == step.checkpoint_folder("/c", "task", "config")
    assert first != step.checkpoint_folder("/c", "task", "config2")
    assert step.checkpoint_folder("/c", "a", "bc") != step.checkpoint_folder("/c", "ab", "c")


def test_inputs_that_depend_on_the_model_are_refused(
    candidate: Path, toy: Any, toy_config: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = type(toy).inputs
    monkeypatch.setattr(type(toy), "inputs", lambda self, config: inputs(self, config)[:-1])
    with pytest.raises(PlatformError, match="built for other inputs"):
        train(candidate, toy_config(), tmp_path / "c", tmp_path / "out")


def test_an_incomplete_result_names_what_is_missing(
    candidate: Path, toy: Any, toy_config: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(toy.recipes["tree"]), "train", lambda *_: {"engine": "lightgbm"})
    with pytest.raises(PlatformError, match="train\\(\\) returned no 'decision'"):
        train(candidate, toy_config(), tmp_path / "c", tmp_path / "out")


def test_a_recipe_without_a_trainer_says_what_to_write(toy: Any, tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="recipe bare of task toy cannot train") as err:
        TaskConfig(recipe="bare").train(toy, tmp_path, tmp_path, tmp_path, lambda *_, **__: None)
    assert "TaskConfig" in (err.value.detail or "")
