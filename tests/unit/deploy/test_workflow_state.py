"""How a run on a cluster stands, from its workflow, its pods and what its steps left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deploy.cli.cluster.capacity import Node, read_nodes
from deploy.cli.cluster_runs.pod_events import Heard
from deploy.cli.cluster_runs.workflow_state import State, pod_name, read_state
from pipelines.grouping import GROUPS
from pipelines.steps.calls import ORDER
from tests.unit.deploy.argo import NAME, TEMPLATE, Workflow, unscheduled

STEPS = ORDER["full"]
RECORDED = Path(__file__).resolve().parents[4] / "shared" / "cases" / "kubeflow"
CPU = "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available."


def state(workflow: Workflow, records: dict[str, Any] | None = None, **more: Any) -> State:
    return read_state(workflow.document, workflow.pods, records or {}, STEPS, **more)


def record(step: str, status: str, **fields: Any) -> dict[str, Any]:
    empty = {"started": "2026-01-02T03:04:05+00:00", "seconds": None, "attempt": 1, "pod": "p", "result": None}
    return {"step": step, "status": status, **empty, "error": None, "memory_peak": None, "final": False, **fields}


def statuses(found: State) -> list[str]:
    return [found.steps[step].status for step in STEPS]


def test_steps_of_tasks_of_their_own_are_told_by_the_paths_of_their_nodes() -> None:
    made = Workflow()
    made.task("ingest", "Succeeded")
    made.cached("validate")
    made.task("materialise", ("Failed", "pod deleted"), "Succeeded")
    made.task("build-dataset", "Running")
    found = state(made)
    assert statuses(found)[:5] == ["finished", "cached", "finished", "running", "waiting"]
    assert (found.steps["materialise"].tries, found.steps["ingest"].seconds) == (2, 4.0)
    assert found.steps["build_dataset"].started == "2026-01-02T03:04:36Z"
    assert (found.phase, found.ended, found.error) == ("Running", False, None)


@pytest.mark.parametrize("name", ["prepare-train-judge", "everything"])
def test_the_steps_of_one_task_are_told_by_what_they_left(name: str) -> None:
    made = Workflow()
    made.task(name, "Running")
    done = record("ingest", "finished", seconds=1.5, result={"rows": 9}, memory_peak=7)
    found = state(made, {"ingest": done, "validate": record("validate", "cached", seconds=0.1)})
    assert statuses(found)[:4] == ["finished", "cached", "running", "waiting"]
    assert found.steps["ingest"].result == {"rows": 9}
    assert (found.steps["ingest"].seconds, found.steps["ingest"].memory_peak) == (1.5, 7)
    assert statuses(state(made))[:2] == ["running", "waiting"]  # nothing left yet


def test_three_tasks_carry_the_steps_of_their_groups() -> None:
    made = Workflow()
    made.cached("prepare")
    made.task("train", "Running")
    found = state(made)
    assert [found.steps[step].status for step in GROUPS["prepare"]] == ["cached"] * 4
    assert statuses(found)[4:] == ["running", "waiting", "waiting", "waiting"]


def test_a_training_runs_as_soon_as_pods_search_for_it() -> None:
    made = Workflow()
    made.cached("prepare")
    made.task("search", "Succeeded")
    made.task("search-2", "Running")
    found = state(made)
    assert statuses(found)[3:] == ["cached", "running", "waiting", "waiting", "waiting"]
    assert [task.steps for task in found.tasks[1:]] == [(), ()]
    made.task("train", "Running")
    assert statuses(state(made))[4:] == ["running", "waiting", "waiting", "waiting"]


def test_steps_that_a_task_adds_are_told_in_groups_and_alone() -> None:
    order = ("ingest", "validate", "first", "build_dataset", "second", "train", "align", "evaluate")
    made = Workflow()
    made.cached("prepare")
    made.task("train", "Running")
    found = read_state(made.document, made.pods, {"train": record("train", "finished")}, order)
    assert [task.steps for task in found.tasks] == [order[:5], order[5:7]]
    assert [step.status for step in found.steps.values()] == ["cached"] * 5 + ["finished", "running", "waiting"]
    each = Workflow()
    each.task("validate", "Succeeded")
    each.cached("added")
    each.task("added-2", "Running")
    found = read_state(each.document, each.pods, {}, order)
    assert [found.steps[step].status for step in order[1:5]] == ["finished", "cached", "waiting", "running"]


def test_a_task_carries_the_steps_that_its_pod_has_run_whatever_it_is_called() -> None:
    made = Workflow(phase="Failed")
    ended = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    pod = made.task("prepare", ("Failed", "main: OOMKilled (exit code 137)"), state=ended)
    done = {step: record(step, "finished", pod=pod) for step in GROUPS["prepare"]}
    found = state(made, {**done, "train": record("train", "running", pod=pod)})
    assert statuses(found)[3:6] == ["finished", "failed", "waiting"]
    assert str(found.error).startswith("train ran out of memory")


def test_a_task_that_fails_after_its_last_step_is_an_error_of_it() -> None:
    made = Workflow(phase="Failed")
    made.task("prepare", ("Failed", "main: Error (exit code 1)"))
    found = state(made, {step: record(step, "finished") for step in GROUPS["prepare"]})
    assert statuses(found)[2:5] == ["finished", "failed", "waiting"]
    assert found.error is not None


def test_a_task_that_ended_well_has_done_all_its_steps() -> None:
    made = Workflow()
    made.task("prepare-train-judge", "Succeeded", phase="Running")  # the controller has not noticed yet
    assert statuses(state(made, {"gate": record("gate", "finished")})) == ["finished"] * 8


def test_a_run_has_ended_well_with_its_last_pod_seconds_before_the_workflow_says_so() -> None:
    done = {step: record(step, "finished") for step in STEPS}
    well: dict[str, Any] = {"terminated": {"exitCode": 0}}
    badly: dict[str, Any] = {"terminated": {"exitCode": 1}}
    for pod, records, ended in ((well, done, True), (well, {**done, "register": record("register", "running")}, False)):
        made = Workflow()
        made.task("prepare-train-judge", "Running", state=pod)
        assert state(made, records).ended is ended
    for pod in (badly, {"running": {}}):  # what Kubeflow does after the last step may fail yet
        made = Workflow()
        made.task("prepare-train-judge", "Running", state=pod)
        assert not state(made, done).ended


def test_the_error_of_the_step_is_the_error_of_the_run() -> None:
    made = Workflow(phase="Failed")
    error = {"code": "not_found", "headline": "not found: s3://b/none.csv", "detail": "", "fix": "check", "context": {}}
    made.task("prepare", ("Failed", "main: Error (exit code 1)"), ("Failed", "main: Error (exit code 1)"))
    made.omitted("train")
    failed = record("validate", "failed", error=error, final=True, seconds=0.2)
    found = state(made, {"ingest": record("ingest", "finished"), "validate": failed})
    assert statuses(found)[:3] == ["finished", "failed", "waiting"]
    assert found.error is not None
    assert (found.error.headline, found.steps["validate"].tries) == ("not found: s3://b/none.csv", 2)
    assert found.steps["validate"].seconds == 0.2


def test_a_final_error_is_known_before_the_workflow_has_given_up() -> None:
    made = Workflow()
    error = {"code": "bad_schema", "headline": "no column", "detail": "", "fix": "", "context": {}}
    made.task("ingest", ("Failed", "main: Error (exit code 1)"), "Pending", phase="Running")
    assert state(made, {"ingest": record("ingest", "failed", error=error, final=True)}).error is not None
    again = state(made, {"ingest": record("ingest", "failed", error=error)})
    assert (again.error, again.steps["ingest"].status) == (None, "waiting")


@pytest.mark.parametrize("message", ["main: OOMKilled (exit code 137)", "main: OOMKilled (exit code 1)", ""])
def test_a_step_that_ran_out_of_memory_is_named_with_its_limit_and_is_not_waited_for(message: str) -> None:
    made = Workflow()
    ended = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    made.task("train", ("Failed", message), phase="Running", state=ended, limits={"memory": "2Gi"})
    odd = {"code": "unexpected", "headline": "train failed: RuntimeError", "detail": "", "fix": "", "context": {}}
    for left in ({}, {"train": record("train", "failed", error=odd)}):
        error = state(made, left).error
        assert error is not None
        assert (error.headline, error.code) == ("train ran out of memory (limit 2Gi)", "out_of_memory")
        assert error.fix == "--set resources.train.memory=4Gi"
        assert error.context == {"step": "train", "limit": 2 * 1024**3}


def test_the_limit_of_a_pod_that_is_gone_is_in_the_workflow() -> None:
    made = Workflow()
    made.task("train", ("Failed", "main: OOMKilled (exit code 137)"), pods=False)
    patch = json.dumps({"containers": [{"name": "main", "resources": {"limits": {"memory": "64Mi"}}}]})
    last = list(made.nodes.values())[-1]
    last["inputs"] = {"parameters": [{"name": "pod-spec-patch", "value": patch}]}
    assert str(state(made).error).startswith("train ran out of memory (limit 64Mi)")


@pytest.mark.parametrize(
    ("message", "status", "code"),
    [
        ("", {"reason": "Evicted", "message": "The node was low on resource: memory."}, "evicted"),
        ("pod deleted", None, "pod_lost"),
        ("", {"reason": "NodeLost"}, "pod_lost"),
        ("Pod was active on the node longer than the specified deadline", {}, "deadline"),
        ("main: Error (exit code 2)", {}, "step_died"),
    ],
)
def test_what_ended_a_pod_from_outside_is_named(message: str, status: dict[str, Any] | None, code: str) -> None:
    made = Workflow(phase="Failed")
    if status is None:
        made.task("train", ("Error", message), phase="Failed", pods=False)
    else:
        made.task("train", ("Failed", message), **status)
    error = state(made).error
    assert error is not None
    assert (error.code, error.context["step"]) == (code, "train")
    retried = Workflow()
    retried.task("train", ("Error", message or "pod deleted"), "Running", phase="Running")
    assert (state(retried).error, state(retried).steps["train"].status) == (None, "running")


def test_a_driver_that_fails_is_the_failure_of_its_step_and_a_root_that_fails_of_the_run() -> None:
    made = Workflow(phase="Failed")
    made.driver("ingest", "Failed", "main: Error (exit code 1)")
    found = state(made)
    assert (found.steps["ingest"].status, found.error is not None) == ("failed", True)
    dead = Workflow(phase="Failed")
    next(iter(dead.nodes.values())).update(phase="Failed", message="main: Error (exit code 1)")
    error = state(dead).error
    assert error is not None
    assert error.headline == "Kubeflow could not run the workflow"
    assert "root-driver: main: Error" in error.detail


def test_a_step_without_room_says_what_it_asks_for_and_what_the_nodes_have() -> None:
    made = Workflow()
    made.task("train", ("Pending", f"Unschedulable: {CPU}"), requests={"cpu": "4"}, conditions=unscheduled(CPU))
    waiting = state(made).steps["train"].waiting
    assert waiting is not None
    assert (waiting.kind, waiting.text) == (
        "unschedulable",
        "waits for a node: asks for 4 cores, and none has as much free (0 of 1 nodes take it)",
    )
    found = state(made, nodes=nodes("1500m", "500m")).steps["train"].waiting
    assert found is not None
    assert "asks for 4 cores; the freest node has 1.5 cores free" in found.text


def nodes(*cores: str, **more: str) -> list[Node]:
    made = [{"metadata": {"name": cpu}, "spec": {}, "status": {"allocatable": {"cpu": cpu, **more}}} for cpu in cores]
    return read_nodes(made, [])


@pytest.mark.parametrize(
    ("message", "asked", "text"),
    [
        (
            "0/2 nodes are available: 2 Insufficient memory.",
            {"memory": "8Gi"},
            "asks for 8Gi; the freest node has 2Gi free",
        ),
        (
            "0/2 nodes are available: 1 Insufficient nvidia.com/gpu, 1 node(s) had untolerated taint {gpu: true}.",
            {"nvidia.com/gpu": "2"},
            "the freest node has 1 nvidia.com/gpu free, the largest 1 nvidia.com/gpu; 1 node(s) had untolerated taint",
        ),
        (
            "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims. preemption: x",
            {},
            "waits for a node: pod has unbound immediate PersistentVolumeClaims (0 of 1 nodes take it)",
        ),
    ],
)
def test_what_nodes_lack_is_told_in_numbers(message: str, asked: dict[str, str], text: str) -> None:
    made = Workflow()
    made.task("train", "Pending", requests=asked, conditions=unscheduled(message))
    waiting = state(made, nodes=nodes("1", memory="2Gi", **{"nvidia.com/gpu": "1"}))
    assert text in waiting.steps["train"].waiting.text  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("waiting", "kind", "text"),
    [
        ({"reason": "ImagePullBackOff", "message": "Back-off pulling"}, "image", "waits for its image registry/"),
        ({"reason": "ContainerCreating"}, "starting", "its pod is starting"),
        (
            {"reason": "CreateContainerConfigError", "message": 'secret "x" not found'},
            "trouble",
            'secret "x" not found',
        ),
    ],
)
def test_a_pod_that_has_a_node_says_what_it_waits_for(waiting: dict[str, str], kind: str, text: str) -> None:
    made = Workflow()
    made.task("ingest", "Pending", state={"waiting": waiting})
    found = state(made).steps["ingest"].waiting
    assert found is not None
    assert found.kind == kind
    assert text in found.text


@pytest.mark.parametrize(
    ("message", "kind", "text"),
    [
        (
            'pods "x" is forbidden: exceeded quota: team, requested: limits.memory=4Gi, used: limits.memory=3Gi, '
            "limited: limits.memory=4Gi",
            "quota",
            "waits for quota team: asks for limits.memory=4Gi, used is limits.memory=3Gi, allowed limits.memory=4Gi",
        ),
        ("Workflow processing has been postponed because too many workflows are running", "turn", "waits for its turn"),
        ("Backoff for 4 seconds", "retry", "is tried again in 4 seconds"),
    ],
)
def test_a_pod_that_is_not_made_yet_says_why(message: str, kind: str, text: str) -> None:
    made = Workflow()
    made.task("ingest", ("Pending", message), pods=False)
    found = state(made).steps["ingest"].waiting
    assert found is not None
    assert found.kind == kind
    assert text in found.text


def test_a_queue_that_has_not_admitted_a_pod_is_named() -> None:
    made = Workflow()
    made.task("train", "Pending", conditions=unscheduled("Scheduling is blocked", "SchedulingGated"))
    assert state(made).steps["train"].waiting.kind == "turn"  # type: ignore[union-attr]


def test_the_name_of_a_pod_that_is_gone_is_known() -> None:
    made = Workflow()
    name = made.task("train", "Succeeded", pods=False)
    assert pod_name(list(made.nodes.values())[-1], NAME) == name
    assert name.startswith(f"{NAME}-{TEMPLATE}-")


def recorded(name: str) -> tuple[State, Heard]:
    """A recording as the follower would see it: the workflow, its pods, and the ends of their logs."""
    folder = RECORDED / name
    if not folder.is_dir():
        pytest.skip("the recordings are not beside this project")
    (workflow,), pods = (json.loads((folder / f"{part}.json").read_text()) for part in ("workflow", "pods"))
    heard = Heard()
    for file in sorted(folder.glob("logs/*.txt")):
        for line in file.read_text().splitlines():
            list(heard.take(file.stem, line))
    return read_state(workflow, pods, heard.records, STEPS), heard


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("succeeded", "f f f f f f f f"),
        ("cached", "f c c c c c f f"),
        ("running", "f c w w w w w w"),
        ("failed", "x w w w w w w w"),
        ("oom", "f f f f f x w w"),
        ("unschedulable", "w w w w w w w w"),
        ("refused", "f c c c f f f f"),
    ],
)
def test_recorded_runs_are_read_as_what_happened(name: str, expected: str) -> None:
    letters = {"finished": "f", "cached": "c", "waiting": "w", "failed": "x", "running": "r"}
    found, _ = recorded(name)
    assert " ".join(letters[status] for status in statuses(found)) == expected


def test_recorded_runs_end_with_what_their_steps_said() -> None:
    failed, _ = recorded("failed")
    assert failed.error is not None
    assert failed.error.headline == "not found: s3://fairlead/none.csv"
    oom, _ = recorded("oom")
    assert oom.error is not None
    assert (oom.error.code, oom.error.detail) == ("out_of_memory", "the kernel ended it, 2 times")
    refused, _ = recorded("refused")
    assert refused.steps["register"].result["gate_passed"] is False
    waiting = recorded("unschedulable")[0].steps["ingest"].waiting
    assert waiting is not None
    assert waiting.kind == "unschedulable"
    assert "none has enough processor free (0 of 1 nodes take it)" in waiting.text
    starting = recorded("running")[0].steps["materialise"].waiting
    assert starting is not None
    assert starting.kind == "starting"
