"""A compiled step as a pod, as Kubeflow starts it: the image's own user, S3 by a Secret; doctor on a real cluster."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from contracts import storage
from contracts.endpoints import Endpoints
from deploy.cli.cluster.cluster_settings import Cluster, Profile, SecretRef
from deploy.cli.cluster.port_forward import use_storage
from deploy.cli.cluster_runs.submit import compiled, placement
from pipelines.io.record import read_run, read_steps
from pipelines.parameters import parameters_of
from pipelines.resources import STEPS
from pipelines.run import Run
from pipelines.tasks import get_task, recipe_config
from pipelines.values import as_document
from tests.e2e.spaces import apply, kubectl, need_image, space
from tests.launcher import Launcher

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[2]
IMAGE = "ghcr.io/fairlead/pipelines:0.1.0"
RUN = "0b0e4a2c-0000-4000-8000-000000000001"  # Kubeflow's id of a run, as the label of its pods has it


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    with space("steps") as name:
        yield name


def step_pod(
    namespace: str,
    name: str,
    arguments: dict[str, Any],
    folder: Path,
    tasks: str = "each",
    run: str = "a-step",
    asked: Run | None = None,
    search: SecretRef | None = None,
    outputs: dict[str, dict[str, Any]] | None = None,
) -> Any:
    """The container of a compiled task with what the Kubernetes part of the IR says, which KFP's driver would add.

    search: Secret of the server with trials.  outputs: of tasks before it.
    """
    where = {name: f"s3://fairlead/{name}" for name in ("data", "artifacts", "features")}
    cluster = Cluster(namespace=namespace, image=IMAGE, redis=SecretRef(), search=search or SecretRef())
    profile = Profile(**where, tracking="http://fairlead-mlflow:5000", cluster=cluster)
    file = compiled(replace(placement(profile, asked), tasks=tasks), folder, asked.task if asked else "news")
    spec, platform = yaml.safe_load_all(file.read_text())
    launcher = Launcher(file, folder, {}, outputs=outputs or {})
    declared = launcher.spec["root"]["inputDefinitions"]["parameters"]
    given = {name: declared[name].get("defaultValue") for name in declared} | arguments
    document = launcher.executor_input(name, launcher.spec["root"]["dag"]["tasks"][name], given, Path("/tmp/step"))
    container = spec["deploymentSpec"]["executors"][f"exec-{name}"]["container"]
    kubernetes = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"][f"exec-{name}"]
    command = launcher.command(name, document)
    security = kubernetes["securityContext"]
    environment = [{"name": item["name"], "value": item["value"]} for item in container["env"]]
    for secret in kubernetes["secretAsEnv"]:
        for pair in secret["keyToEnv"]:
            reference = {"name": secret["secretName"], "key": pair["secretKey"]}
            environment.append({"name": pair["envVar"], "valueFrom": {"secretKeyRef": reference}})
    for item in kubernetes["fieldPathAsEnv"]:
        environment.append({"name": item["name"], "valueFrom": {"fieldRef": {"fieldPath": item["fieldPath"]}}})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"step-{name}",
            "labels": {**kubernetes["podMetadata"]["labels"], "pipeline/runid": run},
            "annotations": {"workflows.argoproj.io/node-name": f"full-abcde.root.{name}.executor(0)"},
        },
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "containers": [
                {
                    "name": "main",
                    "image": container["image"],
                    "command": command[:3],
                    "args": command[3:],
                    "env": environment,
                    "resources": {"limits": {"memory": container["resources"]["resourceMemoryLimit"]}},
                    "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                    "securityContext": {
                        "runAsUser": int(security["runAsUser"]),
                        "runAsNonRoot": security["runAsNonRoot"],
                        "readOnlyRootFilesystem": True,
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                }
            ],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        },
    }


def run_pod(namespace: str, pod: Any) -> tuple[str, list[dict[str, Any]]]:
    """Its phase at the end, and the events in its log."""
    name = pod["metadata"]["name"]
    pod["spec"]["containers"][0]["resources"]["requests"] = {"cpu": "100m", "memory": "256Mi"}
    apply(namespace, pod)
    where = ["-n", namespace]
    until, phase = time.monotonic() + 300, ""
    while phase not in ("Succeeded", "Failed") and time.monotonic() < until:
        time.sleep(0.5)
        phase = kubectl(*where, "get", "pod", name, "-o", "jsonpath={.status.phase}")
    log = kubectl(*where, "logs", name)
    kubectl(*where, "delete", "pod", name, "--now")
    return phase, [json.loads(line) for line in log.splitlines() if line.startswith('{"event"')]


WHERE = Endpoints(home="/tmp/fairlead", data="s3://fairlead/data", artifacts="s3://fairlead/bundles")


def arguments(code_version: str = "") -> dict[str, Any]:
    """Of a run whose steps may be of any code, if none is named: that of the image need not be the one here."""
    run = Run(task="news", config=as_document(recipe_config(get_task("news"))), endpoints=WHERE)
    given = parameters_of(run, each=True)
    context = json.loads(given["ingest_context"])
    return {**given, "ingest_context": json.dumps({**context, "code_version": code_version})}


def test_a_compiled_step_works_as_a_pod_with_s3(
    namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_image(IMAGE)
    phase, events = run_pod(namespace, step_pod(namespace, "ingest", arguments(), tmp_path))
    assert (phase, events[-1]["event"]) == ("Succeeded", "step_finished")
    result = events[-1]["result"]
    assert result["rows"] == 200
    reach_storage(namespace, monkeypatch)
    manifest = json.loads(storage.read_bytes(f"s3://fairlead/data/news/{result['version']}/manifest.json"))
    assert (manifest["rows"], manifest["task"]) == (200, "news")


def test_a_run_by_its_tasks_name_alone_is_one_pod_and_leaves_its_record(
    namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_image(IMAGE)
    asked = {"task": "news", "endpoints": WHERE.model_dump_json()}  # a registry of the pod's own: no MLflow here
    name = "prepare-train-judge"
    for status in ("finished", "cached"):  # of what the second pod need not do again
        phase, events = run_pod(namespace, step_pod(namespace, name, asked, tmp_path, tasks="few", run=RUN))
        assert phase == "Succeeded", events[-1]
        reach_storage(namespace, monkeypatch)
        steps = read_steps("s3://fairlead/data/.runs", RUN)
        assert {step: steps[step]["status"] for step in STEPS if STEPS[step].cached and step in steps} == dict.fromkeys(
            ("validate", "build_dataset", "train", "evaluate"), status
        )
        assert (steps["register"]["status"], steps["register"]["pod"]) == ("finished", f"step-{name}")
        assert steps["register"]["result"]["gate_passed"]
    left = read_run("s3://fairlead/data/.runs", RUN)
    assert left is not None
    assert (left["task"], left["workflow"], left["run_id"][-5:]) == ("news", "full", f"-{RUN[:4]}")


def reach_storage(namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 of the namespace for this process."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    use_storage(Cluster(namespace=namespace))


def test_an_image_of_another_commit_is_refused_by_the_first_step(namespace: str, tmp_path: Path) -> None:
    need_image(IMAGE)
    other = arguments(code_version="0123456789abcdef.00000000")
    phase, events = run_pod(namespace, step_pod(namespace, "ingest", other, tmp_path))
    assert (phase, events[-1]["event"]) == ("Failed", "step_failed")
    assert events[-1]["error"]["code"] == "other_code"


def doctor(profile: Path, *more: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "deploy.cli", "doctor", "--cluster", "--profile", str(profile), "--json", *more],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    return {check["check"]: check for check in json.loads(done.stdout)["checks"]}


def test_doctor_tries_network_policies_and_leaves_nothing(namespace: str, tmp_path: Path) -> None:
    profile = tmp_path / "profile.yaml"
    profile.write_text(yaml.safe_dump({"cluster": {"namespace": namespace}}))
    checks = doctor(profile, "--probe", IMAGE)
    assert {name for name, check in checks.items() if check["level"] == "fail"} == set()
    assert checks["network policies"]["found"] == "enforced, tried with two pods"
    assert checks["Pod Security"]["level"] == checks["permissions"]["level"] == checks["storage"]["level"] == "ok"
    left = json.loads(kubectl("-n", namespace, "get", "pods,networkpolicies", "-o", "json"))["items"]
    assert [x["metadata"]["name"] for x in left if "probe" in x["metadata"]["name"] and not _going(x)] == []


def _going(item: dict[str, Any]) -> bool:
    return "deletionTimestamp" in item["metadata"]


def test_doctor_says_what_an_account_may_not_do(
    namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubectl("-n", namespace, "create", "serviceaccount", "nobody")
    token = kubectl("-n", namespace, "create", "token", "nobody").strip()
    config = yaml.safe_load(kubectl("config", "view", "--raw", "--minify", "-o", "yaml"))
    config["users"][0]["user"] = {"token": token}
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(file))
    profile = tmp_path / "profile.yaml"
    profile.write_text(yaml.safe_dump({"cluster": {"namespace": namespace}}))
    checks = doctor(profile)
    assert checks["permissions"]["level"] == "fail"
    assert "deployments.apps" in checks["permissions"]["found"]
    assert checks["storage"]["level"] == "warn"
    assert "cannot look" in checks["storage"]["found"]
    assert "--set global.checkStorageClass=false" in checks["storage"]["fix"]
