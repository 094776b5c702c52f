"""What the steps' Role grants for a training over several pods is what pipelines/training/distributed_job.py calls."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from contracts import storage
from contracts.errors import PlatformError
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
    return asked


def test_steps_may_make_every_call_of_a_distributed_training(used: set[Right]) -> None:
    assert {("batch", "jobs", "create"), ("networking.k8s.io", "networkpolicies", "delete")} <= used
    assert used <= granted(jobs=True)


def test_distributed_training_grants_no_right_that_it_does_not_use(used: set[Right]) -> None:
    assert granted(jobs=True) - granted(jobs=False) <= used
