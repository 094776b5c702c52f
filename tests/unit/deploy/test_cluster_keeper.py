"""The keeper of runs that nobody follows, against the stand-in of Kubeflow: pods that are killed, and that get lost."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from contracts import storage
from deploy.cli.cluster_runs.access import open_access
from deploy.cli.cluster_runs.keeper import Keeper
from deploy.cli.cluster_runs.lease import Followed
from deploy.cli.cluster_runs.lookup import Found, _last_attempts
from deploy.cli.profiles.loading import load_profile
from pipelines.io.record import read_followed, read_run, read_steps, write_followed
from tests.argo import NEVER, Scenario, Task, Try, grouped
from tests.argo_documents import event_line
from tests.kfp_run import Run
from tests.kfp_stand_in import StandIn
from tests.kubectl_stand_in import node
from tests.unit.deploy.cluster_runs import MADE, MISSING, everything, leaves, said

RECORDS = "s3://lake/data/.runs"
BEGUN = (*said("ingest", "validate", "materialise", "build_dataset"), (2.0, event_line("step_started", "train")))
TASK = "prepare-train-judge"


def died(outcome: str, tries: int = 2, **more: Any) -> Scenario:
    """Training loses its pod, whenever Argo tries it."""
    one = Try(seconds=3.0, outcome=outcome, lost_for=3.0, log=BEGUN)
    return Scenario(tasks=grouped(TASK, **{TASK: {"tries": (one,) * tries}}), **more)


def well() -> Scenario:
    """The rest of the run ends well, and leaves what it made."""
    return Scenario(tasks=everything(), actions=((1.0, leaves("register", "finished", result=MADE)),))


def schedule(cluster: StandIn, profile: str, fairlead: Any, *asked: str) -> str:
    made = fairlead("run", "news", "--profile", profile, "--cron", "0 3 * * *", "--name", "nightly", "--json", *asked)
    assert made.code == 0, made.err
    return str(made.json["recurring_run"])


def fired(cluster: StandIn, recurring: str, *scenarios: Scenario) -> Run:
    """A run of a schedule that has failed; its first step has named it."""
    cluster.api.scenarios = list(scenarios)
    run = cluster.api.fire(recurring)
    named = {"run_id": f"news-20260102-030405-{run.scenario.run_id[:4]}", "task": "news", "recipe": "linear"}
    storage.write_bytes(f"{RECORDS}/{run.scenario.run_id}/run.json", json.dumps(named).encode())
    return ended(run)


def ended(run: Run) -> Run:
    run.reach(run.scenario.ends + 2)
    run.scenario = replace(run.scenario, began=run.scenario.began - timedelta(minutes=10))  # of its times, no other
    return run


def looks(profile: str, keeper: Keeper | None = None) -> list[dict[str, Any]]:
    """What a keeper says of one look."""
    said: list[dict[str, Any]] = []
    (keeper or Keeper(open_access(load_profile(profile)), holds=0.0)).look(said.append)
    return said


def memory_of(run: Run) -> str:
    (executor,) = run.document["pipeline_spec"]["pipeline_spec"]["deploymentSpec"]["executors"].values()
    return str(executor["container"]["resources"]["resourceMemoryLimit"])


def test_a_scheduled_run_that_ran_out_of_memory_goes_on_with_twice_as_much_under_its_id(
    kubeflow: StandIn, cluster_profile: str, fairlead: Any
) -> None:
    recurring = schedule(kubeflow, cluster_profile, fairlead)
    run = fired(kubeflow, recurring, died("oom"), well())
    (event,) = looks(cluster_profile)
    first, second = kubeflow.api.runs.values()
    run_id = f"news-20260102-030405-{run.scenario.run_id[:4]}"
    assert (event["event"], event["run"], event["as"]) == ("run_restarted", run_id, second.scenario.run_id)
    assert (memory_of(first), memory_of(second)) == ("2Gi", "4Gi")
    assert second.document["recurring_run_id"] == recurring  # the schedule waits for it
    given = [each.document["runtime_config"]["parameters"] for each in (first, second)]
    assert given[1] == {**given[0], "run": run_id}
    ended(second)
    (listed,) = fairlead("runs", "--profile", cluster_profile, "--json").json
    assert (listed["run_id"], listed["kfp_run"], listed["status"]) == (run_id, second.scenario.run_id, "succeeded")
    (restart,) = listed["restarts"]
    assert (restart["by"], restart["changed"]) == ("the platform", {"resources.train.memory": "4Gi"})
    assert (restart["kfp_run"], restart["error"]["code"]) == (run.scenario.run_id, "out_of_memory")


@pytest.mark.parametrize("newest_first", [True, False])
def test_the_last_attempt_is_the_one_that_names_the_others(newest_first: bool) -> None:
    asked: list[dict[str, Any]] = [{"run_id": "news-1"}, {"run_id": "news-1", "restarts": [{"kfp_run": "k0"}]}]
    asked.append({"run_id": "news-1", "restarts": [{"kfp_run": "k0"}, {"kfp_run": "k1"}]})
    attempts = [Found(run=SimpleNamespace(run_id=f"k{at}"), asked=one) for at, one in enumerate(asked)]
    other = Found(run=SimpleNamespace(run_id="other"), asked={"run_id": "news-2"})
    given = [*(reversed(attempts) if newest_first else attempts), other]
    assert {name: found.kfp_run for name, found in _last_attempts(given).items()} == {"news-1": "k2", "news-2": "other"}


def test_out_of_memory_is_tried_again_once_and_the_run_says_so(
    kubeflow: StandIn, cluster_profile: str, fairlead: Any
) -> None:
    fired(kubeflow, schedule(kubeflow, cluster_profile, fairlead), died("oom"), died("oom"))
    assert [event["event"] for event in looks(cluster_profile)] == ["run_restarted"]
    ended(kubeflow.run)
    assert looks(cluster_profile) == []
    assert len(kubeflow.api.runs) == 2
    shown = fairlead("runs", "news-2026", "--profile", cluster_profile).out
    assert "Again    train ran out of memory (limit 2Gi), with resources.train.memory=4Gi; by the platform" in shown
    assert "Error    train ran out of memory" in shown


@pytest.mark.parametrize("outcome", ["deleted", "lost", "evicted"])
def test_pods_that_were_lost_are_started_again_three_times_at_most(
    kubeflow: StandIn, cluster_profile: str, fairlead: Any, outcome: str
) -> None:
    fired(kubeflow, schedule(kubeflow, cluster_profile, fairlead), *[died(outcome)] * 4)
    for _ in range(3):
        assert [event["event"] for event in looks(cluster_profile)] == ["run_restarted"]
        ended(kubeflow.run)
    assert looks(cluster_profile) == []
    assert len(kubeflow.api.runs) == 4
    assert {memory_of(run) for run in kubeflow.api.runs.values()} == {"2Gi"}
    assert len(read_run(RECORDS, kubeflow.run.scenario.run_id)["restarts"]) == 3  # type: ignore[index]


def test_what_no_node_has_twice_is_left_and_said(kubeflow: StandIn, cluster_profile: str, fairlead: Any) -> None:
    run = fired(kubeflow, schedule(kubeflow, cluster_profile, fairlead), died("oom"))
    kubeflow.kubectl.objects = [node(cpu="4", memory="3900Mi")]
    keeper = Keeper(open_access(load_profile(cluster_profile)), holds=0.0)
    assert [event["event"] for event in looks(cluster_profile, keeper)] == ["run_left"]
    assert looks(cluster_profile, keeper) == []  # it is settled
    (listed,) = fairlead("runs", "--profile", cluster_profile, "--json").json
    assert "no node has twice the memory for train" in listed["left"]
    assert "the largest node has 3.7Gi" in listed["left"]
    assert (len(kubeflow.api.runs), listed["kfp_run"]) == (1, run.scenario.run_id)


def test_who_may_not_look_at_nodes_asks_and_ends_what_no_node_takes(
    kubeflow: StandIn, cluster_profile: str, fairlead: Any
) -> None:
    waits = Scenario(tasks=grouped(TASK, **{TASK: {"tries": (Try(waits=NEVER, message="0/1 nodes: memory"),)}}))
    fired(kubeflow, schedule(kubeflow, cluster_profile, fairlead), died("oom"), waits)

    def forbidden(argv: list[str], given: str) -> str:
        raise LookupError("Error from server (Forbidden): nodes is forbidden")

    kubeflow.kubectl.answers["get nodes"] = forbidden
    keeper = Keeper(open_access(load_profile(cluster_profile)), holds=0.0, patience=60.0)
    assert [event["event"] for event in looks(cluster_profile, keeper)] == ["run_restarted"]
    later = kubeflow.run
    later.reach(15.0)  # its pod is there, and waits
    assert looks(cluster_profile, keeper) == []
    later.scenario = replace(later.scenario, began=later.scenario.began - timedelta(minutes=5))
    (event,) = looks(cluster_profile, keeper)
    assert (event["event"], event["kfp_run"], event["because"]) == (
        "run_ended", later.scenario.run_id, "0/1 nodes: memory",
    )  # fmt: skip
    (listed,) = fairlead("runs", "--profile", cluster_profile, "--json").json
    assert listed["status"] == "cancelled"
    assert listed["left"] == "no node took it with resources.train.memory=4Gi: 0/1 nodes: memory"


def test_a_named_error_and_a_run_that_somebody_ended_are_final(
    kubeflow: StandIn, cluster_profile: str, fairlead: Any
) -> None:
    recurring = schedule(kubeflow, cluster_profile, fairlead)
    own = leaves("ingest", "failed", error=MISSING, final=True)
    tries = (Try(seconds=1.0, outcome="error"),) * 2
    tasks: tuple[Task, ...] = grouped(TASK, **{TASK: {"tries": tries}})
    fired(kubeflow, recurring, Scenario(tasks=tasks, actions=((0.5, own),)))
    fired(kubeflow, recurring, died("oom", cancelled=2.0))
    assert looks(cluster_profile) == []
    assert len(kubeflow.api.runs) == 2


def test_a_run_that_was_resumed_by_a_person_is_theirs(kubeflow: StandIn, cluster_profile: str, fairlead: Any) -> None:
    run = fired(kubeflow, schedule(kubeflow, cluster_profile, fairlead), died("lost"))
    kubeflow.api.scenarios = [Scenario(tasks=grouped(TASK, **{TASK: {"tries": (Try(seconds=900.0),)}}))]
    run_id = f"news-20260102-030405-{run.scenario.run_id[:4]}"
    given = {**run.document["runtime_config"]["parameters"], "run": run_id}
    body = {**run.document, "display_name": run_id, "runtime_config": {"parameters": given}}
    kubeflow.api.start(body)
    assert looks(cluster_profile) == []
    assert len(kubeflow.api.runs) == 2


def test_a_followed_run_is_left_to_its_follower_until_the_sign_stands_still(
    kubeflow: StandIn, cluster_profile: str, fairlead: Any
) -> None:
    run = fired(kubeflow, schedule(kubeflow, cluster_profile, fairlead), died("lost"), well())
    kfp_run = run.scenario.run_id
    with Followed(RECORDS, kfp_run) as sign:
        keeper = Keeper(open_access(load_profile(cluster_profile)), holds=0.3)
        time.sleep(0.3)
        assert looks(cluster_profile, keeper) == []
        time.sleep(0.4)
        sign.sign()  # it is slow, and there
        assert looks(cluster_profile, keeper) == []
        assert sign.mine()
    assert read_followed(RECORDS, kfp_run) == {}  # a follower that ends takes its sign away
    assert set(read_steps(RECORDS, kfp_run)) == set()
    write_followed(RECORDS, kfp_run, {"by": "laptop-1", "beat": 7})  # one that was killed does not
    assert looks(cluster_profile, keeper) == []
    time.sleep(0.4)
    assert [event["event"] for event in looks(cluster_profile, keeper)] == ["run_restarted"]
    assert read_followed(RECORDS, kfp_run)["by"] == "keeper"


def test_a_follower_that_comes_back_late_follows_what_the_keeper_started(
    kubeflow: StandIn, cluster_profile: str, fairlead: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A laptop that slept: the keeper has signed in its place and started the rest when it looks again."""
    from deploy.cli.cluster_runs import execution as following

    kubeflow.api.scenarios = [died("lost"), well()]
    seen = following._followed

    def late(access: Any, found: Any, *how: Any) -> Any:
        state = seen(access, found, *how)
        if len(kubeflow.api.runs) == 1:
            ended(kubeflow.run)
            write_followed(RECORDS, found.kfp_run, {"by": "laptop-1", "beat": 1})
            keeper = Keeper(open_access(load_profile(cluster_profile)), holds=0.0)
            assert looks(cluster_profile, keeper) == []
            assert [event["event"] for event in looks(cluster_profile, keeper)] == ["run_restarted"]
        return state

    monkeypatch.setattr(following, "_followed", late)
    monkeypatch.setattr(following, "described", lambda asked, state: {**asked, "result": MADE, "status": "succeeded"})
    monkeypatch.setattr("deploy.cli.training.start_run.build_report", lambda endpoints, run: run)
    done = fairlead("run", "news", "--profile", cluster_profile, "--json")
    assert done.code == 0, done.err + done.out
    assert done.json["kfp_run"] == kubeflow.run.scenario.run_id
    assert [restart["by"] for restart in done.json["restarts"]] == ["the platform"]
    assert len(kubeflow.api.runs) == 2


def test_a_cluster_that_does_not_answer_is_asked_again_later(
    kubeflow: StandIn, cluster_profile: str, fairlead: Any
) -> None:
    fired(kubeflow, schedule(kubeflow, cluster_profile, fairlead), died("lost"), well())
    keeper = Keeper(open_access(load_profile(cluster_profile)), holds=0.0)
    kubeflow.api.refuses = "Internal error: the database is away"
    assert [event["event"] for event in looks(cluster_profile, keeper)] == ["keeper_waits"]
    kubeflow.api.refuses = ""
    assert [event["event"] for event in looks(cluster_profile, keeper)] == ["run_restarted"]
    assert fairlead("pipelines", "keep", "--once", "--profile", cluster_profile).code == 0
