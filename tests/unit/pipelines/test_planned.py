"""Plans: what is measured for them, kept, compared with what runs took, and held against what this machine has."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from deploy.cli.cluster import capacity
from deploy.cli.cluster.cluster_settings import Cluster, Profile
from deploy.cli.cluster_runs.step_resources import memory_known, step_needs
from deploy.cli.runs.workflow import RunOptions
from deploy.cli.terminal.output import console
from deploy.cli.training import plan as command
from deploy.cli.training import plan_places as places
from pipelines import data_engines, planned, planning
from pipelines.cost import Prices
from pipelines.io.record import write_run
from pipelines.resources import DATA
from pipelines.run import Run
from tests.unit.deploy.test_cluster_capacity import node

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
        "data": {"seconds": 1.0, "memory_peak": 2**20},
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
    assert len(plan["fits"]) == len(said) - 1 == 8
    assert plan["train"]["memory_peak"]["low"] <= plan["train"]["memory_peak"]["high"]
    assert plan["learning"][0]["rows"] == 280
    for point in plan["learning"]:
        assert point["low"] <= point["likely"] <= point["high"] <= 1.0
    assert planned.read_plan(run.where, plan["key"]) is not None
    planned.write_plan(run.where, plan["key"], {**plan, "data": {"seconds": 9e9, "memory_peak": 10**15}})
    again = command.made_plan(run, 0.0, said.append)  # its data are in the cache
    assert again["data"] == {"seconds": 9e9, "memory_peak": 10**15, "workers": 0}
    command.show_plan(console(), {**plan, "wrong": [planned.taken(plan, record(run, "toy-9", 1.0, 1.0, "9999"))]})
    shown = capsys.readouterr().out
    assert "it fits here" in shown
    assert "no run yet" in shown


def test_no_time_is_three_fits(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "measured_apart", in_process)
    plan = command.made_plan(run, 0.0, lambda text: None)
    assert sorted(fit["share"] for fit in plan["fits"]) == [0.1, 0.2, 0.4], "twice the shares, of few rows"


def test_shares_are_those_that_were_asked_for_where_there_are_rows_enough(run: Run, tmp_path: Path) -> None:
    job = {"run": run.document(), "folder": str(tmp_path / "s"), "shares": [[0.25, 1], [0.4, 2]]}
    found = {small: planning.prepare({**job, "small": small}) for small in (200, 201)}
    shares = {small: [one["share"] for one in data["fits"]] for small, data in found.items()}
    assert shares == {200: [0.25, 0.4, 0.4], 201: [0.5, 0.8, 0.8]}, "200 rows are there to train on"


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


def test_data_are_measured_by_the_workers_that_the_run_names(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int, str]] = []

    class Workers(data_engines.Here):
        def close(self) -> None:
            pass

    def made(step: str, said: dict[str, Any], environ: Any) -> Workers:
        asked.append((step, said["workers"], said["memory"]))
        return Workers()

    monkeypatch.setattr(data_engines, "_made", made)
    shared = run.having(settings={"data.engine": "ray", "data.workers": 3, "data.memory": "1Gi"})
    found = in_process("prepare", {"run": shared.document(), "folder": str(tmp_path / "s"), "shares": []}, tmp_path)
    assert asked == [(step, 3, "1Gi") for step in ("ingest", "validate", "build_dataset")]
    assert found["workers"] == 3
    assert data_engines.VARIABLE not in os.environ
    again = in_process("prepare", {"run": run.document(), "folder": str(tmp_path / "s"), "shares": []}, tmp_path)
    assert again["workers"] == 0


@pytest.mark.parametrize(
    ("step", "settings", "size", "said"),
    [
        ("materialise", {}, 0, "--set data.engine=ray --set data.workers=8 --set data.memory=2Gi; or give less data"),
        ("ingest", {}, 100 * GIB, "--set data.engine=ray --set data.workers=64 --set data.memory=3200Mi"),
        ("ingest", {"data.engine": "ray"}, 0, "give each worker more of it: --set data.memory"),
        ("build_dataset", {}, 0, "more memory; on a cluster: --set resources.build_dataset.memory=32Gi"),
    ],
)
def test_data_too_large_for_one_machine_says_how_many_workers_would_do(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, settings: Any, size: int, said: str
) -> None:
    source, dies = tmp_path / "rows.csv", tmp_path / "dies"
    with source.open("wb") as file:
        file.truncate(size)  # takes no disk
    event = json.dumps({"event": "step_started", "step": step})
    dies.write_text(f"#!/bin/sh\necho '{event}'\nkill -9 $$\n")
    dies.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(dies))
    monkeypatch.setattr("contracts.model_memory.memory_limit", lambda: 16 * GIB)
    job = {"run": run.having(source=str(source), settings=settings).document()}
    with pytest.raises(PlatformError, match="measures the data ended with -9") as caught:
        command.measured_apart("prepare", job, tmp_path)
    assert said in str(caught.value.fix)
    assert ("ray" in str(caught.value.fix)) == (step != "build_dataset" and not settings)
    failed = json.dumps({"event": "step_failed", "step": step, "error": {"headline": "x", "code": "out_of_memory"}})
    dies.write_text(f"#!/bin/sh\necho '{event}'\necho '{failed}'\nexit 1\n")
    with pytest.raises(PlatformError) as caught:
        command.measured_apart("prepare", job, tmp_path)
    assert said in str(caught.value.fix)


# Tunings, which are planned by a formula and a few real steps


def a_tuning(run: Run, **changed: Any) -> dict[str, Any]:
    parts = {"weights": 4 * GIB, "gradients": GIB, "optimiser": 2 * GIB, "activations": 2 * GIB, "logits": GIB}
    less = [("--set training.batch_size=4", 8 * GIB), ("--set training.batch_size=1", 5 * GIB)]
    steps = {
        "gpu_memory": {**parts, "total": 10 * GIB},
        "gpu_measured": None,
        "longest": 4096,
        "steps": 12,
        "parameters": 1000,
        "trained": 10,
        "device": "cpu",
        "need": 10 * GIB,
        "less": less,
        "why": "",
    }
    kept = a_plan(run, need=10 * GIB, fits=[], others={}, learning=[], metric="token_f1", bytes=1, limit=GIB)
    return kept | {"source": "built-in", "steps": steps | changed}


@pytest.mark.parametrize(
    ("limit", "said"), [(9, "training.batch_size=4 needs less"), (6, "batch_size=1 needs"), (4, "no setting")]
)
def test_a_tuning_that_does_not_fit_says_which_settings_would(
    run: Run, monkeypatch: pytest.MonkeyPatch, limit: int, said: str
) -> None:
    planned.write_plan(run.where, planned.key_of(run), a_tuning(run))
    monkeypatch.setattr(planned, "memory_limit", lambda: limit * GIB)
    with pytest.raises(PlatformError, match="a step needs about 10Gi of memory, and this machine has") as caught:
        planned.refuse_what_cannot_fit(run)
    assert said in str(caught.value.fix)


def test_a_tuning_is_held_against_the_gpu_where_there_is_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    planned.write_plan(run.where, planned.key_of(run), a_tuning(run, device="cuda", gpu_measured=9 * GIB) | {"need": 1})
    monkeypatch.setattr(planned, "_gpu_memory", lambda: 8 * GIB)
    with pytest.raises(PlatformError, match="about 9Gi of memory, and the GPU here has 8Gi"):
        planned.refuse_what_cannot_fit(run)
    monkeypatch.setattr(planned, "_gpu_memory", lambda: 80 * GIB)
    planned.refuse_what_cannot_fit(run)


def test_what_a_tuning_needs_is_shown_part_by_part(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    command.show_plan(console(), a_tuning(run))
    command.show_plan(console(), a_tuning(run, why="a base in 4 bits needs a GPU") | {"train": {}})
    shown = " ".join(capsys.readouterr().out.split())
    assert "11264Mi" in shown  # ten, and a tenth
    assert "optimiser 2048Mi" in shown
    assert "--set training.batch_size=1" in shown
    assert "a base in 4 bits needs a GPU" in shown


# Nodes and money


def test_a_plan_says_which_nodes_take_it_and_what_it_costs(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [node("small", memory="2Gi"), node("large", memory="64Gi"), node("spare", memory="8Gi")]
    busy = {"spec": {"nodeName": "spare", "containers": [{"resources": {"requests": {"memory": "7Gi"}}}]}, "status": {}}
    monkeypatch.setattr(capacity, "look", lambda *_: capacity.read_nodes(nodes, [busy]))
    profile = Profile(cluster=Cluster(), prices=Prices(core_hour=1.0, gib_hour=0.5))
    found = places.places(profile, run, a_plan(run))
    assert found["asks"]["memory"] == "3Gi"
    assert {one["node"]: (one["now"], one["empty"]) for one in found["nodes"]} == {
        "small": (0, 0),
        "large": (3, 3),  # two cores, and half of one for each
        "spare": (0, 2),
    }
    assert found["fits"]
    large = places.places(profile, run.having(settings={"resources.train.memory": "100Gi"}), a_plan(run))
    assert large["fits"] is False
    assert "resources.train.memory=63Gi" in large["says"]
    cost = places.money(a_plan(run, fits=[]), places.planned_needs(run, a_plan(run)), profile.prices)
    assert cost is not None
    assert cost["likely"] == pytest.approx(2 / 3600 * (0.5 * 1.0 + 3 * 0.5))
    free = places.money(a_plan(run, fits=[]), None, Prices())
    assert free is not None
    assert free["likely"] == 0.0  # a price of zero is a price
    assert places.money(a_plan(run, fits=[]), None, None) is None


def test_nodes_with_small_gpus_and_nodes_that_nobody_may_see_are_said(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus = {"nvidia.com/gpu": "2"}
    nodes = [
        node(name, memory="64Gi", others=gpus, labels={places.GPU_MEMORY: str(size)})
        for name, size in (("t4", 4096), ("h200", 143771))
    ]
    monkeypatch.setattr(capacity, "look", lambda *_: capacity.read_nodes(nodes, []))
    asked = run.having(settings={"resources.train.gpus": 1})
    found = places.places(Profile(cluster=Cluster()), asked, a_tuning(run))
    assert [one["node"] for one in found["nodes"]] == ["h200"]
    assert found["says"] == "GPUs that are too small: t4 has 4Gi"
    nodes.pop()
    assert places.places(Profile(cluster=Cluster()), asked, a_tuning(run))["fits"] is False

    def refused(*_: Any) -> Any:
        raise PlatformError("kubectl says no", code="kubectl")

    monkeypatch.setattr(capacity, "look", refused)
    unknown = places.places(Profile(cluster=Cluster()), run, a_plan(run))
    assert (unknown["fits"], unknown["says"]) == (None, "the nodes could not be looked at: kubectl says no")


def test_a_run_on_a_cluster_asks_for_the_larger_of_its_plan_and_the_run_before(run: Run, tmp_path: Path) -> None:
    """Either may be of a smaller source than the other."""
    root, data = str(tmp_path / "records"), dict.fromkeys(DATA, 6 * GIB)
    write_run(root, "r-1", run, {})
    for step, peak in (("ingest", 7 * GIB), ("train", GIB), ("evaluate", 5 * GIB)):
        said = json.dumps({"step": step, "status": "finished", "memory_peak": peak})
        (tmp_path / "records" / "r-1" / f"{step}.json").write_text(said)
    before = {"ingest": 7 * GIB, "train": GIB, "evaluate": 5 * GIB}
    assert memory_known(run, root, []) == {}
    assert memory_known(run, root, ["r-1"]) == before
    kept = a_plan(run, data={"seconds": 1.0, "memory_peak": 6 * GIB})
    planned.write_plan(run.where, planned.key_of(run), kept)
    assert memory_known(run, root, []) == data | {"train": 2 * GIB}
    assert memory_known(run, root, ["r-1"]) == data | before | {"train": 2 * GIB}
    assert step_needs(run, memory_known(run, root, ["r-1"]))["materialise"].memory == "9Gi"
    ray = run.having(settings={"data.engine": "ray"})  # whose steps need less than one process
    assert memory_known(ray, root, []) == {"train": 2 * GIB}


def test_a_plan_for_a_cluster_is_measured_here_and_looks_at_its_nodes(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAIRLEAD_HOME", str(tmp_path / "cluster"))
    asked: list[Run] = []

    def made(one: Run, *_: Any) -> dict[str, Any]:
        asked.append(one)
        return a_tuning(run)

    monkeypatch.setattr(command, "made_plan", made)
    monkeypatch.setattr(places, "cluster_records", lambda *_: [])
    monkeypatch.setattr(capacity, "look", lambda *_: capacity.read_nodes([node("n1", memory="2Gi")], []))
    plan = command.planned("news", None, 1.0, RunOptions(profile="cluster"), lambda text: None)
    assert asked[0].where.data == str(tmp_path / "cluster" / "data")
    assert (plan["places"]["fits"], plan["money"]) == (False, None)
    command.show_plan(console(), plan)
    shown = " ".join(capsys.readouterr().out.split())
    assert "it does not fit, and fairlead run refuses it: train asks for 3Gi; the largest node has 1.9" in shown


def test_a_plan_says_when_several_workers_should_share_the_data() -> None:
    plan = {"limit": 8 * 2**30, "data": {"memory_peak": 2**30, "seconds": 60.0}}
    assert command.one_machine(plan) == ""
    much = {"memory_peak": 5 * 2**30, "seconds": 60.0}
    assert "workers share" in (said := command.one_machine({**plan, "data": much}))
    assert said.endswith("--set data.engine=ray --set data.workers=3 --set data.memory=2Gi")
    assert "workers on a cluster (--profile) share" in command.one_machine({"limit": 6 * 2**30, "data": much})
    long = {"memory_peak": 2**30, "seconds": 9000.0}
    assert "data.workers=5" in command.one_machine({**plan, "data": long})
    assert command.one_machine({**plan, "data": {**long, "workers": 5}}) == ""
