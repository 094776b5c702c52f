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
from pipelines.data_engines.ray_engine import RayEngine
from tests.unit.feature_repo.test_parts import PLAN, asked, history

pytest.importorskip("ray")
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
