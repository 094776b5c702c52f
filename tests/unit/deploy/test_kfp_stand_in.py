"""The stand-in of Kubeflow Pipelines answers as the real one does: the clients' own calls, and recordings of runs.

No ``from __future__ import annotations`` here: KFP reads the annotations of components as objects.
"""

import json
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy.cli.cluster.kube import Kube
from tests import argo_documents
from tests.argo import NEVER, Scenario, Task, Try, each, grouped
from tests.kfp_api import run_document
from tests.kfp_run import Run
from tests.kfp_stand_in import GROUP_CONCAT, StandIn, kfp_stand_in
from tests.kubectl_stand_in import event
from tests.late import Late

kfp, kfp_server_api = Late("kfp"), Late("kfp_server_api")

RECORDINGS = Path(__file__).parents[4] / "shared" / "cases" / "kubeflow"
_CACHED = {name: {"cached": True} for name in ("validate", "materialise", "build_dataset", "train", "evaluate")}
_FAILS, _OOM = Try(outcome="error"), Try(outcome="oom")
_OOM_BELOW_MAIN = Try(outcome="oom", exit_code=1)
SCENARIOS: dict[str, tuple[dict[str, dict[str, Any]], float]] = {
    "succeeded": ({}, 1e6),
    "cached": (_CACHED, 1e6),
    "running": (_CACHED, 25.0),
    "failed": ({"ingest": {"tries": (_FAILS, _FAILS)}}, 1e6),
    "oom": ({"evaluate": {"tries": (_OOM, _OOM_BELOW_MAIN)}}, 1e6),
    "refused": ({k: v for k, v in _CACHED.items() if k not in ("train", "evaluate")}, 1e6),
    "unschedulable": ({"ingest": {"tries": (Try(waits=NEVER),)}}, 60.0),
}


def compile_two_steps(file: Path) -> None:
    from kfp import compiler, dsl

    @dsl.component(base_image="registry/pipelines:1")
    def work(text: str) -> str:
        return text

    @dsl.pipeline(name="full")
    def two_steps(task: str = "news") -> None:
        first = work(text=task).set_display_name("prepare")
        work(text=first.output).set_caching_options(False)

    compiler.Compiler().compile(two_steps, str(file))


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    with kfp_stand_in() as made:
        yield made


@pytest.fixture
def client(stand_in: StandIn) -> Any:
    return kfp.Client(host=stand_in.url)


@pytest.fixture
def package(tmp_path: Path) -> str:
    file = tmp_path / "full.yaml"
    compile_two_steps(file)
    return str(file)


@pytest.fixture
def kube(stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kube:
    stand_in.put_on_path(tmp_path, monkeypatch)
    return Kube("fairlead")


def shape(document: Any, path: str = "") -> set[str]:
    """Every path of keys of a document with the type of its value; null and a text are both what a time may be."""
    if isinstance(document, dict):
        return set().union(*[shape(value, f"{path}.{key}") for key, value in document.items()]) or {f"{path}: empty"}
    if isinstance(document, list):
        return set().union(*[shape(value, f"{path}[]") for value in document]) or {f"{path}: empty"}
    return {f"{path}: {type(document).__name__}"}


def by_path(workflow: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Nodes by their path below the workflow."""
    name = workflow["metadata"]["name"]
    return {node["name"].removeprefix(name).lstrip("."): node for node in workflow["status"]["nodes"].values()}


def _made(case: str) -> tuple[Scenario, float]:
    changes, t = SCENARIOS[case]
    (real,) = json.loads((RECORDINGS / case / "workflow.json").read_text())
    return Scenario(tasks=each(**changes), workflow=real["metadata"]["name"]), t


@pytest.mark.skipif(not RECORDINGS.exists(), reason="the recordings of real runs are not here")
@pytest.mark.parametrize("case", SCENARIOS)
def test_a_scenario_makes_the_workflow_that_argo_made(case: str) -> None:
    (real,) = json.loads((RECORDINGS / case / "workflow.json").read_text())
    scenario, t = _made(case)
    ours = argo_documents.workflow(scenario, t)
    named, recorded = by_path(ours), by_path(real)
    assert set(named) == set(recorded)
    for path, node in recorded.items():
        mine = named[path]
        told = ("type", "phase", "templateName", "displayName")
        assert {key: mine.get(key) for key in told} == {key: node.get(key) for key in told}, path
        assert set(mine) == set(node), path
        assert mine.get("message") == node.get("message"), path
        assert shape(_unnamed(mine)) == shape(_unnamed(node)), path
        for key in ("children", "outboundNodes", "boundaryID"):
            assert _paths(ours, mine.get(key, [])) == _paths(real, node.get(key, [])), f"{path} {key}"
        assert mine.get("progress") == node.get("progress"), path
    assert shape({**ours["status"], "nodes": 0}) == shape({**real["status"], "nodes": 0})
    del ours["spec"], ours["status"], real["status"]
    assert shape(ours) == shape(real)
    assert ours["metadata"]["labels"].keys() == real["metadata"]["labels"].keys()


def _unnamed(node: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in node.items() if key not in ("children", "outboundNodes")}


def _paths(workflow: dict[str, Any], ids: list[str] | str) -> set[str]:
    nodes = workflow["status"]["nodes"]
    wanted = [ids] if isinstance(ids, str) else ids
    return {nodes[each]["name"].partition(".")[2] for each in wanted}


@pytest.mark.skipif(not RECORDINGS.exists(), reason="the recordings of real runs are not here")
@pytest.mark.parametrize("case", SCENARIOS)
def test_a_scenario_has_the_pods_that_the_cluster_had(case: str) -> None:
    real = {_node_name(pod): pod for pod in json.loads((RECORDINGS / case / "pods.json").read_text())}
    scenario, t = _made(case)
    ours = {_node_name(pod): pod for pod in argo_documents.pods(scenario, t)}
    assert set(ours) == set(real)
    for path, pod in real.items():
        mine = {key: value for key, value in ours[path].items() if key != "spec"}
        assert mine["status"]["phase"] == pod["status"]["phase"], path
        assert shape(mine) == shape(pod), path
        assert mine["metadata"]["labels"].keys() == pod["metadata"]["labels"].keys(), path
        assert _name_pattern(mine) == _name_pattern(pod), path
        assert _reasons(mine) == _reasons(pod), path


def _node_name(pod: dict[str, Any]) -> str:
    return str(pod["metadata"]["annotations"]["workflows.argoproj.io/node-name"]).partition(".")[2]


def _name_pattern(pod: dict[str, Any]) -> str:
    annotations = pod["metadata"]["annotations"]
    workflow, _, number = annotations["workflows.argoproj.io/node-id"].rpartition("-")
    return str(pod["metadata"]["name"]).replace(workflow, "WORKFLOW").replace(number, "NUMBER")


def _reasons(pod: dict[str, Any]) -> dict[str, Any]:
    containers = {each["name"]: each["state"] for each in pod["status"].get("containerStatuses", [])}
    said = {name: next(iter(state.values())).get("reason") for name, state in containers.items()}
    return said | {each["type"]: (each["status"], each.get("reason")) for each in pod["status"]["conditions"]}


@pytest.mark.skipif(not RECORDINGS.exists(), reason="the recordings of real runs are not here")
@pytest.mark.parametrize("case", SCENARIOS)
def test_a_scenario_is_the_run_that_the_api_server_showed(case: str) -> None:
    real = json.loads((RECORDINGS / case / "run.json").read_text())
    scenario, t = _made(case)
    posted: dict[str, Any] = {"experiment_id": "e", "run_id": "r", "display_name": "n", "storage_state": "AVAILABLE"}
    posted |= {"runtime_config": {"parameters": {}}, "service_account": "pipeline-runner"}
    ours = run_document(Run(posted, scenario, time.monotonic() - t, 1.0))
    assert (ours["state"], set(ours)) == (real["state"], set(real))
    told = [[_row(row) for row in run["run_details"]["task_details"]] for run in (ours, real)]
    assert sorted(told[0]) == sorted(told[1])
    assert (ours["finished_at"] == "1970-01-01T00:00:00Z") == (real["finished_at"] == "1970-01-01T00:00:00Z")


def _row(task: dict[str, Any]) -> str:
    ended = not task["end_time"].startswith("0001")
    keys = sorted(set(task) - {"state_history"})
    return f"{task.get('display_name')} {task.get('state')} {ended} {len(task.get('child_tasks', []))} {keys}"


def test_the_client_of_kubeflow_runs_lists_and_ends_runs(stand_in: StandIn, client: Any, package: str) -> None:
    assert client.get_kfp_healthz().multi_user is False
    stand_in.api.scenarios = [Scenario(tasks=grouped("all", all={"tries": (Try(seconds=NEVER),)}))]
    experiment = client.create_experiment("news")
    assert client.create_experiment("news").experiment_id == experiment.experiment_id
    first = client.run_pipeline(experiment.experiment_id, "one", package, params={"task": "news"})
    second = client.run_pipeline(experiment.experiment_id, "two", package)
    run = client.wait_for_run_completion(second.run_id, timeout=10, sleep_duration=0.05)
    assert (run.state, run.display_name) == ("SUCCEEDED", "two")
    rows = run.run_details.task_details
    assert {row.pod_name for row in rows} == {None}
    assert [row.display_name for row in rows].count("executor(0)") == 2
    assert client.get_run(first.run_id).state in ("PENDING", "RUNNING")
    client.terminate_run(first.run_id)
    assert client.wait_for_run_completion(first.run_id, timeout=10, sleep_duration=0.05).state == "FAILED"
    listed = client.list_runs(page_size=1, sort_by="created_at desc")
    assert (len(listed.runs), listed.total_size) == (1, 2)
    assert len(client.list_runs(page_token=listed.next_page_token, page_size=1).runs) == 1
    client.delete_run(first.run_id)
    assert client.list_runs().total_size == 1
    with pytest.raises(kfp_server_api.ApiException, match="404"):
        client.get_run(first.run_id)


def test_schedules_are_kept_listed_paused_and_fired(stand_in: StandIn, client: Any, package: str) -> None:
    experiment = client.create_experiment("news").experiment_id
    asked = {"cron_expression": "0 0 3 * * *", "pipeline_package_path": package, "no_catchup": True}
    made = client.create_recurring_run(experiment, "news-20261127-152641-2105", **asked)
    assert (made.status, made.mode, made.trigger.cron_schedule.cron) == ("ENABLED", "ENABLE", "0 0 3 * * *")
    (found,) = client.list_recurring_runs(experiment_id=experiment).recurring_runs
    assert (found.recurring_run_id, found.max_concurrency, found.no_catchup) == (made.recurring_run_id, "1", True)
    client.disable_recurring_run(made.recurring_run_id)
    assert client.get_recurring_run(made.recurring_run_id).status == "DISABLED"
    client.enable_recurring_run(made.recurring_run_id)
    stand_in.api.fire(made.recurring_run_id)
    (run,) = client.list_runs().runs
    assert run.recurring_run_id == made.recurring_run_id
    assert run.display_name.startswith("news-20261127-152641")
    client.delete_recurring_run(made.recurring_run_id)
    assert client.list_recurring_runs().recurring_runs is None
    with pytest.raises(kfp_server_api.ApiException, match="not supported"):
        client.create_recurring_run(experiment, "x", **{**asked, "cron_expression": "daily"})


def test_pipelines_have_versions_and_runs_refer_to_them(client: Any, package: str) -> None:
    made = client.upload_pipeline(package, "full", description="all steps")
    assert client.get_pipeline_id("full") == made.pipeline_id
    second = client.upload_pipeline_version(package, "0.2.0", pipeline_id=made.pipeline_id)
    versions = client.list_pipeline_versions(made.pipeline_id).pipeline_versions
    assert [each.display_name for each in versions] == ["full", "0.2.0"]
    with pytest.raises(kfp_server_api.ApiException, match="409"):
        client.upload_pipeline(package, "full")
    experiment = client.create_experiment("news").experiment_id
    ids = {"pipeline_id": made.pipeline_id, "version_id": second.pipeline_version_id}
    run = client.run_pipeline(experiment, "by version", params={"task": "news"}, **ids)
    assert client.wait_for_run_completion(run.run_id, timeout=10, sleep_duration=0.05).state == "SUCCEEDED"


def test_it_misbehaves_when_asked_to(stand_in: StandIn, client: Any, package: str) -> None:
    experiment = client.create_experiment("news").experiment_id
    run = client.run_pipeline(experiment, "one", package).run_id
    stand_in.breaks = GROUP_CONCAT
    with pytest.raises(kfp_server_api.ApiException) as failed:
        client.get_run(run)
    assert (failed.value.status, json.loads(failed.value.body)["code"]) == (500, 13)
    stand_in.breaks, stand_in.slow = "", 0.3
    began = time.monotonic()
    client.get_run(run)
    assert time.monotonic() - began >= 0.3
    stand_in.slow = 0.0
    stand_in.restart(0.3)
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"{stand_in.url}/apis/v2beta1/healthz", timeout=5)
    _until(lambda: stand_in.kubectl.forwards["ml-pipeline"] != 0)
    assert client.get_run(run).run_id == run


def _until(met: Callable[[], bool], patience: float = 5.0) -> None:
    end = time.monotonic() + patience
    while not met():
        assert time.monotonic() < end, "in vain"
        time.sleep(0.01)


def test_kubectl_shows_a_run_and_its_logs_as_they_come(stand_in: StandIn, kube: Kube) -> None:
    said = tuple((at, argo_documents.event_line("progress", "train", done=at)) for at in (0.0, 10.0, 20.0))
    limits = {"limits": {"memory": "64Mi"}, "requests": {"memory": "64Mi"}}
    task = Task(name="train", tries=(Try(seconds=30.0, outcome="oom", log=said),), resources=limits)
    run = stand_in.api.start(_posted(Scenario(tasks=(task,)), stand_in))
    selector = f"pipeline/runid={run.scenario.run_id}"
    _until(lambda: run.now() > run.scenario.node("root.train.executor(0)").begins + 3)
    found = kube.items("workflows.argoproj.io,pods", "-l", selector)
    assert [each["kind"] for each in found] == ["Workflow", "Pod", "Pod", "Pod"]
    pod = found[-1]
    assert pod["spec"]["containers"][0]["resources"] == limits
    lines = kube.run("logs", "-f", pod["metadata"]["name"], "-c", "main").splitlines()
    assert [json.loads(line)["done"] for line in lines if line.startswith("{")] == [0.0, 10.0, 20.0]
    (again,) = kube.items("pods", "-l", selector, "--field-selector", f"metadata.name={pod['metadata']['name']}")
    main = again["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (main["reason"], main["exitCode"]) == ("OOMKilled", 137)
    about = event(run, "root.train.executor(0)", "FailedScheduling", "0/1 nodes are available")
    stand_in.kubectl.objects.append(about)
    assert kube.items("events", "--field-selector", f"involvedObject.name={pod['metadata']['name']}") == [about]
    assert kube.items("nodes")[0]["status"]["allocatable"]["cpu"] == "2"


def _posted(scenario: Scenario, stand_in: StandIn) -> dict[str, Any]:
    stand_in.api.scenarios = [scenario]
    return {"display_name": scenario.name, "pipeline_spec": {"pipelineInfo": {"name": "full"}}}


@pytest.mark.parametrize(
    ("attempt", "phase", "message", "pods"),
    [
        (Try(outcome="evicted"), "Failed", "low on resource", 1),
        (Try(outcome="deleted"), "Error", "pod deleted", 0),
        (Try(outcome="lost"), "Error", "pod deleted", 0),
    ],
)
def test_a_pod_is_lost_and_tried_again(attempt: Try, phase: str, message: str, pods: int) -> None:
    scenario = Scenario(tasks=grouped("all", all={"tries": (attempt, Try())}))
    (first, second) = (scenario.node(f"root.all.executor({index})") for index in (0, 1))
    lost = by_path(argo_documents.workflow(scenario, first.ends))["root.all.executor(0)"]
    assert (lost["phase"], message in lost["message"]) == (phase, True)
    here = [_node_name(pod) for pod in argo_documents.pods(scenario, second.ends)]
    assert here.count("root.all.executor(0)") == pods
    assert by_path(argo_documents.workflow(scenario, scenario.ends))[""]["phase"] == "Succeeded"
    gone = replace(scenario, gone=5.0)
    assert argo_documents.pods(gone, gone.ends) != []
    assert (argo_documents.there(gone, gone.ends + 5), argo_documents.pods(gone, gone.ends + 5)) == (False, [])


def test_a_patch_ends_the_workflow_and_a_broken_network_is_said(stand_in: StandIn, kube: Kube) -> None:
    scenario = Scenario(tasks=grouped("all", all={"tries": (Try(seconds=NEVER),)}))
    run = stand_in.api.start(_posted(scenario, stand_in))
    kube.run("patch", "workflow", run.scenario.workflow, "--type=merge", "-p", '{"spec":{"shutdown":"Terminate"}}')
    _until(lambda: run.now() > run.scenario.ends)
    (workflow,) = kube.items("workflows", "-l", f"pipeline/runid={run.scenario.run_id}")
    assert workflow["status"]["phase"] == "Failed"
    stand_in.kubectl.fails = "Unable to connect to the server: dial tcp 10.0.0.1:6443: i/o timeout"
    with pytest.raises(Exception, match="kubectl"):
        kube.items("pods")


def test_the_api_is_reached_by_a_forwarded_port_that_ends_with_its_pod(stand_in: StandIn, kube: Kube) -> None:
    forward = subprocess.Popen(
        kube.command("port-forward", "service/ml-pipeline", ":8888"), stdout=subprocess.PIPE, text=True
    )
    assert forward.stdout is not None
    line = forward.stdout.readline()
    address = f"http://{line.split()[2]}"
    client = kfp.Client(host=address)
    assert client.get_kfp_healthz().multi_user is False
    stand_in.restart(0.5)
    with pytest.raises(Exception, match=r"."):
        kfp_server_api.HealthzServiceApi(client._run_api.api_client).healthz_service_get_healthz(_request_timeout=1)
    assert forward.wait(timeout=5) == 1
    assert kube.run("get", "nodes", "-o", "json")
