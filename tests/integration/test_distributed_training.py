"""The recipe embedding_lstm by two processes of torchrun gives what one process gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(find_spec("torch") is None, reason="the recipe trains with torch"),
]
ROOT = Path(__file__).parents[2]
SETTINGS = {"model.dropout": 0.0, "training.epochs": 4, "model.hidden": 16, "model.embedding": 16}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from pipelines.steps.build_dataset import build_dataset
    from pipelines.steps.ingest import ingest
    from pipelines.steps.validate import validate

    folder = tmp_path_factory.mktemp("news")
    ingest("news", config(), "", str(folder / "data"), str(folder / "manifest"))
    validate("news", config(), str(folder / "manifest"), str(folder / "clean"))
    build_dataset("news", config(), str(folder / "clean"), "", str(folder / "dataset"))
    return folder / "dataset"


def config(**settings: Any) -> str:
    from pipelines.task import dump_config
    from pipelines.tasks import get_task, recipe_config

    return dump_config(recipe_config(get_task("news"), "embedding_lstm", {**SETTINGS, **settings}))


def command(processes: int, dataset: Path, folder: Path, **settings: Any) -> list[str]:
    alone = [sys.executable, "-m", "pipelines.steps.train_worker"]
    several = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    start = alone if processes == 1 else [*several, "-m", "pipelines.steps.train_worker"]
    given = {"task": "news", "config": config(**settings), "dataset": str(dataset)}
    given |= {"checkpoints": str(folder / "checkpoints" / "a"), "out": str(folder / "out")}
    return [*start, *(part for key, value in given.items() for part in (f"--{key}", value))]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def trained(processes: int, dataset: Path, folder: Path, **settings: Any) -> Any:
    done = subprocess.run(
        command(processes, dataset, folder, **settings),
        env=environment(), cwd=folder, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"event"')]
    assert [e["event"] for e in events if e["event"] != "progress"] == ["step_started", "step_finished"]
    assert events[-1]["result"]["processes"] == processes
    epochs = [e["done"] for e in events if e["event"] == "progress"]
    return {**json.loads((folder / "out" / "train.json").read_text()), "epochs": epochs}


def weights(folder: Path) -> dict[str, Any]:
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(folder / "out" / "model" / "model.onnx")).graph
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


@pytest.fixture(scope="module")
def alone(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    folder = tmp_path_factory.mktemp("alone")
    return trained(1, dataset, folder), folder


def test_two_processes_learn_what_one_learns(alone: tuple[Any, Path], dataset: Path, tmp_path: Path) -> None:
    import numpy as np

    one = alone[0]["history"]
    two = trained(2, dataset, tmp_path)["history"]
    assert [row["epoch"] for row in two] == [row["epoch"] for row in one] == [1, 2, 3, 4]
    for first, second in zip(one, two, strict=True):
        assert second["train_loss"] == pytest.approx(first["train_loss"], rel=1e-4)
        assert second["valid_loss"] == pytest.approx(first["valid_loss"], rel=1e-4)
    mine, theirs = weights(alone[1]), weights(tmp_path)
    assert mine.keys() == theirs.keys()
    for name, values in mine.items():
        if values.dtype == np.float32:
            np.testing.assert_allclose(theirs[name], values, rtol=2e-3, atol=2e-4, err_msg=name)


def test_a_killed_training_of_two_goes_on_from_its_checkpoint(dataset: Path, tmp_path: Path) -> None:
    longer = {"training.epochs": 12, "training.patience": 12, "model.hidden": 48, "model.embedding": 96}
    child = subprocess.Popen(
        command(2, dataset, tmp_path, **longer), env=environment(), cwd=tmp_path, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    for line in child.stdout:
        if json.loads(line)["event"] == "progress" and json.loads(line)["done"] >= 2:
            break
    for process in [*psutil.Process(child.pid).children(recursive=True), child]:
        process.kill()
    child.wait()
    again = trained(2, dataset, tmp_path, **longer)
    assert len(again["history"]) == 12
    assert again["epochs"][0] >= 3  # the first ones were not made again


def test_processes_that_cannot_meet_say_so(dataset: Path, tmp_path: Path) -> None:
    lost = environment() | {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "no-such-host.invalid", "MASTER_PORT": "1"}
    code = "import datetime, torch.distributed as d\nfrom functools import partial\n"
    code += "d.init_process_group = partial(d.init_process_group, timeout=datetime.timedelta(seconds=3))\n"
    code += "from pipelines.training.distributed import joined\nwith joined(): pass"
    done = subprocess.run([sys.executable, "-c", code], env=lost, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "cannot join the other processes of this training" in done.stderr
