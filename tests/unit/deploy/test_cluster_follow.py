"""A run on a cluster is followed: what is shown when, whatever breaks off."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from contracts import storage
from contracts.errors import PlatformError
from deploy.cli.cluster.cluster_settings import Cluster, Profile, SecretRef, Storage
from deploy.cli.cluster_runs import follow
from deploy.cli.cluster_runs.access import Access
from deploy.cli.cluster_runs.follow import Follower
from deploy.cli.cluster_runs.run_document import described, status_of
from deploy.cli.cluster_runs.workflow_state import State
from pipelines.steps.calls import ORDER
from tests.argo import NEVER, Scenario, Try, each, grouped
from tests.argo_documents import archived, event_line
from tests.kfp_run import Run
from tests.kfp_stand_in import StandIn
from tests.kubectl_stand_in import node
from tests.s3_folder import FolderClient
from tests.unit.deploy.cluster_runs import ASKED, MADE, MISSING, REFUSED, STEPS, everything, leaves, said, start


@pytest.fixture
def access(kubeflow: StandIn) -> Access:
    storage = Storage(endpoint="", secret=SecretRef())
    return Access(Profile(data="s3://lake/data", cluster=Cluster(kfp=kubeflow.url, storage=storage)))


def followed(access: Access, run: Run, show: Callable[[dict[str, Any]], None] | None = None) -> tuple[State, list[Any]]:
    events: list[dict[str, Any]] = []

    def both(event: dict[str, Any]) -> None:
        events.append(event)
        if show:
            show(event)

    return Follower(access, run.document["run_id"], ASKED).follow(both), events


def kinds(events: list[dict[str, Any]], step: str) -> list[str]:
    return [event["event"] for event in events if event.get("step") == step]


def test_the_steps_of_one_task_are_shown_as_those_of_a_run_on_this_machine(kubeflow: StandIn, access: Access) -> None:
    state, events = followed(access, start(kubeflow, Scenario(tasks=everything())))
    for step in STEPS:
        assert [kind for kind in kinds(events, step) if kind != "step_waiting"][-2:] == ["progress", "step_finished"]
        assert kinds(events, step).count("step_finished") == 1
    assert (status_of(state), state.steps["register"].result) == ("succeeded", MADE)
    assert state.steps["train"].seconds == 1.5
    assert kubeflow.busiest(1.0) <= 40  # looks every 0.1 s here


def test_a_model_that_the_gate_refused_is_told_although_kubeflow_calls_it_a_success(
    kubeflow: StandIn, access: Access
) -> None:
    state, _ = followed(access, start(kubeflow, Scenario(tasks=everything(register=REFUSED))))
    assert (state.phase, status_of(state)) == ("Succeeded", "refused")


def test_a_look_costs_one_call_of_kubectl_and_none_of_kubeflow(
    kubeflow: StandIn, access: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "_POLL", 0.5)
    followed(access, start(kubeflow, Scenario(tasks=everything())))
    gets = [argv for _, argv in kubeflow.kubectl.calls if "get" in argv]
    spent = kubeflow.kubectl.calls[-1][0] - kubeflow.kubectl.calls[0][0]
    assert len(gets) <= spent / 0.5 + 2
    assert not kubeflow.requests


def test_what_a_failed_step_said_ends_the_following_before_kubeflow_has_given_up(
    kubeflow: StandIn, access: Access
) -> None:
    log = ((0.5, event_line("step_started", "ingest")), (1.0, event_line("step_failed", "ingest", error=MISSING)))
    tries = (Try(outcome="error", seconds=1.0, log=log), Try(outcome="error", log=log))
    run = start(
        kubeflow,
        Scenario(tasks=grouped("prepare-train-judge", **{"prepare-train-judge": {"tries": tries, "backoff": 60.0}})),
    )
    state, events = followed(access, run)
    assert state.error is not None
    assert (state.error.headline, state.steps["ingest"].status) == ("not found: s3://b/x.csv", "failed")
    assert run.now() < run.scenario.ends - 40
    assert kinds(events, "ingest")[-1] == "step_failed"


@pytest.mark.parametrize("there", ["log", "store", "archive"])
def test_the_error_of_a_step_is_found_in_its_log_the_store_or_the_archive(
    kubeflow: StandIn, access: Access, lake: FolderClient, there: str
) -> None:
    log = ((0.5, event_line("step_started", "ingest")), (0.6, event_line("step_failed", "ingest", error=MISSING)))
    told = Try(outcome="error", seconds=1.0, log=log if there != "store" else ())
    scenario = Scenario(tasks=each(ingest={"tries": (told, told), "backoff": 1.0}))
    run = start(kubeflow, scenario)
    run.reach(run.scenario.ends + 2)
    if there == "store":
        leaves("ingest", "failed", error=MISSING, final=True)(run.scenario)
    if there == "archive":
        for key, text in archived(run.scenario, run.now()).items():
            storage.write_bytes(f"s3://lake/kfp/logs/{key}", text.encode())
        kubeflow.kubectl.shown = lambda: [
            one for one in type(kubeflow.kubectl).shown(kubeflow.kubectl) if one["kind"] != "Pod"
        ]
    state, _ = followed(access, run)
    assert state.error is not None
    assert state.error.headline == "not found: s3://b/x.csv"


def test_a_step_that_ran_out_of_memory_is_told_at_the_end_of_its_pod(kubeflow: StandIn, access: Access) -> None:
    tries = (Try(outcome="oom"), Try(outcome="oom"))
    run = start(kubeflow, Scenario(tasks=each(ingest={"tries": tries, "backoff": 60.0})))
    state, _ = followed(access, run)
    assert state.error is not None
    assert (state.error.headline, state.error.code) == ("ingest ran out of memory (limit 2Gi)", "out_of_memory")
    assert run.now() < run.scenario.ends - 40


def test_a_step_without_room_says_so_within_ten_seconds_and_the_run_goes_on_when_there_is(
    kubeflow: StandIn, access: Access
) -> None:
    kubeflow.kubectl.objects = [node(cpu="1500m")]
    asks = {"requests": {"cpu": "4"}, "limits": {"memory": "2Gi"}}
    tries = (Try(waits=60.0, log=said(*STEPS, register=MADE)),)
    run = start(kubeflow, Scenario(tasks=grouped("everything", everything={"tries": tries, "resources": asks})))
    state, events = followed(access, run)
    waiting = next(event for event in events if event["event"] == "step_waiting" and event["kind"] == "unschedulable")
    assert waiting["step"] == "ingest"
    assert "asks for 4 cores; the freest node has 1.5 cores free" in waiting["reason"]
    assert status_of(state) == "succeeded"


@pytest.mark.parametrize("outcome", ["evicted", "deleted", "lost"])
def test_a_pod_that_is_lost_is_tried_again_and_said(kubeflow: StandIn, access: Access, outcome: str) -> None:
    tries = (Try(outcome=outcome, lost_for=10.0), Try(seconds=12.0, log=said(*STEPS, at=4.0, register=MADE)))
    run = start(kubeflow, Scenario(tasks=grouped("everything", everything={"tries": tries, "backoff": 15.0})))
    state, events = followed(access, run)
    assert status_of(state) == "succeeded"
    assert 2 in [event.get("attempt") for event in events if event["event"] == "step_started"]
    assert any(event.get("kind") == "retry" for event in events)
    gone = start(kubeflow, Scenario(tasks=grouped("everything", everything={"tries": (tries[0],)})))
    error = followed(access, gone)[0].error
    assert error is not None
    assert error.code in ("evicted", "pod_lost")


def test_a_cluster_that_does_not_answer_is_said_once_and_asked_again(kubeflow: StandIn, access: Access) -> None:
    def heal(due: bool) -> None:
        if due:
            threading.Timer(0.3, lambda: setattr(kubeflow.kubectl, "fails", "")).start()

    run = start(kubeflow, Scenario(tasks=everything()))
    kubeflow.kubectl.fails = "Unable to connect to the server: dial tcp 10.0.0.1:6443: connect: connection refused"
    state, events = followed(access, run, lambda event: heal(event["event"] == "cluster_silent"))
    silent = [event for event in events if event["event"].startswith("cluster_")]
    assert [event["event"] for event in silent] == ["cluster_silent", "cluster_back"]
    assert "connection refused" in silent[0]["message"]
    assert status_of(state) == "succeeded"


def test_a_log_that_breaks_off_is_taken_up_where_it_was(kubeflow: StandIn, access: Access) -> None:
    slow = tuple((at * 8, line) for at, line in said(*STEPS, register=MADE))
    run = start(kubeflow, Scenario(tasks=grouped("everything", everything={"tries": (Try(seconds=25.0, log=slow),)})))

    def break_off(event: dict[str, Any]) -> None:
        if event["event"] == "step_started" and event["step"] in ("validate", "evaluate"):
            kubeflow.kubectl.fails = "error: unexpected EOF"
            threading.Timer(0.2, lambda: setattr(kubeflow.kubectl, "fails", "")).start()

    state, events = followed(access, run, break_off)
    assert status_of(state) == "succeeded"
    for step in STEPS:
        assert kinds(events, step).count("progress") <= 1
        assert kinds(events, step).count("step_finished") == 1


def test_a_cluster_that_refuses_is_an_error_at_once_and_one_that_is_silent_for_long_says_how_to_go_on(
    kubeflow: StandIn, access: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(kubeflow, Scenario(tasks=everything()))
    kubeflow.kubectl.fails = 'Error from server (Forbidden): workflows.argoproj.io is forbidden: User "x" cannot list'
    with pytest.raises(PlatformError, match="failed") as caught:
        followed(access, run)
    assert "right" in caught.value.fix
    kubeflow.kubectl.fails = "Unable to connect to the server"
    monkeypatch.setattr(follow, "_PATIENCE", 0.3)
    with pytest.raises(PlatformError, match="the run itself goes on") as caught:
        followed(access, run)
    assert caught.value.code == "unreachable"


def test_the_api_of_kubeflow_may_restart_unseen(kubeflow: StandIn, access: Access) -> None:
    access.api()
    run = start(kubeflow, Scenario(tasks=everything()))
    kubeflow.restart(0.5)
    assert status_of(followed(access, run)[0]) == "succeeded"


def test_a_run_whose_workflow_is_gone_is_told_by_its_record_and_kubeflow(kubeflow: StandIn, access: Access) -> None:
    left = tuple((3.0, leaves(step, "finished")) for step in STEPS[:-1])
    left += ((3.0, leaves("register", "finished", result=REFUSED)),)
    run = start(kubeflow, Scenario(tasks=grouped("everything"), gone=0.0, actions=left))
    run.reach(run.scenario.ends + 6)
    state, _ = followed(access, run)
    assert (status_of(state), state.steps["train"].status) == ("refused", "finished")


def test_a_run_of_an_earlier_version_is_shown_with_the_steps_that_it_had(kubeflow: StandIn, access: Access) -> None:
    left = tuple((3.0, leaves(step, "finished")) for step in ORDER["full"][:-1])
    left += ((3.0, leaves("register", "finished", result=MADE)),)
    run = start(kubeflow, Scenario(tasks=grouped("everything"), gone=0.0, actions=left))
    run.reach(run.scenario.ends + 6)
    state, events = followed(access, run)
    assert (tuple(state.steps), status_of(state)) == (ORDER["full"], "succeeded")
    assert kinds(events, "materialise") == ["step_finished"]


def test_a_workflow_that_somebody_deleted_is_an_error_and_no_waiting_for_ever(
    kubeflow: StandIn, access: Access
) -> None:
    run = start(kubeflow, Scenario(tasks=grouped("everything", everything={"tries": (Try(seconds=NEVER),)})))
    kubeflow.kubectl.shown = lambda: []
    with pytest.raises(PlatformError, match="deleted"):
        followed(access, run)


def test_a_run_that_is_cancelled_says_so(kubeflow: StandIn, access: Access) -> None:
    run = start(kubeflow, Scenario(tasks=grouped("everything", everything={"tries": (Try(seconds=500.0),)})))
    threading.Timer(0.5, lambda: kubeflow.api.cancel(run)).start()
    state, _ = followed(access, run)
    assert status_of(state) == "cancelled"


def test_two_follow_the_same_run_and_one_comes_late(kubeflow: StandIn, access: Access) -> None:
    run = start(kubeflow, Scenario(tasks=everything()))
    found: list[State] = []
    threads = [threading.Thread(target=lambda: found.append(followed(access, run)[0])) for _ in range(2)]
    for thread in threads:
        thread.start()
        time.sleep(0.3)
    for thread in threads:
        thread.join(20)
    assert [status_of(state) for state in found] == ["succeeded", "succeeded"]
    late, events = followed(access, run)
    assert (status_of(late), late.steps["register"].result) == ("succeeded", MADE)
    assert [kinds(events, step).count("step_finished") for step in STEPS] == [1] * 7


def test_a_store_that_does_not_answer_is_not_needed_while_there_are_logs(
    kubeflow: StandIn, access: Access, lake: FolderClient
) -> None:
    lake.fails = True
    state, _ = followed(access, start(kubeflow, Scenario(tasks=everything())))
    assert (status_of(state), state.steps["register"].result) == ("succeeded", MADE)


def test_a_run_that_waits_has_a_document_that_says_for_what(kubeflow: StandIn, access: Access) -> None:
    run = start(kubeflow, Scenario(tasks=grouped("everything", everything={"tries": (Try(waits=NEVER),)})))
    run.reach(12)
    state = Follower(access, run.document["run_id"], ASKED).look()
    document = described({"run_id": "news-1", "started": None}, state)
    assert document["status"] == "waiting"
    assert document["steps"]["ingest"]["waiting"].startswith("waits for")
