"""The engine ray, with its processes: equal results though workers, the head or the step die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from contracts.errors import PlatformError
from feature_repo.stores.join import point_in_time_join
from feature_repo.stores.parts import function
from pipelines.data_engines import pods_engine, ray_engine, ray_worker
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


def step(folder: Path) -> None:
    """All that a step may meet, with two starts of Ray; it is killed at work."""
    place = folder / "place"
    place.mkdir()
    engine = Dying("materialise", workers=2, memory="1Gi", place=str(place), rows=100)
    (folder / "history").mkdir()
    history(folder / "history")
    joined = point_in_time_join(PLAN, folder / "history", asked(), engine=engine)
    pd.testing.assert_frame_equal(joined, point_in_time_join(PLAN, folder / "history", asked()))
    assert not list(place.glob("parts-*"))
    (gcs,) = children(os.getpid(), "gcs_server")
    os.kill(gcs, signal.SIGKILL)
    assert RayEngine.map(engine, "builtins:len", [{"a": 1}, {}]) == [1, 0]
    ((_, told),) = engine._asked([[0, f"{__name__}:die", "{}"]])  # `map` would end Ray
    with pytest.raises(PlatformError, match="workers died 4 times at one piece of work: die") as failed:
        ray_engine._result(told, "die", "1Gi")
    assert failed.value.code == "worker_lost"
    assert "data.memory" in failed.value.fix
    engine.say("all of it holds")
    RayEngine.map(engine, "time:sleep", [1000])  # type: ignore[list-item]


def test_a_step_survives_its_workers_and_its_head_and_nothing_survives_the_step(tmp_path: Path) -> None:
    text = f"from pathlib import Path; from {__name__} import step; step(Path({str(tmp_path)!r}))"
    log = tmp_path / "log"
    with log.open("w") as out:
        running = subprocess.Popen([sys.executable, "-c", text], stdout=out, stderr=out)
    while running.poll() is None and "all of it holds" not in log.read_text():
        time.sleep(0.1)
    said = log.read_text()
    assert running.poll() is None, said[-3000:]
    assert "the head of Ray was lost" in said
    below = children(running.pid)
    assert len(below) > 3
    running.kill()
    running.wait()
    until = time.monotonic() + 60
    while any(Path(f"/proc/{pid}/exe").exists() for pid in below) and time.monotonic() < until:
        time.sleep(0.1)
    left = [Path(f"/proc/{pid}/cmdline").read_text() for pid in below if Path(f"/proc/{pid}/exe").exists()]
    assert not left


class Node:
    """A worker in place of a pod: a process with an address and a folder, that shares the store and nothing else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: list[subprocess.Popen[bytes]] = []

    def own_address(self) -> str:
        return ""

    def make(self, head: str) -> None:
        path = os.pathsep.join(filter(None, sys.path))
        told = {"PYTHONPATH": path, "RAY_TMPDIR": str(self.folder), ray_worker.IP: "127.0.0.2"}
        command = [sys.executable, "-m", "pipelines.data_engines.ray_worker", head]
        with (self.folder / "log").open("wb") as log:
            node = subprocess.Popen(
                command, cwd=self.folder, env={**os.environ, **told}, stdout=log, stderr=log, start_new_session=True
            )
        self.made.append(node)

    def delete(self) -> None:
        pass


class Two(PodsEngine):
    """One of its two workers is the head's, which saves a start of Ray."""

    def _of_head(self) -> dict[str, Any]:
        return {**super()._of_head(), "workers": 1}


def address(item: Mapping[str, Any]) -> str:
    import ray.util

    time.sleep(0.2)
    return str(ray.util.get_node_ip_address())


def test_nodes_that_share_a_store_only_give_the_join_though_one_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "node").mkdir()
    nodes = Node(tmp_path / "node")
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
        engine = Two(
            "materialise", workers=2, memory="1Gi", place="s3://lake/.parts", run="run-1",
            pods=PodSettings(image="i", namespace="n"),
        )  # fmt: skip
        engine._rows = 100
        try:
            until = time.monotonic() + 120
            while "127.0.0.2" not in engine.map(f"{__name__}:address", [{}] * 2) and time.monotonic() < until:
                assert nodes.made[0].poll() is None
            (node,) = nodes.made
            os.kill(node.pid, signal.SIGSTOP)  # it joins no more
            for pid in children(node.pid):
                os.kill(pid, signal.SIGKILL)
            joined = point_in_time_join(PLAN, tmp_path / "history", asked(), engine=engine)
            pd.testing.assert_frame_equal(joined, expected)
        finally:
            engine.close()
            for each in nodes.made:
                os.kill(each.pid, signal.SIGCONT)
        assert node.wait(60) == 0, "the end of the document is the end of a worker"
        assert not [path for path in (tmp_path / "s3" / "lake").rglob("*") if path.is_file()]
