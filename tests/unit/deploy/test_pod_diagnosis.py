"""What ``fairlead diagnose`` says of pods that restart, that fit no node, and that ran out of memory."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from deploy.cli.cluster.kube import Kube
from deploy.cli.cluster.pod_diagnosis import pod_troubles
from tests.kubectl_stand_in import node

OURS = {"app.kubernetes.io/part-of": "fairlead"}
STEP = {"pipeline/runid": "r-1"}


class Cluster:
    """A kubectl that lists these pods and nodes, and has a log of now and one of before."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder / "bin"
        self.folder.mkdir()
        monkeypatch.setenv("PATH", f"{self.folder}:/usr/bin:/bin")

    def troubles(self, *pods: dict[str, Any], nodes: list[dict[str, Any]] | None = None) -> list[Any]:
        for name, items in (("pods", list(pods)), ("nodes", nodes or [])):
            (self.folder / f"{name}.json").write_text(json.dumps({"items": items}))
        cases = "\n".join(
            [
                '*" logs "*--previous*) echo "dial tcp ml-pipeline:8887: i/o timeout";;',
                '*" logs "*) echo starting;;',
                *(f'*" get {name} "*) cat {self.folder}/{name}.json;;' for name in ("pods", "nodes")),
                "*) ;;",
            ]
        )
        file = self.folder / "kubectl"
        file.write_text(f'#!/bin/sh\ncase "$*" in\n{cases}\nesac\n')
        file.chmod(0o755)
        return pod_troubles(Kube("ns"))


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(tmp_path, monkeypatch)


def runs(restarts: int, ago: timedelta, reason: str = "Error", code: int = 1, **labels: str) -> dict[str, Any]:
    """A pod whose container runs at this moment."""
    ended = {"reason": reason, "exitCode": code, "finishedAt": f"{datetime.now(UTC) - ago:%Y-%m-%dT%H:%M:%SZ}"}
    state = {"running": {"startedAt": "2026-01-02T03:04:05Z"}}
    status = {
        "name": "main",
        "ready": True,
        "restartCount": restarts,
        "state": state,
        "lastState": {"terminated": ended},
    }
    meta = {"name": "ml-pipeline-scheduledworkflow-7d9", "labels": labels or OURS}
    ready = {"type": "Ready", "status": "True"}
    return {
        "metadata": meta,
        "spec": {"containers": [{"name": "main"}]},
        "status": {"phase": "Running", "containerStatuses": [status], "conditions": [ready]},
    }


def test_a_part_that_ends_again_and_again_is_named_while_it_happens_to_run(cluster: Cluster) -> None:
    (trouble,) = cluster.troubles(runs(5, timedelta(seconds=20)))
    assert trouble.what == "pod/ml-pipeline-scheduledworkflow-7d9 (main)"
    assert trouble.state.startswith("restarted 5 times, last 2")
    assert trouble.state.endswith("s ago: Error, exit code 1")
    assert trouble.said == "dial tcp ml-pipeline:8887: i/o timeout"  # of before: its log of now says nothing
    (trouble,) = cluster.troubles(runs(5, timedelta(minutes=4)))
    assert "last 4 min ago" in trouble.state


def test_one_that_came_up_after_its_server_or_long_ago_is_not(cluster: Cluster) -> None:
    assert cluster.troubles(runs(2, timedelta(seconds=20))) == []
    assert cluster.troubles(runs(50, timedelta(minutes=11))) == []


def test_out_of_memory_is_named_at_the_first_time(cluster: Cluster) -> None:
    (trouble,) = cluster.troubles(runs(1, timedelta(minutes=3), "OOMKilled", 137))
    assert trouble.state == "restarted 1 time, last 3 min ago: OOMKilled, exit code 137"
    assert trouble.cause == "it used more memory than its limit"
    assert "resources.limits.memory" in trouble.fix


def test_a_step_that_ran_out_of_memory_is_cured_by_a_setting_of_its_run(cluster: Cluster) -> None:
    pod = runs(0, timedelta(minutes=1), "OOMKilled", 137, **STEP)
    status = pod["status"]["containerStatuses"][0]
    status["state"], status["lastState"], status["ready"] = status["lastState"], {}, False
    pod["status"]["phase"] = "Failed"
    (trouble,) = cluster.troubles(pod)
    assert (trouble.state, trouble.cause) == ("OOMKilled, exit code 137", "it used more memory than its limit")
    assert "resources.STEP.memory" in trouble.fix


def test_a_pod_that_fits_no_node_is_shown_with_the_numbers(cluster: Cluster) -> None:
    message = "0/2 nodes are available: 2 Insufficient cpu."
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    asked = {"requests": {"cpu": "4", "memory": "1Gi"}}
    waits = {
        "metadata": {"name": "step", "labels": STEP},
        "spec": {"containers": [{"name": "main", "resources": asked}]},
        "status": {"phase": "Pending", "conditions": [condition]},
    }
    busy = {
        "metadata": {"name": "other"},
        "spec": {"nodeName": "large", "containers": [{"name": "c", "resources": {"requests": {"cpu": "6500m"}}}]},
        "status": {"phase": "Running"},
    }
    (trouble,) = cluster.troubles(waits, busy, nodes=[node("small", cpu="2"), node("large", cpu="8")])
    assert trouble.state == "Unschedulable: asks for 4 cores; the freest node has 2 cores free, the largest 8 cores"
    assert trouble.cause == "no node has that much processor or memory left"
    assert trouble.said == message
    (trouble,) = cluster.troubles(waits, nodes=[])
    assert trouble.state.startswith("Unschedulable")
