"""``fairlead run`` on a cluster: what is submitted, how it is followed, and what is said when it fails."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from contracts.bundle import write_bundle
from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from deploy.cli.cluster import follow, submit
from deploy.cli.cluster.settings import Cluster, Profile, SecretRef, Storage
from tests.unit.deploy.kfp_server import Backend, kfp_backend, task

STEPS = ["ingest", "validate", "materialise", "build-dataset", "train", "evaluate", "gate", "register"]


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    monkeypatch.setattr(follow, "_POLL", 0.01)
    monkeypatch.setattr(follow.Follower.follow, "__defaults__", (0.01,))
    for name, value in (("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b"), ("AWS_ENDPOINT_URL", "http://x")):
        monkeypatch.setenv(name, value)
    with kfp_backend() as server:
        yield server


@pytest.fixture
def profile(backend: Backend, home: Path) -> str:
    places = {name: f"s3://lake/{name}" for name in ("data", "artifacts", "features", "predictions")}
    cluster = {"kfp": backend.url, "storage": {"endpoint": "http://127.0.0.1:9"}, "image": "registry/pipelines:1"}
    file = home.parent / "profile.yaml"
    document = {**places, "tracking": "http://127.0.0.1:1", "online": "redis://127.0.0.1:1/0", "cluster": cluster}
    file.write_text(yaml.safe_dump(document))
    return str(file)


@pytest.fixture
def bundle_folder(tmp_path: Path) -> Path:
    """A bundle as register leaves it."""
    source = tmp_path / "source"
    (source / "model").mkdir(parents=True)
    (source / "model" / "model.txt").write_text("tree")
    signature = {"inputs": [{"name": "title", "dtype": "string"}], "classes": ["a", "b"]}
    lineage = {"code_version": "c", "data_version": "d", "source": "s", "seed": 1, "created": "2026-01-01T00:00:00Z"}
    named = {"name": "news", "task": "news", "recipe": "linear", "modality": "text", "engine": "onnx"}
    gate = {"passed": True, "checks": [], "reasons": []}
    fields = {**named, "signature": signature, "gate": gate, "lineage": lineage, "metrics": {"accuracy": 0.8}}
    return write_bundle(source, tmp_path / "bundles", fields).path


def log(step: str, *events: dict[str, Any], **result: Any) -> str:
    made = [{"event": "step_started", "step": step}, *events]
    if result:
        made.append({"event": "step_finished", "step": step, "seconds": 1.5, "result": result})
    return "".join(f"[KFP Executor] noise\n{json.dumps(event)}\n" for event in made)


def details(*tasks: list[dict[str, Any]], state: str = "RUNNING", **more: Any) -> dict[str, Any]:
    return {"state": state, "run_details": {"task_details": [item for each in tasks for item in each]}, **more}


def test_a_run_is_compiled_submitted_and_followed_to_its_report(
    backend: Backend, profile: str, fairlead: Any, bundle_folder: Path, endpoints: Endpoints
) -> None:
    document = json.loads((bundle_folder / "bundle.json").read_text())
    result = {"name": "news", "version": "3", "path": str(bundle_folder), "gate_passed": True, "champion": True}
    backend.logs = {
        "pod-ingest": log("ingest", {"event": "progress", "step": "ingest", "done": 5, "total": 10}, version="v"),
        "pod-train": log("train", rounds=3),
        "pod-register": log("register", **result, tracking_url="#/runs/1"),
    }
    first = task("ingest", "RUNNING")
    done = [task(name, "SUCCEEDED", pod_state="SKIPPED") for name in STEPS if f"pod-{name}" not in backend.logs]
    ended = [task(name, "SUCCEEDED") for name in ("ingest", "train", "register")]
    backend.looks = [details(first), details(*done, *ended, state="SUCCEEDED")]
    said = fairlead("run", "news", "--profile", profile, "--train-gpus", "2", "--json")
    assert said.code == 0, said.err
    assert said.json["kfp_run"] == "r-1"
    assert said.json["steps"]["validate"]["status"] == "cached"
    assert said.json["steps"]["train"] == {"status": "finished", "seconds": 1.5}
    assert said.json["metrics"] == document["metrics"]
    assert fairlead("runs", said.json["run_id"], "--profile", "local", "--json").json["status"] == "succeeded"
    _check_submitted(backend.posted["runs"], said.json["run_id"])


def _check_submitted(run: dict[str, Any], run_id: str) -> None:
    assert (run["display_name"], run["service_account"]) == (run_id, "pipeline-runner")
    given = run["runtime_config"]["parameters"]
    where = Endpoints.model_validate_json(given["endpoints"])
    assert (where.home, where.data, where.tracking) == ("/tmp/fairlead", "s3://lake/data", "http://127.0.0.1:1")
    assert "/home" not in given["endpoints"]
    assert (given["run"], given["promote"], given["nonce"]) == (run_id, True, "")
    spec, platform = run["pipeline_spec"]["pipeline_spec"], run["pipeline_spec"]["platform_spec"]
    executors = spec["deploymentSpec"]["executors"]
    kubernetes = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert set(kubernetes) == set(executors)
    for name, executor in executors.items():
        container = executor["container"]
        assert container["image"] == "registry/pipelines:1"
        assert "pip install" not in " ".join(container["command"])
        environment = {item["name"]: item["value"] for item in container["env"]}
        assert environment["AWS_ENDPOINT_URL"] == "http://127.0.0.1:9"
        assert not {"AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"} & set(environment)
        assert environment["FAIRLEAD_RECORD"] == "s3://lake/data/.runs"
        assert Endpoints.model_validate_json(environment["FAIRLEAD_ENDPOINTS"]) == where
        fields = {item["name"]: item["fieldPath"] for item in kubernetes[name]["fieldPathAsEnv"]}
        assert fields == {
            "FAIRLEAD_KFP_RUN": "metadata.labels['pipeline/runid']",
            "FAIRLEAD_POD": "metadata.name",
            "FAIRLEAD_NODE": "metadata.annotations['workflows.argoproj.io/node-name']",
        }
        secrets = {e["envVar"] for item in kubernetes[name]["secretAsEnv"] for e in item["keyToEnv"]}
        assert secrets == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "FAIRLEAD_REDIS_PASSWORD"}
        assert kubernetes[name]["securityContext"]["runAsNonRoot"] is True
        assert kubernetes[name]["podMetadata"]["labels"]["fairlead.io/access-s3"] == "true"
    train = executors["exec-train"]["container"]["resources"]
    assert (train["accelerator"]["resourceType"], train["accelerator"]["resourceCount"]) == ("nvidia.com/gpu", "2")
    assert train["resourceMemoryLimit"] == train["resourceMemoryRequest"] == "2Gi"
    assert kubernetes["exec-train"]["emptyDirMounts"][0]["mountPath"] == "/dev/shm"
    assert "accelerator" not in executors["exec-prepare"]["container"]["resources"]


def test_what_a_failed_step_said_is_the_error_of_the_run(backend: Backend, profile: str, fairlead: Any) -> None:
    error = {"code": "bad_schema", "headline": "no column 'title'", "detail": "", "fix": "--set ...", "context": {}}
    backend.logs = {"pod-ingest": log("ingest", {"event": "step_failed", "step": "ingest", "error": error})}
    backend.looks = [details(task("ingest", "FAILED"), state="FAILED")]
    said = fairlead("run", "news", "--profile", profile, "--json")
    assert (said.code, said.json["error"]["headline"]) == (1, "no column 'title'")
    assert said.json["error"]["context"]["run"].startswith("news-")


def test_a_failed_run_is_started_anew_by_pasting_its_cure_and_is_never_resumed(
    backend: Backend, profile: str, fairlead: Any
) -> None:
    fix = "say which one it is: --set 'data.columns.title=The title'"
    error = {"code": "bad_schema", "headline": "no column 'title'", "detail": "", "fix": fix, "context": {}}
    backend.logs = {"pod-ingest": log("ingest", {"event": "step_failed", "step": "ingest", "error": error})}
    backend.looks = [details(task("ingest", "FAILED"), state="FAILED")]
    typed = ("run", "news", "--set", "data.drop=[a b]", "--train-gpus", "1", "--profile", profile, "--json")
    failed = fairlead(*typed).json["error"]
    command = failed["fix"].removeprefix("say which one it is: ")
    again = f"fairlead run news --recipe linear --set 'data.drop=[a b]' --profile {profile}"
    assert command == f"{again} --train-gpus 1 --set 'data.columns.title=The title'"
    resumed = fairlead("run", "--resume", failed["context"]["run"], "--set", "seed=5", "--profile", profile, "--json")
    error = resumed.json["error"]
    assert error["code"] == "not_resumed"
    assert error["fix"] == again.replace(" --set", " --set seed=5 --set", 1)
    listed = fairlead("runs", "--profile", profile, "--json").json[0]["error"]["fix"]
    assert listed == f"say which one it is: {again} --set 'data.columns.title=The title'"
    assert fairlead(*shlex.split(command)[1:]).code == 1
    config = json.loads(backend.posted["runs"]["runtime_config"]["parameters"]["config"])
    assert config["data"]["drop"] == ["a b"]
    assert config["data"]["columns"] == {"title": "The title"}


def test_a_step_that_died_without_a_word_is_shown_with_its_log_and_likely_cause(
    backend: Backend, profile: str, fairlead: Any
) -> None:
    backend.logs = {"pod-ingest": log("ingest") + "loading a large table\n"}
    failed = task("ingest", "FAILED")
    failed[1]["error"] = {"message": "OOMKilled (exit code 137)"}
    backend.looks = [details(failed, state="FAILED")]
    error = fairlead("run", "news", "--profile", profile, "--json").json["error"]
    assert error["headline"] == "step ingest ended without a word: it used more memory than its limit"
    assert "loading a large table" in error["detail"]


def test_steps_are_shown_as_those_of_a_local_run(backend: Backend, profile: str, fairlead: Any) -> None:
    backend.logs = {"pod-ingest": log("ingest", version="v")}
    cancelled = {"state": "CANCELED", "error": {"message": "by hand"}}
    backend.looks = [details(task("ingest", "SUCCEEDED")), details(task("ingest", "SUCCEEDED"), **cancelled)]
    said = fairlead("run", "news", "--profile", profile)
    assert "ok ingest" in said.out
    assert "cancelled" in said.err


def test_training_on_several_pods_is_an_order_to_the_step(backend: Backend, profile: str, fairlead: Any) -> None:
    from pipelines.training.pods import Spread

    fairlead("run", "news", "--profile", profile, "--cron", "0 3 * * *", "--train-nodes", "2", "--train-gpus", "4")
    order = Spread.model_validate_json(backend.posted["recurringruns"]["runtime_config"]["parameters"]["spread"])
    assert (order.nodes, order.processes, order.gpus, order.image) == (2, 4, 4, "registry/pipelines:1")
    assert order.place == "s3://lake/data/.spread"
    assert order.secrets["AWS_ACCESS_KEY_ID"] == ("fairlead-s3", "access-key")


def test_a_run_that_no_node_can_take_is_refused_before_it_is_submitted(
    backend: Backend, profile: str, fairlead: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = {"allocatable": {"cpu": "2", "memory": "7800Mi", "pods": "110"}}
    node = {"metadata": {"name": "n1"}, "spec": {}, "status": status}
    (tmp_path / "nodes.json").write_text(json.dumps({"items": [node]}))
    program = tmp_path / "bin" / "kubectl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\ncase "$*" in *" nodes "*) cat {tmp_path}/nodes.json;; *) echo {{}};; esac\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    asked = ["--cron", "0 3 * * *", "--set", "resources.train.memory=16Gi"]
    said = fairlead("run", "news", "--profile", profile, *asked, "--json")
    assert (said.code, said.json["error"]["code"]) == (1, "does_not_fit")
    assert said.json["error"]["detail"] == "train asks for 16Gi; the largest node has 7.6Gi"
    assert backend.posted == {}
    said = fairlead("run", "news", "--profile", profile, *asked[:3], "resources.train.memory=7Gi", "--json")
    assert said.code == 0, said.err


def test_what_kubeflow_refuses_is_said(backend: Backend, profile: str, fairlead: Any) -> None:
    backend.refuses = "Invalid input error: unknown image"
    said = fairlead("run", "news", "--profile", profile, "--json")
    assert (said.code, said.json["error"]["code"]) == (1, "kfp")
    assert "unknown image" in said.json["error"]["detail"]


def test_kubeflow_that_does_not_answer_is_named_at_once() -> None:
    with pytest.raises(PlatformError, match="Kubeflow Pipelines does not answer"):
        submit.connect(Cluster(kfp="http://127.0.0.1:9"))


@pytest.mark.parametrize(("name", "value"), [("data", "/here"), ("tracking", "sqlite:///x.db"), ("artifacts", "")])
def test_an_address_that_pods_do_not_share_is_refused(name: str, value: str) -> None:
    places = {key: f"s3://lake/{key}" for key in ("data", "artifacts", "features")}
    given = {**places, "tracking": "http://mlflow:5000", name: value}
    storage = Storage(endpoint="", secret=SecretRef())
    with pytest.raises(PlatformError, match=f"{name} must be an address that pods share"):
        submit.pod_endpoints(Profile(cluster=Cluster(storage=storage), **given))


def test_a_local_file_is_uploaded_once_below_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("a\n1\n")
    data = str(tmp_path / "data")
    target = submit.upload_source(str(file), data)
    assert Path(target).read_text() == "a\n1\n"
    monkeypatch.setattr(submit.objects, "write_bytes", lambda *_: pytest.fail("uploaded again"))
    assert submit.upload_source(str(file), data) == target
    assert submit.upload_source("s3://b/rows.csv", data) == "s3://b/rows.csv"


def test_options_of_a_cluster_are_refused_on_this_machine(fairlead: Any) -> None:
    said = fairlead("run", "news", "--cron", "0 3 * * *", "--json")
    assert (said.code, said.json["error"]["code"]) == (1, "no_cluster")
