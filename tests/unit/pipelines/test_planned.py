"""Plans: what is measured for them, kept, compared with what runs took, and held against what this machine has."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from deploy.cli.terminal.output import console
from deploy.cli.training import plan as command
from pipelines import planned, planning
from pipelines.run import Run

GIB = 2**30


@pytest.fixture
def run(toy: Any, toy_config: Callable[..., str], tmp_path: Path) -> Run:
    where = Endpoints(home=str(tmp_path / "home")).resolved()
    return Run(run_id="toy-1", task="toy", recipe="tree", config=json.loads(toy_config()), endpoints=where)


def a_plan(run: Run, **changed: Any) -> dict[str, Any]:
    likely = {"low": 1.0, "likely": 2.0, "high": 3.0}
    return {
        "task": "toy",
        "recipe": "tree",
        "key": planned.key_of(run),
        "made": "2026-01-01T00:00:00.000+00:00",
        "rows": {"train": 1000, "valid": 100, "test": 100},
        "train": {"seconds": likely, "memory_peak": {key: value * GIB for key, value in likely.items()}},
        "need": 2 * GIB,
        "disk": 1000.0,
        "resources": "3Gi",
        "wrong": [],
        **changed,
    }


def record(
    run: Run, run_id: str, seconds: float, memory: float, started: str = "2026-02-01T00:00:00.000+00:00"
) -> dict[str, Any]:
    step = {"status": "finished", "seconds": seconds, "memory_peak": int(memory * GIB)}
    return {**run.document(), "run_id": run_id, "started": started, "steps": {"train": step}}


def test_a_run_without_a_plan_starts(run: Run) -> None:
    planned.refuse_what_cannot_fit(run)


def test_a_run_that_cannot_fit_is_refused_with_what_would(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    planned.write_plan(run.where, planned.key_of(run), a_plan(run))
    monkeypatch.setattr(planned, "memory_limit", lambda: 3 * GIB)
    planned.refuse_what_cannot_fit(run)
    monkeypatch.setattr(planned, "memory_limit", lambda: 2 * GIB)
    with pytest.raises(PlatformError, match="needs about 2Gi of memory, and 2Gi are here") as caught:
        planned.refuse_what_cannot_fit(run)
    fix = str(caught.value.fix)
    assert "take about 900 rows instead of 1,000" in fix
    assert "--set resources.train.memory=3Gi" in fix
    planned.refuse_what_cannot_fit(run.having(settings={"workflow.plan": "ignored"}))
    planned.refuse_what_cannot_fit(run.having(config={**run.config, "seed": 8}))  # another training: not planned


def test_a_run_that_would_fill_the_disk_is_refused(run: Run) -> None:
    planned.write_plan(run.where, planned.key_of(run), a_plan(run, disk=1e18, need=1))
    with pytest.raises(PlatformError, match="does not fit on the disk"):
        planned.refuse_what_cannot_fit(run)


def test_half_a_plan_is_none(run: Run) -> None:
    key = planned.key_of(run)
    planned.write_plan(run.where, key, a_plan(run))
    (run.where.scratch("plans") / f"{key}.json").write_text('{"key": ')
    assert planned.read_plan(run.where, key) is None


def test_plans_learn_from_how_wrong_they_were(run: Run) -> None:
    planned.write_plan(run.where, planned.key_of(run), a_plan(run))
    records = [record(run, "toy-2", 3.0, 1.0), {**record(run, "toy-0", 9.0, 9.0), "started": "2025-01-01"}]
    (wrong,) = planned.wrong_before(run.where, "toy", "tree", records)
    assert wrong["seconds"] == {"planned": 2.0, "took": 3.0, "off": 0.5}
    assert planned.correction([wrong], "seconds") == pytest.approx(1.5)
    assert planned.correction([wrong], "memory_peak") == pytest.approx(0.5)
    planned.write_plan(run.where, planned.key_of(run), a_plan(run, wrong=[wrong], made="2026-03-01"))
    assert planned.wrong_before(run.where, "toy", "tree", records) == [wrong]  # remembered, though the plan is newer
    assert planned.wrong_before(run.where, "toy", "other", records) == []
    assert planned.correction([], "seconds") == 1.0


def test_the_gate_is_no_part_of_what_a_training_needs(run: Run, toy_config: Callable[..., str]) -> None:
    other = json.loads(toy_config(gate={"champion_tolerance": 0.5}))
    assert planned.key_of(run.having(config=other)) == planned.key_of(run)
    assert planned.key_of(run.having(source="/elsewhere.csv")) != planned.key_of(run)


def in_process(what: str, job: Any, folder: Path) -> dict[str, Any]:
    """`measured_apart` without a process of its own."""
    (folder / "job.json").write_text(json.dumps(job))
    code = planning.main([what, str(folder / "job.json"), str(folder / "result.json")])
    found: dict[str, Any] = json.loads((folder / "result.json").read_text()) if not code else {"code": code}
    if "error" in found:
        raise PlatformError.from_dict(found["error"])
    return found


def test_a_plan_of_real_small_fits_is_kept_and_shown(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "measured_apart", in_process)
    said: list[str] = []
    plan = command.made_plan(run, 60.0, said.append)
    assert plan["rows"] == {"train": 200, "valid": 80, "test": 120}
    assert len(plan["fits"]) == len(said) - 1 == 7
    assert plan["train"]["memory_peak"]["low"] <= plan["train"]["memory_peak"]["high"]
    assert plan["learning"][0]["rows"] == 280
    for point in plan["learning"]:
        assert point["low"] <= point["likely"] <= point["high"] <= 1.0
    assert planned.read_plan(run.where, plan["key"]) is not None
    command.show_plan(console(), {**plan, "wrong": [planned.taken(plan, record(run, "toy-9", 1.0, 1.0, "9999"))]})
    shown = capsys.readouterr().out
    assert "it fits here" in shown
    assert "no run yet" in shown


def test_no_time_is_three_fits(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "measured_apart", in_process)
    plan = command.made_plan(run, 0.0, lambda text: None)
    assert sorted(fit["share"] for fit in plan["fits"]) == [0.1, 0.2, 0.4]


def test_a_plan_without_data_says_what_the_data_step_says(run: Run, tmp_path: Path, capsys: Any) -> None:
    empty = tmp_path / "empty.csv"
    empty.write_text("parcel,sent,distance,stops,kind,note,late\n")
    job = {"run": run.having(source=str(empty)).document(), "folder": str(tmp_path / "s"), "shares": [[0.1, 1]]}
    (tmp_path / "job.json").write_text(json.dumps(job))
    assert planning.main(["prepare", str(tmp_path / "job.json"), str(tmp_path / "result.json")]) == 1
    assert '"step_failed"' in capsys.readouterr().out


def test_a_process_that_dies_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(PlatformError, match="a small training ended with 1") as caught:
        command.measured_apart("fit", {}, tmp_path)
    assert "memory may have run out" in str(caught.value.detail)
