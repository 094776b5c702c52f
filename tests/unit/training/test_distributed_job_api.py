"""A training over several nodes as the Kubernetes API sees it: what is asked, created, waited for and deleted."""

from __future__ import annotations

import http.server
import json
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from contracts.errors import PlatformError
from pipelines.training.distributed_job import train_by_job
from pipelines.training.pods import DistributedJob
from tests.unit.training.known import train_job_schema, wrong

NEW = {"2.0": ("podSpecOverrides", "labels"), "2.1": ("podTemplateOverrides",)}
NEW["2.2"] = ("runtimePatches", "activeDeadlineSeconds")


class Api(http.server.ThreadingHTTPServer):
    """The calls of the API that a training makes. release: of Kubeflow Trainer, "" where it is not installed."""

    def __init__(self, place: Path, release: str, ends: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.place, self.release, self.ends = place, release, ends
        self.created: dict[str, dict[str, Any]] = {}
        self.deleted: list[str] = []

    def answer(self, method: str, path: str, query: str, body: Any) -> tuple[int, Any]:
        if path == "/apis/":
            names = ["batch", *(["trainer.kubeflow.org"] if self.release else [])]
            versions = {name: {"groupVersion": f"{name}/v1", "version": "v1"} for name in names}
            groups = [{"name": n, "versions": [v], "preferredVersion": v} for n, v in versions.items()]
            return 200, {"kind": "APIGroupList", "groups": groups}
        if path == "/openapi/v3/apis/trainer.kubeflow.org/v1alpha1":
            spec = {"properties": dict.fromkeys(("runtimeRef", "trainer", *NEW[self.release]))}
            schema = {"properties": {"spec": spec}}
            return 200, {"components": {"schemas": {"org.kubeflow.trainer.v1alpha1.TrainJob": schema}}}
        if method == "POST":
            return self._create(body)
        if method == "DELETE":
            self.deleted.append(path.split("/")[-2])
            return 200, {}
        if path.endswith("/pods/step-pod"):
            return 200, {"spec": {"imagePullSecrets": [{"name": "registry"}], "nodeSelector": {"pool": "steps"}}}
        if path.endswith("/pods"):
            pod = {"metadata": {"name": "p-0"}, "spec": {"containers": []}, "status": {"phase": "Failed"}}
            label = "jobset.sigs.k8s.io/jobset-name" if "TrainJob" in self.created else "job-name"
            found = urllib.parse.parse_qs(query)["labelSelector"][0].partition("=")[0] == label
            return 200, {"kind": "PodList", "items": [pod] if found else []}
        if path.endswith("/log"):
            return 200, "the last words"
        return 200, {"status": {"conditions": [{"type": self.ends, "status": "True", "message": "so it ended"}]}}

    def _create(self, document: dict[str, Any]) -> tuple[int, Any]:
        if self.ends == "refused" and document["kind"] in ("TrainJob", "Job"):
            return 422, {"kind": "Status", "message": "spec.trainer is invalid"}
        self.created[document["kind"]] = document
        if document["kind"] in ("TrainJob", "Job") and self.ends == "Complete":
            out = self.place / document["metadata"]["name"] / "out"
            out.mkdir()
            (out / "train.json").write_text("{}")
        return 201, document


class Handler(http.server.BaseHTTPRequestHandler):
    def _answer(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size)) if size else None
        assert isinstance(self.server, Api)
        path, _, query = self.path.partition("?")
        status, answer = self.server.answer(self.command, path, query, body)
        text = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if isinstance(answer, str) else "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Trains against an API; returns it."""
    servers: list[Api] = []
    monkeypatch.setattr("pipelines.training.distributed_job._POLL", 0.01)

    def train(release: str, ends: str = "Complete", **changes: Any) -> Api:
        api = Api(tmp_path / "place", release, ends)
        servers.append(api)
        threading.Thread(target=api.serve_forever, args=(0.02,), daemon=True).start()
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{api.server_port}"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "users": [{"name": "u", "user": {}}],
        }
        (tmp_path / "config").write_text(yaml.safe_dump(config))
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "config"))
        data = tmp_path / "dataset"
        data.mkdir(exist_ok=True)
        (data / "dataset.json").write_text("{}")
        given = {"image": "i", "namespace": "spaces", "place": str(tmp_path / "place"), "gpus": 1, **changes}
        try:
            train_by_job(DistributedJob(**given), "news", "{}", data, tmp_path / "out", lambda *_, **__: None)
        except PlatformError as err:
            api.error = err  # type: ignore[attr-defined]
        return api

    yield train
    for server in servers:
        server.shutdown()


@pytest.mark.parametrize("release", NEW)
def test_where_the_trainer_is_installed_it_gets_a_train_job_of_its_release(release: str, trained: Any) -> None:
    api = trained(release)
    assert set(api.created) == {"NetworkPolicy", "TrainJob"}
    errors = Draft202012Validator(train_job_schema(release)).iter_errors(api.created["TrainJob"])
    assert [error.message for error in errors] == []
    assert sorted(api.deleted) == ["networkpolicies", "trainjobs"]


def test_without_it_a_job_is_made_as_the_pod_of_the_step_is_placed(
    trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIRLEAD_POD", "step-pod")
    api = trained("", node_selector={"gpu": "a100"})
    assert set(api.created) == {"Service", "NetworkPolicy", "Job"}
    pod = api.created["Job"]["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"pool": "steps", "gpu": "a100"}
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert [error for kind, made in api.created.items() for error in wrong(made, f"V1{kind}")] == []
    assert sorted(api.deleted) == ["jobs", "networkpolicies", "services"]


def test_a_priority_is_given_by_a_job_for_a_train_job_has_none(trained: Any) -> None:
    api = trained("2.2", priority_class="high")
    assert api.created["Job"]["spec"]["template"]["spec"]["priorityClassName"] == "high"
    assert "TrainJob" not in api.created


@pytest.mark.parametrize("release", ["", "2.2"])
def test_what_the_failed_pod_said_is_in_the_error(release: str, trained: Any) -> None:
    error = trained(release, ends="Failed").error
    assert error.code == "distributed_job_failed"
    assert "so it ended" in error.detail
    assert "the last words" in error.detail


def test_what_the_api_refuses_is_said_and_nothing_is_left(trained: Any) -> None:
    api = trained("2.2", ends="refused")
    assert api.error.code == "distributed_job_refused"
    assert "spec.trainer is invalid" in api.error.detail
    assert sorted(api.deleted) == ["networkpolicies", "trainjobs"]
