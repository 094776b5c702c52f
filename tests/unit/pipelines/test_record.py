"""What steps leave in the store, written by real processes with the environment of a pod."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import PlatformError
from contracts.settings import Settings, load
from pipelines.io.record import FIELDS, Record, list_runs, open_record, read_run, read_steps, write_run
from pipelines.run import Run

_RUN = "3f0c2a52-8f9e-4bb8-9d4e-1f2a3b4c5d6e"
_RAISE = {
    "named": "from contracts.errors import PlatformError; raise PlatformError('no file', code='not_found', fix='F')",
    "network": "from contracts.errors import PlatformError; raise PlatformError('away', code='storage_unreachable')",
    "defect": "{}['x']",
    "fine": "done({'rows': 3, 'share': float('nan')})",
}


def pod(root: Path, body: str, *, attempt: int = 1, run_id: str = "", step: str = "ingest") -> Any:
    """Run a step as the pod of that try would; returns the process."""
    begins = f"with events.running({step!r}, Run(task='news', run_id={run_id!r})) as done:"
    code = f"from pipelines.io import events\nfrom pipelines.run import Run\n{begins}\n    {body}\n"
    node = f"full-x7k2p.root.prepare.executor({attempt - 1})"
    environ = {"FAIRLEAD_RECORD": str(root), "FAIRLEAD_KFP_RUN": _RUN, "FAIRLEAD_POD": f"pod-{attempt}"}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environ, "FAIRLEAD_NODE": node},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def events(process: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in process.stdout.splitlines() if line.startswith("{")]


def test_a_step_that_ends_well(tmp_path: Path) -> None:
    process = pod(tmp_path, _RAISE["fine"], run_id="r1")
    assert process.returncode == 0, process.stderr
    said = read_steps(tmp_path.as_posix(), _RUN)["ingest"]
    assert (said["status"], said["attempt"], said["pod"]) == ("finished", 1, "pod-1")
    assert said["result"] == {"rows": 3, "share": None}
    assert said["error"] is None
    assert said["final"] is False
    assert said["seconds"] >= 0
    assert 5 * 2**20 < said["memory_peak"] < 2**32
    assert 0 <= said["cpu_seconds"] < 60
    run = read_run(tmp_path.as_posix(), _RUN)
    assert run is not None
    assert (run["run_id"], run["task"], run["kfp_run"]) == ("r1", "news", _RUN)
    assert "promote" not in run, "the step does not know it: Kubeflow's parameters may"
    assert list_runs(tmp_path.as_posix()) == [_RUN]


def test_what_the_command_line_wrote_stays(tmp_path: Path) -> None:
    write_run(str(tmp_path), _RUN, Run(run_id="mine", recipe="lstm"), {})
    pod(tmp_path, _RAISE["fine"], run_id="other")
    run = read_run(str(tmp_path), _RUN)
    assert run is not None
    assert (run["run_id"], run["recipe"]) == ("mine", "lstm")


def test_a_final_failure_is_not_tried_again(tmp_path: Path) -> None:
    first = pod(tmp_path, _RAISE["named"])
    assert first.returncode == 1
    before = read_steps(str(tmp_path), _RUN)["ingest"]
    assert (before["status"], before["final"], before["error"]["code"]) == ("failed", True, "not_found")
    again = pod(tmp_path, f"open({str(tmp_path / 'ran')!r}, 'w')", attempt=2)
    assert again.returncode == 1
    assert not (tmp_path / "ran").exists()
    assert [e["event"] for e in events(again)] == ["step_started", "step_failed"]
    assert events(again)[1]["error"] == before["error"]
    after = read_steps(str(tmp_path), _RUN)["ingest"]
    assert (after["attempt"], after["error"], after["final"]) == (2, before["error"], True)


@pytest.mark.parametrize("kind", ["network", "defect"])
def test_what_may_pass_is_tried_again(tmp_path: Path, kind: str) -> None:
    pod(tmp_path, _RAISE[kind])
    before = read_steps(str(tmp_path), _RUN)["ingest"]
    assert before["status"] == "failed"
    assert before["final"] is False
    again = pod(tmp_path, _RAISE["fine"], attempt=2)
    assert again.returncode == 0
    after = read_steps(str(tmp_path), _RUN)["ingest"]
    assert (after["status"], after["attempt"], after["error"]) == ("finished", 2, None)


def test_a_person_who_asks_again_gets_a_real_try(tmp_path: Path) -> None:
    pod(tmp_path, _RAISE["named"], attempt=2)
    assert pod(tmp_path, _RAISE["fine"], attempt=1).returncode == 0


def test_a_killed_step_stays_running(tmp_path: Path) -> None:
    process = pod(tmp_path, "import os, time; time.sleep(1); os.kill(os.getpid(), 9)")
    assert process.returncode == -9
    assert read_steps(str(tmp_path), _RUN)["ingest"]["status"] == "running"


def test_a_store_that_is_away_costs_no_step(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    began = time.monotonic()
    process = pod(tmp_path / "file", _RAISE["fine"])
    assert process.returncode == 0, process.stderr
    assert [e["event"] for e in events(process)] == ["step_started", "step_finished"]
    assert time.monotonic() - began < 10


def test_cached_steps_are_in_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.io.events import cached

    monkeypatch.setenv("FAIRLEAD_RECORD", str(tmp_path))
    monkeypatch.setenv("FAIRLEAD_KFP_RUN", _RUN)
    cached("validate", {"rows": 9})
    said = read_steps(str(tmp_path), _RUN)["validate"]
    assert (said["status"], said["result"], said["memory_peak"]) == ("cached", {"rows": 9}, None)


def test_nothing_is_recorded_on_this_machine(tmp_path: Path) -> None:
    assert open_record({}) is None
    assert open_record({"FAIRLEAD_RECORD": str(tmp_path)}) is None
    assert open_record({"FAIRLEAD_RECORD": str(tmp_path), "FAIRLEAD_KFP_RUN": "../../x"}) is None


def test_documents_that_are_none_are_left_out(tmp_path: Path) -> None:
    folder = tmp_path / _RUN
    folder.mkdir()
    (folder / "train.json").write_text("{")
    (folder / "gate.json").write_text("[]")
    assert read_steps(str(tmp_path), _RUN) == {}
    assert read_run(str(tmp_path), _RUN) is None
    assert read_run(str(tmp_path), "never") is None


@pytest.mark.parametrize(
    ("node", "attempt", "workflow"),
    [("", 1, ""), ("full-a.root.train.executor(2)", 3, "full-a"), ("full-a.root.train.executor", 1, "full-a")],
)
def test_the_try_is_read_from_the_node(node: str, attempt: int, workflow: str) -> None:
    record = Record("/nowhere", _RUN, "", node)
    assert (record.attempt, record.workflow) == (attempt, workflow)


def test_what_pods_are_told_is_no_setting() -> None:
    class Mine(Settings):
        size: int = 1

    environ = dict.fromkeys(("FAIRLEAD_RECORD", "FAIRLEAD_ENDPOINTS", *FIELDS), "x")
    assert load(Mine, environ=environ).size == 1
    with pytest.raises(PlatformError, match="recorded"):
        load(Mine, environ={**environ, "FAIRLEAD_RECORDED": "x"})
