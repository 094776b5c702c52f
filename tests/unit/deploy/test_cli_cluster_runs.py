"""``fairlead run`` and ``fairlead runs`` of a cluster: what is said, with which exit code."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from contracts import storage
from contracts.bundle import write_bundle
from deploy.cli.cluster.kfp_api import explained
from pipelines import run as asking
from pipelines.io.record import write_run
from tests.argo import Scenario, Try, grouped
from tests.argo_documents import archived, event_line
from tests.kfp_run import Run
from tests.kfp_stand_in import GROUP_CONCAT, StandIn
from tests.kubectl_stand_in import node
from tests.s3_folder import FolderClient
from tests.unit.deploy.cluster_runs import MADE, MISSING, REFUSED, everything, leaves, said, start

FAILS = (
    (0.5, event_line("step_started", "ingest")),
    (0.6, event_line("step_finished", "ingest", seconds=0.1, result={"rows": 2})),
    (0.7, event_line("step_started", "validate")),
    (0.8, event_line("step_failed", "validate", seconds=0.1, error=MISSING)),
)


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What register has made: a bundle, which is here instead of in S3; returns the result of the step."""
    source = tmp_path / "source"
    (source / "model").mkdir(parents=True)
    (source / "model" / "model.txt").write_text("tree")
    signature = {"inputs": [{"name": "title", "dtype": "string"}], "classes": ["a", "b"]}
    lineage = {"code_version": "c", "data_version": "d", "source": "s", "seed": 1, "created": "2026-01-01T00:00:00Z"}
    named = {"name": "news", "task": "news", "recipe": "linear", "modality": "text", "engine": "onnx"}
    gate = {"passed": True, "checks": [], "reasons": []}
    fields = {**named, "signature": signature, "gate": gate, "lineage": lineage, "metrics": {"accuracy": 0.8}}
    return {**MADE, "path": str(write_bundle(source, tmp_path / "bundles", fields).path), "tracking_url": "#/runs/1"}


def failing() -> Scenario:
    tries = (Try(outcome="error", seconds=1.0, log=FAILS),)
    return Scenario(tasks=grouped("prepare-train-judge", **{"prepare-train-judge": {"tries": tries}}))


def ends(run: Run) -> None:
    run.reach(run.scenario.ends + 2)


def test_a_run_says_its_steps_version_metrics_and_gate_as_on_this_machine(
    kubeflow: StandIn, cluster_profile: str, fairlead: Any, bundle: dict[str, Any]
) -> None:
    kubeflow.api.scenarios = [Scenario(tasks=everything(register=bundle))]
    done = fairlead("run", "news", "--profile", cluster_profile, "--json")
    assert done.code == 0, done.err
    report = done.json
    assert (report["status"], report["metrics"], report["gate"]["passed"]) == ("succeeded", {"accuracy": 0.8}, True)
    assert report["kfp_run"] == kubeflow.run.document["run_id"]
    assert report["steps"]["train"] == {"status": "finished", "seconds": 1.5, "result": {}}
    shown = fairlead("runs", report["run_id"], "--profile", cluster_profile, "--json").json
    assert {key: shown[key] for key in ("status", "steps", "result")} == {
        key: report[key] for key in ("status", "steps", "result")
    }
    record = json.loads(storage.read_bytes(f"s3://lake/data/.runs/{report['kfp_run']}/run.json"))
    asked = record["asked"]
    assert (asked["run_id"], asked["task"], asked["recipe"]) == (report["run_id"], "news", "linear")


def test_a_run_is_followed_although_kubeflow_cannot_show_it(
    kubeflow: StandIn, cluster_profile: str, fairlead: Any, bundle: dict[str, Any]
) -> None:
    kubeflow.api.scenarios = [Scenario(tasks=everything(register=bundle))]
    kubeflow.breaks = GROUP_CONCAT  # as it does where GroupConcatMaxLen is not set
    done = fairlead("run", "news", "--profile", cluster_profile, "--json")
    assert done.code == 0, done.err
    assert (done.json["status"], done.json["recipe"]) == ("succeeded", "linear")
    assert done.json["result"]["version"] == bundle["version"]
    assert done.json["run_id"].startswith("news-")


def test_a_model_that_the_gate_refused_ends_with_its_exit_code(
    kubeflow: StandIn, cluster_profile: str, fairlead: Any, bundle: dict[str, Any]
) -> None:
    refused = {**bundle, "gate_passed": False, "champion": False}
    folder = Path(bundle["path"])
    document = json.loads((folder / "bundle.json").read_text())
    document["gate"] = {"passed": False, "checks": [], "reasons": ["accuracy is 0.8, must be at least 0.999"]}
    (folder / "bundle.json").write_text(json.dumps(document))
    kubeflow.api.scenarios = [
        Scenario(tasks=everything(register=refused)),
        Scenario(tasks=everything(register=refused)),
    ]
    done = fairlead("run", "news", "--profile", cluster_profile, "--json")
    assert (done.code, done.json["status"]) == (3, "refused")
    shown = fairlead("run", "news", "--profile", cluster_profile)
    assert shown.code == 3
    assert "must be at least 0.999" in shown.out


def test_a_failing_step_is_named_with_its_own_words_and_the_command_that_goes_on(
    kubeflow: StandIn, cluster_profile: str, fairlead: Any
) -> None:
    kubeflow.api.scenarios = [failing()]
    failed = fairlead("run", "news", "--profile", cluster_profile, "--train-gpus", "1", "--json")
    error = failed.json["error"]
    assert (failed.code, error["headline"], error["code"]) == (1, MISSING["headline"], "not_found")
    again = f"fairlead run --resume {error['context']['run']} --profile {cluster_profile} --train-gpus 1"
    assert error["fix"] == f"check it; then: {again}"


def listed_at_the_end(fairlead: Any, profile: str) -> Any:
    """The runs as soon as the server knows that they ended, which it learns a moment after the cluster."""
    until = time.monotonic() + 30
    while True:
        listed = fairlead("runs", "--profile", profile, "--json").json
        if all(run["status"] != "running" for run in listed) or time.monotonic() > until:
            return listed
        time.sleep(0.05)


def test_a_run_that_failed_goes_on_under_its_id_with_what_it_was_asked_and_what_is_changed(
    kubeflow: StandIn, cluster_profile: str, fairlead: Any, bundle: dict[str, Any]
) -> None:
    kubeflow.api.scenarios = [failing(), Scenario(tasks=everything(register=bundle))]
    first = fairlead(
        "run", "news", "--profile", cluster_profile, "--train-gpus", "1", "--no-cache", "--set", "seed=5", "--json"
    )
    run_id = first.json["error"]["context"]["run"]
    before = kubeflow.api.posted["runs"]["runtime_config"]["parameters"]
    command = first.json["error"]["fix"].rpartition("then: ")[2]
    done = fairlead(*shlex.split(command)[1:], "--set", "data.drop=[a b]", "--json")
    assert done.code == 0, done.err
    assert done.json["run_id"] == run_id
    posted = kubeflow.api.posted["runs"]
    given = posted["runtime_config"]["parameters"]
    assert (given["run"], given["nonce"], posted["display_name"]) == (run_id, before["nonce"], run_id)
    config = json.loads(given["config"])
    assert (config["seed"], config["data"]["drop"]) == (5, ["a b"])
    executors = posted["pipeline_spec"]["pipeline_spec"]["deploymentSpec"]["executors"].values()
    assert any("accelerator" in executor["container"].get("resources", {}) for executor in executors)
    listed = listed_at_the_end(fairlead, cluster_profile)
    assert [(run["run_id"], run["status"]) for run in listed] == [(run_id, "succeeded")]
    over = fairlead("run", "--resume", run_id, "--profile", cluster_profile, "--json").json["error"]
    assert (over["code"], over["detail"]) == ("not_resumed", "it ended: succeeded")


def test_where_a_resumed_run_trains_is_as_before(kubeflow: StandIn, cluster_profile: str, fairlead: Any) -> None:
    kubeflow.api.scenarios = [failing(), failing()]
    first = fairlead("run", "news", "--profile", cluster_profile, "--image", "registry/other:2", "--json")
    run_id = first.json["error"]["context"]["run"]
    fairlead("run", "--resume", run_id, "--profile", cluster_profile, "--json")
    executors = kubeflow.api.posted["runs"]["pipeline_spec"]["pipeline_spec"]["deploymentSpec"]["executors"]
    assert {executor["container"]["image"] for executor in executors.values()} == {"registry/other:2"}


def test_runs_of_everybody_are_listed_with_who_started_them_and_what_came_of_them(
    kubeflow: StandIn, cluster_profile: str, fairlead: Any
) -> None:
    assert "No runs on this cluster" in fairlead("runs", "--profile", cluster_profile).out
    left = tuple((4.0, leaves(step, "finished")) for step in ("ingest", "gate"))
    left += ((4.0, leaves("register", "finished", result=REFUSED)),)
    refused = start(kubeflow, Scenario(tasks=everything(register=REFUSED), actions=left, gone=0.0))
    error = (3.0, leaves("ingest", "failed", error=MISSING, final=True))
    failed = start(
        kubeflow, Scenario(tasks=grouped("prepare", prepare={"tries": (Try(outcome="error"),)}), actions=(error,))
    )
    for run, name in ((refused, "news-20260101-000000-aaaa"), (failed, "news-20260102-000000-bbbb")):
        run.document["display_name"] = name
        run.document["runtime_config"]["parameters"]["run"] = name
        ends(run)
    kubeflow.api.recurring["c-1"] = {
        "recurring_run_id": "c-1",
        "display_name": "nightly",
        "created_at": "2026-01-01T00:00:00Z",
    }
    failed.document["recurring_run_id"] = "c-1"
    others = start(kubeflow, Scenario(tasks=grouped("theirs")))
    del others.document["runtime_config"]["parameters"]["task"]
    listed = fairlead("runs", "--profile", cluster_profile, "--json").json
    listed.sort(key=lambda run: run["run_id"], reverse=True)  # they began in the same second
    assert [(run["run_id"][-4:], run["status"], run["by"]) for run in listed] == [
        ("bbbb", "failed", "schedule nightly"),
        ("aaaa", "refused", "Kubeflow"),
    ]
    assert listed[1]["result"]["version"] == "3"
    assert listed[0]["error"]["headline"] == MISSING["headline"]
    table = fairlead("runs", "--profile", cluster_profile).out
    assert "news:3" in table
    assert "linear" in table
    assert max(map(len, table.splitlines())) <= 100
    found = fairlead("runs", failed.document["run_id"][:8], "--profile", cluster_profile)
    assert "news-20260102-000000-bbbb" in found.out
    assert f"fairlead run --resume news-20260102-000000-bbbb --profile {cluster_profile}" in found.out
    unknown = fairlead("runs", "fraud", "--profile", cluster_profile, "--json").json["error"]
    assert unknown["code"] == "unknown_run"
    assert "more than one" in fairlead("runs", "news", "--profile", cluster_profile, "--json").json["error"]["headline"]


def test_a_run_whose_pod_made_its_id_is_found_by_it(kubeflow: StandIn, cluster_profile: str, fairlead: Any) -> None:
    run = start(kubeflow, Scenario(tasks=grouped("everything", everything={"tries": (Try(seconds=900.0),)})))
    run.document["runtime_config"]["parameters"]["run"] = ""
    kfp_run = run.document["run_id"]
    made = f"news-20260101-000000-{kfp_run[:4]}"
    storage.write_bytes(
        f"s3://lake/data/.runs/{kfp_run}/run.json", json.dumps({"run_id": made, "task": "news"}).encode()
    )
    assert [one["run_id"] for one in fairlead("runs", "--profile", cluster_profile, "--json").json] == [made]
    assert fairlead("runs", made[:-1], "--profile", cluster_profile, "--json").json["kfp_run"] == kfp_run


def test_calls_that_read_leave_standard_output_alone_in_as_many_threads_as_there_are() -> None:
    output, inside = sys.stdout, threading.Barrier(8)

    def call(_: int) -> bool:
        with explained("nothing was read"):
            inside.wait(30)
            return sys.stdout is output

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(call, range(8)))
    assert sys.stdout is output


def test_runs_that_nobody_named_are_listed_by_what_their_first_step_called_them(
    kubeflow: StandIn, cluster_profile: str, fairlead: Any, tmp_path: Path
) -> None:
    for name in ("nightly-1", "nightly-2"):
        run = start(kubeflow, Scenario(tasks=everything(), gone=0.0))
        run.document.update(display_name=name, recurring_run_id="c-1")
        run.document["runtime_config"]["parameters"]["run"] = ""
        if name == "nightly-1":
            write_run("s3://lake/data/.runs", run.scenario.run_id, asking.Run(run_id="news-20260102-030405-9f3c"), {})
        ends(run)
    listed = fairlead("runs", "--profile", cluster_profile, "--json").json
    assert sorted(run["run_id"] for run in listed) == ["news-20260102-030405-9f3c", "nightly-2"]
    assert [run["status"] for run in listed] == ["ended"] * 2  # nothing says what came of them


def test_a_run_is_followed_again_by_anybody(
    kubeflow: StandIn, cluster_profile: str, fairlead: Any, bundle: dict[str, Any]
) -> None:
    start(kubeflow, Scenario(tasks=everything(register={**bundle, "gate_passed": True})))
    done = fairlead("runs", "news-1", "--follow", "--profile", cluster_profile)
    assert done.code == 0, done.err
    assert "ok train" in done.out
    assert "news:3" in done.out
    start(kubeflow, failing())
    failed = fairlead("runs", kubeflow.run.document["run_id"], "--follow", "--profile", cluster_profile, "--json")
    assert (failed.code, failed.json["error"]["headline"]) == (1, MISSING["headline"])


def test_what_a_step_printed_is_shown_from_its_pod_and_later_from_the_store(
    kubeflow: StandIn, cluster_profile: str, fairlead: Any, lake: FolderClient
) -> None:
    run = start(kubeflow, Scenario(tasks=everything()))
    ends(run)
    texts = archived(run.scenario, run.now())
    shown = fairlead("runs", "news-1", "--logs", "train", "--profile", cluster_profile).out
    assert '"step": "train"' in shown
    assert '"step": "ingest"' not in shown
    for key, text in texts.items():
        storage.write_bytes(f"s3://lake/kfp/logs/{key}", text.encode())
    kubeflow.kubectl.shown = lambda: [
        one for one in type(kubeflow.kubectl).shown(kubeflow.kubectl) if one["kind"] != "Pod"
    ]
    later = fairlead("runs", "news-1", "--logs", "train", "--profile", cluster_profile, "--json")
    assert later.json["log"].splitlines() == shown.splitlines()
    error = fairlead("runs", "news-1", "--logs", "trian", "--profile", cluster_profile, "--json").json["error"]
    assert (error["code"], "train" in error["detail"]) == ("unknown_step", True)


def test_a_run_is_cancelled_and_says_so_everywhere(kubeflow: StandIn, cluster_profile: str, fairlead: Any) -> None:
    start(kubeflow, Scenario(tasks=grouped("everything", everything={"tries": (Try(seconds=900.0),)})))
    assert fairlead("runs", "news-1", "--cancel", "--profile", cluster_profile).code == 0
    assert fairlead("runs", "news-1", "--profile", cluster_profile, "--json").json["status"] == "cancelled"
    assert fairlead("runs", "--profile", cluster_profile, "--json").json[0]["status"] == "cancelled"
    followed = fairlead("runs", "news-1", "--follow", "--profile", cluster_profile, "--json")
    assert (followed.code, followed.json["error"]["code"]) == (1, "cancelled")
    again = fairlead("runs", "news-1", "--cancel", "--profile", cluster_profile, "--json")
    assert (again.code, again.json["error"]["code"]) == (1, "ended")


def test_ctrl_c_ends_the_following_and_not_the_run(
    kubeflow: StandIn, cluster_profile: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Scenario(tasks=grouped("everything", everything={"tries": (Try(seconds=900.0, log=said("ingest")),)}))
    run = start(kubeflow, slow)
    code = "import sys; sys.argv = ['fairlead', 'runs', 'news-1', '--follow', '--profile', sys.argv[1]]; "
    code += "from deploy.cli.app import main; main()"
    child = subprocess.Popen(
        [sys.executable, "-c", code, cluster_profile],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert child.stdout is not None
    for line in child.stdout:  # until something is followed
        if "ingest" in line:
            break
    child.send_signal(signal.SIGINT)
    _, complaint = child.communicate(timeout=30)
    assert child.returncode == 130
    assert f"fairlead runs news-1 --profile {cluster_profile} --follow" in complaint
    assert run.now() < run.scenario.ends
    assert shutil.which("kubectl") is not None


def test_a_run_of_which_nothing_says_what_it_made_is_no_success(
    kubeflow: StandIn, cluster_profile: str, fairlead: Any
) -> None:
    run = start(kubeflow, Scenario(tasks=grouped("everything"), gone=0.0))
    ends(run)
    done = fairlead("runs", "news-1", "--follow", "--profile", cluster_profile, "--json")
    assert (done.code, done.json["error"]["code"]) == (1, "no_result")


@pytest.mark.parametrize("options", [("--follow", "--cancel"), ("--logs", "train", "--follow")])
def test_one_thing_is_done_with_a_run(fairlead: Any, options: tuple[str, ...]) -> None:
    assert fairlead("runs", "x", *options, "--json").json["error"]["code"] == "bad_option"
    assert fairlead("runs", "--follow", "--json").json["error"]["headline"] == "which run?"


def test_without_kubeflow_the_error_names_it(
    kubeflow: StandIn, cluster_profile: str, fairlead: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIRLEAD_CLUSTER__KFP", "http://127.0.0.1:9")
    error = fairlead("runs", "--profile", cluster_profile, "--json").json["error"]
    assert error["code"] == "kfp"


def memory_of(posted: dict[str, Any]) -> str:
    """Of the only task."""
    (executor,) = posted["pipeline_spec"]["pipeline_spec"]["deploymentSpec"]["executors"].values()
    asked = executor["container"]["resources"]
    assert asked["resourceMemoryLimit"] == asked["resourceMemoryRequest"]
    return str(asked["resourceMemoryLimit"])


def died(outcome: str) -> Scenario:
    """Training loses its pod, whenever it is tried."""
    log = (*said("ingest", "validate", "materialise", "build_dataset"), (2.0, event_line("step_started", "train")))
    tries = (Try(seconds=4.0, outcome=outcome, lost_for=5.0, log=log),)
    return Scenario(tasks=grouped("prepare-train-judge", **{"prepare-train-judge": {"tries": tries}}))


def test_what_ran_out_of_memory_is_started_once_more_with_twice_as_much_and_said(
    kubeflow: StandIn, cluster_profile: str, fairlead: Any, bundle: dict[str, Any]
) -> None:
    kubeflow.api.scenarios = [died("oom"), Scenario(tasks=everything(register=bundle))]
    done = fairlead("run", "news", "--profile", cluster_profile)
    assert done.code == 0, done.err
    assert "train ran out of memory (limit 2Gi): what is left is started once more" in done.out
    assert 'resources.train.memory is "4Gi" now' in done.out
    first, second = (run.document for run in kubeflow.api.runs.values())
    assert first["display_name"] == second["display_name"]
    assert (memory_of(first), memory_of(second)) == ("2Gi", "4Gi")
    assert first["runtime_config"]["parameters"] == second["runtime_config"]["parameters"]
    listed = listed_at_the_end(fairlead, cluster_profile)
    assert [(run["kfp_run"], run["status"]) for run in listed] == [(second["run_id"], "succeeded")]


def test_what_ran_out_of_memory_that_no_node_has_twice_says_so_with_the_setting(
    kubeflow: StandIn, cluster_profile: str, fairlead: Any
) -> None:
    kubeflow.kubectl.objects = [node(cpu="4", memory="3900Mi")]
    kubeflow.api.scenarios = [died("oom")]
    error = fairlead("run", "news", "--profile", cluster_profile, "--json").json["error"]
    assert (error["code"], error["headline"]) == ("out_of_memory", "train ran out of memory (limit 2Gi)")
    assert error["fix"].endswith("--set resources.train.memory=4Gi")
    assert error["fix"].startswith("fairlead run --resume news-")
    assert len(kubeflow.api.runs) == 1


def test_what_lost_its_pods_is_started_again_three_times_at_most(
    kubeflow: StandIn, cluster_profile: str, fairlead: Any, bundle: dict[str, Any]
) -> None:
    both = [died("evicted"), died("lost")]
    kubeflow.api.scenarios = [*both, Scenario(tasks=everything(register=bundle)), *both, *both]
    done = fairlead("run", "news", "--profile", cluster_profile, "--json")
    assert done.code == 0, done.err
    assert [restart["error"]["code"] for restart in done.json["restarts"]] == ["evicted", "pod_lost"]
    assert fairlead("run", "news", "--profile", cluster_profile, "--json").code == 1
    assert len(kubeflow.api.runs) == 7
