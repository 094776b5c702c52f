"""The engine ray, with its processes: equal results though workers, the head or the step die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from contracts.errors import PlatformError
from feature_repo.stores.join import point_in_time_join
from feature_repo.stores.parts import function
from pipelines.data_engines import pods_engine, ray_worker
from pipelines.data_engines.pods_engine import PodsEngine
from pipelines.data_engines.ray_engine import RayEngine
from pipelines.io.pods import PodSettings
from tests.late import needs
from tests.servers import s3_server
from tests.unit.feature_repo.test_parts import PLAN, asked, history

needs("ray")
pytestmark = pytest.mark.integration


class Dying(RayEngine):
    """Its workers die, each once, at every stage."""

    def map(self, work: str, items: Sequence[Mapping[str, Any]]) -> list[Any]:
        marks = [str(Path(self._place) / f"{work}-{number}") for number in range(len(items))]
        wrapped = [{"work": work, "item": item, "mark": mark} for item, mark in zip(items, marks, strict=True)]
        found = super().map(f"{__name__}:die_once", wrapped)
        assert all(Path(mark).exists() for mark in marks[:1])
        return found


def die_once(item: Mapping[str, Any]) -> Any:
    mark = Path(item["mark"])
    if mark.name.endswith("-0") and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return function(item["work"])(item["item"])


def die(item: Mapping[str, Any]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def children(of: int, named: str = "") -> list[int]:
    """Processes below `of`."""
    parents = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit():
                name, _, rest = (entry / "stat").read_text().partition(")")
                parents[int(entry.name)] = (int(rest.split()[1]), name.partition("(")[2])
        except OSError:
            continue
    below, found = {of}, []
    while new := {pid for pid, (parent, _) in parents.items() if parent in below} - below:
        below |= new
        found += [pid for pid in new if named in parents[pid][1]]
    return found


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dying]:
    place = tmp_path_factory.mktemp("place")
    made = Dying("materialise", workers=2, memory="1Gi", place=str(place), rows=100)
    yield made
    made.close()
    assert not list(place.glob("parts-*"))


def test_a_join_is_the_join_though_a_worker_dies_at_every_stage(engine: Dying, tmp_path: Path) -> None:
    history(tmp_path)
    joined = point_in_time_join(PLAN, tmp_path, asked(), engine=engine)
    pd.testing.assert_frame_equal(joined, point_in_time_join(PLAN, tmp_path, asked()))


def test_a_lost_head_is_replaced_and_a_worker_that_always_dies_is_named(
    engine: Dying, capfd: pytest.CaptureFixture[str]
) -> None:
    (gcs,) = children(os.getpid(), "gcs_server")
    os.kill(gcs, signal.SIGKILL)
    assert RayEngine.map(engine, "builtins:len", [{"a": 1}, {}]) == [1, 0]
    assert "the head of Ray was lost" in capfd.readouterr().out
    with pytest.raises(PlatformError, match="workers died 4 times at one piece of work: die") as failed:
        RayEngine.map(engine, f"{__name__}:die", [{}])
    assert failed.value.code == "worker_lost"
    assert "data.memory" in failed.value.fix


def test_nothing_outlives_a_step_that_is_killed(tmp_path: Path) -> None:
    text = (
        "from pipelines.data_engines.ray_engine import RayEngine\n"
        f"RayEngine('x', workers=1, memory='1Gi', place={str(tmp_path)!r}).map('time:sleep', [1000])\n"
    )
    step = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE)
    until = time.monotonic() + 60
    while not children(step.pid, "raylet") and time.monotonic() < until:
        time.sleep(0.1)
    below = children(step.pid)
    assert len(below) > 3
    step.kill()
    step.wait()
    while any(Path(f"/proc/{pid}/exe").exists() for pid in below) and time.monotonic() < until:
        time.sleep(0.1)
    left = [Path(f"/proc/{pid}/cmdline").read_text() for pid in below if Path(f"/proc/{pid}/exe").exists()]
    assert not left


class Nodes:
    """Workers in place of pods: processes with an address and a folder each, that share the store and nothing else."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.folder, self.workers = folder, workers
        self.running: list[subprocess.Popen[bytes]] = []

    @property
    def made(self) -> bool:
        return bool(self.running)

    def own_address(self) -> str:
        return ""

    def make(self, head: str) -> None:
        for number in range(0 if self.made else self.workers):
            here = self.folder / str(number)
            here.mkdir()
            path = os.pathsep.join(filter(None, sys.path))
            told = {"PYTHONPATH": path, "RAY_TMPDIR": str(here), ray_worker.IP: f"127.0.0.{number + 2}"}
            command = [sys.executable, "-m", "pipelines.data_engines.ray_worker", head]
            with (here / "log").open("wb") as log:
                node = subprocess.Popen(
                    command, cwd=here, env={**os.environ, **told}, stdout=log, stderr=log, start_new_session=True
                )
            self.running.append(node)

    def delete(self) -> None:
        pass


def test_nodes_that_share_a_store_only_give_the_join_though_one_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = Nodes(tmp_path, 2)
    monkeypatch.setattr(pods_engine, "Pods", lambda *_: nodes)
    (tmp_path / "history").mkdir()
    history(tmp_path / "history")
    expected = point_in_time_join(PLAN, tmp_path / "history", asked())
    with s3_server(tmp_path, "lake") as storage:
        for name, value in storage.items():
            monkeypatch.setenv(name, value)
        left = tmp_path / "s3" / "lake" / ".parts" / "run-1" / "materialise" / "parts-1" / "cut"
        left.mkdir(parents=True)
        (left / "x.parquet").write_bytes(b"of a step that was lost")
        engine = PodsEngine(
            "materialise", workers=2, memory="1Gi", place="s3://lake/.parts", run="run-1",
            pods=PodSettings(image="i", namespace="n"),
        )  # fmt: skip
        engine._rows = 100
        try:
            assert engine.map("builtins:len", [{}] * 4) == [0] * 4
            for pid in (nodes.running[0].pid, *children(nodes.running[0].pid)):
                os.kill(pid, signal.SIGKILL)
            joined = point_in_time_join(PLAN, tmp_path / "history", asked(), engine=engine)
            pd.testing.assert_frame_equal(joined, expected)
        finally:
            engine.close()
        assert [node.wait(60) for node in nodes.running] == [-signal.SIGKILL, 0]
        assert not [path for path in (tmp_path / "s3" / "lake").rglob("*") if path.is_file()]
