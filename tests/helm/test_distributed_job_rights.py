"""What the steps' Role grants for pods beside their own is what a distributed training and a data engine call."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from contracts import storage
from contracts.errors import PlatformError
from pipelines.data_engines import pods_engine, ray_job_engine
from pipelines.io.pods import PodSettings
from pipelines.training import distributed_job, pods
from tests.helm.chart import named, render

Right = tuple[str, str, str]


def granted(**steps: bool) -> set[Right]:
    """(API group, resource, verb) that steps have."""
    rules = named(render("platform", {"pipelines": {"steps": steps}}), "Role", "pipeline-runner")["rules"]
    return {(group, what, verb) for rule in rules
            for group in rule["apiGroups"] for what in rule["resources"] for verb in rule["verbs"]}  # fmt: skip


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> set[Right]:
    """What a training by a Job and one by a TrainJob ask for, which both fail, so that logs are read too."""
    asked: set[Right] = set()
    failed = SimpleNamespace(status=SimpleNamespace(phase="Failed"), metadata=SimpleNamespace(name="p"))
    core = SimpleNamespace(
        list_namespaced_pod=lambda *_, **__: asked.add(("", "pods", "list")) or SimpleNamespace(items=[failed]),
        read_namespaced_pod_log=lambda *_, **__: asked.add(("", "pods/log", "get")) or "it said this",
    )

    class Kube(distributed_job._Kube):
        operator = False

        def __init__(self, namespace: str) -> None:
            self.namespace, self._client = namespace, SimpleNamespace(CoreV1Api=lambda _: core)
            self._api = None

        def has_group(self, group: str) -> bool:
            return self.operator

        def _call(self, method: str, path: str, body: Any) -> Any:
            if path.startswith("/openapi/"):  # every identity may read it
                return {}
            if "/pods/" in path:
                asked.add(("", "pods", "get"))
                return {"metadata": {"name": "step", "uid": "u"}}
            root, _, rest = path.partition("/namespaces/spaces/")
            group = "" if root == "/api/v1" else root.split("/")[2]
            asked.add((group, rest.split("/")[0], {"POST": "create"}.get(method, method.lower())))
            return {"status": {"conditions": [{"type": "Failed", "status": "True", "message": "no"}]}}

    monkeypatch.setattr(distributed_job, "_Kube", Kube)
    for name in ("upload", "write_bytes", "download"):
        monkeypatch.setattr(storage, name, lambda *_, **__: None)
    order = pods.DistributedJob(image="i", namespace="spaces", place="s3://lake/jobs")
    for by_operator in (False, True):
        Kube.operator = by_operator
        with pytest.raises(PlatformError, match="the distributed training failed"):
            distributed_job.train_by_job(order, "news", "{}", Path("data"), Path("out"), lambda *_, **__: None)
    worker = PodSettings(image="i", namespace="spaces")
    monkeypatch.setattr(pods_engine._Kube, "__init__", Kube.__init__)
    monkeypatch.setattr(pods_engine._Kube, "_call", Kube._call)
    monkeypatch.setenv("FAIRLEAD_POD", "step")
    workers = pods_engine.Pods(worker, "data-1", 2, "2Gi")
    workers.make("s3://lake/head.json")
    assert workers.told()
    workers.delete()
    ray_job = ray_job_engine.RayJobPods(worker, "data-2", 2, "2Gi")
    ray_job.make("s3://lake/step.json")
    assert ray_job.told()
    ray_job.delete()
    return asked


def test_steps_may_make_every_call_of_a_distributed_training_and_of_a_data_engine(used: set[Right]) -> None:
    assert {("batch", "jobs", "create"), ("networking.k8s.io", "networkpolicies", "delete")} <= used
    assert used <= granted(jobs=True, rayJobs=True)
    assert {right for right in used if right[0] == "ray.io"}.isdisjoint(granted(jobs=True))


def test_no_right_is_granted_that_is_not_used(used: set[Right]) -> None:
    assert granted(jobs=True, rayJobs=True) - granted(jobs=False) <= used
