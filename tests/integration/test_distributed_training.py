"""The recipes embedding_lstm and resnet by two processes of torchrun give what one process gives."""

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

from contracts.ports import free_port
from tests.image_bundle import shades

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


IMAGES = """
import json, os, sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch
from pipelines.tasks import get_task, recipe_config
from pipelines.training import loop, shards
from pipelines.training.distributed import joined
from pipelines.training.shards import LoaderConfig

def trained(home, dataset, workers, **more):
    given = {"image.width": 8, "image.height": 8, "augment.mixup": 0.3, "augment.cutmix": 0.3, "augment.erase": 0.5}
    given |= {"model.widths": [4, 8], "model.blocks": [1], "model.norm": "group"}
    given |= {"training.epochs": 2, "training.batch_size": 8, "training.warmup": 2, "training.learning_rate": 0.05}
    given |= {"training.class_weights": True, "loader.window": 16, **more}
    config = recipe_config(get_task("images"), "resnet", given)
    config = replace(config, loader=replace(config.loader, workers=workers))
    out = home / "model"
    found = config.train(get_task("images"), dataset, out, home / "kept", lambda *args, **kwargs: None)
    return found["history"]

def held(home, dataset):
    return {"history": trained(home / "held", dataset, 0)}

def streamed(home, dataset):
    # Windows are made in this process, by the code of the workers, so that what is decoded is counted.
    read, decoded = shards.read_pixels, []
    with patch.object(shards, "read_pixels", lambda *given: decoded.append(1) or read(*given)):
        return {"history": trained(home / "streamed", dataset, 1), "decoded": len(decoded)}

def told(home, dataset, *ways):
    home.mkdir(exist_ok=True)
    with patch.object(shards.ShardLoader, "running", lambda self: patch.dict({})):
        said = {way.__name__: way(home, dataset) for way in ways}
        if len(ways) == 2:
            within(home, dataset)
    (home / f"{'-'.join(said)}.json").write_text(json.dumps(said))

def within(home, dataset):
    # Both are killed in the second epoch, after 3 of its 10 batches; what was kept last was after 2.
    track, steps = loop._track, []

    def killed(*given):
        track(*given)
        steps.append(1)
        if len(steps) == 13:
            raise KeyboardInterrupt

    more = {"training.checkpoint_steps": 2}
    try:
        with patch.object(loop, "_track", killed):
            trained(home / "again", dataset, 1, **more)
    except KeyboardInterrupt:
        with patch.object(loop, "_track", lambda *given: steps.append(1) or track(*given)):
            trained(home / "again", dataset, 1, **more)
    assert len(steps) == 13 + 8, steps  # what was done is not done again


if __name__ == "__main__":
    home, dataset, rank = Path(sys.argv[1]), Path(sys.argv[2]), os.environ["RANK"]
    told(home / "alone", dataset, (held, streamed)[int(rank)])  # each of the two at the same time
    with joined() as here:
        assert here.size == 2
        told(home / rank, dataset, held, streamed)
"""


def test_two_processes_learn_images_as_one_does_and_decode_half(tmp_path: Path) -> None:
    import numpy as np
    import onnx

    dataset, port = shades(tmp_path / "dataset"), str(free_port())
    (tmp_path / "images.py").write_text(IMAGES)
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    started = [
        subprocess.Popen(
            [sys.executable, str(tmp_path / "images.py"), str(tmp_path), str(dataset)],
            env=environment() | group | {"RANK": rank}, cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        )
        for rank in ("0", "1")
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=240)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], "".join(said)[-3000:]
    ways = ("held", "streamed")
    pair = [json.loads((tmp_path / rank / "held-streamed.json").read_text()) for rank in ("0", "1")]
    alone = {way: json.loads((tmp_path / "alone" / f"{way}.json").read_text())[way] for way in ways}

    def values(name: str, kind: str) -> list[Any]:
        graph = onnx.load(str(tmp_path / name / kind / "model" / "model.onnx")).graph
        return [onnx.numpy_helper.to_array(one) for one in graph.initializer]

    for kind in ways:
        for first, second in zip(alone[kind]["history"], pair[0][kind]["history"], strict=True):
            assert second == pytest.approx(first, rel=1e-3)
        for mine, theirs in zip(values("alone", kind), values("0", kind), strict=True):
            np.testing.assert_allclose(theirs, mine, rtol=2e-3, atol=2e-4)
    for mine, theirs in zip(values("0", "streamed"), values("0", "again"), strict=True):
        np.testing.assert_array_equal(mine, theirs, "a training that was killed within an epoch")
    assert alone["streamed"]["decoded"] == 2 * 40
    assert all(40 <= one["streamed"]["decoded"] < 67 for one in pair), "their halves, and what is mixed into them"


def test_processes_that_cannot_meet_say_so(dataset: Path, tmp_path: Path) -> None:
    lost = environment() | {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "no-such-host.invalid", "MASTER_PORT": "1"}
    code = "import datetime, torch.distributed as d\nfrom functools import partial\n"
    code += "d.init_process_group = partial(d.init_process_group, timeout=datetime.timedelta(seconds=3))\n"
    code += "from pipelines.training.distributed import joined\nwith joined(): pass"
    done = subprocess.run([sys.executable, "-c", code], env=lost, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "cannot join the other processes of this training" in done.stderr
