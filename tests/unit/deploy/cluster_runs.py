"""Runs of the stand-in of Kubeflow whose steps print and leave what those of a real run do."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from contracts import storage
from pipelines.steps.calls import steps_of
from pipelines.tasks import get_task
from tests.argo import Scenario, Task, Try, grouped
from tests.argo_documents import event_line
from tests.kfp_run import Run
from tests.kfp_stand_in import StandIn

STEPS = steps_of(get_task("news"))
ASKED = {"task": "news", "steps": []}  # as of a run that left no record yet
MADE = {"name": "news", "version": "3", "path": "s3://lake/bundles/news/1", "gate_passed": True, "champion": True}
REFUSED = {**MADE, "gate_passed": False, "champion": False}
MISSING = {"code": "not_found", "headline": "not found: s3://b/x.csv", "detail": "", "fix": "check it", "context": {}}


def start(cluster: StandIn, scenario: Scenario) -> Run:
    cluster.api.scenarios = [scenario]
    given = {"task": "news", "run": "news-1", "config": json.dumps({"recipe": "linear"}), "nonce": "n"}
    spec = {"pipelineInfo": {"name": "full"}}
    body = {"display_name": "news-1", "pipeline_spec": spec, "runtime_config": {"parameters": given}}
    return cluster.api.start(body)


def said(*steps: str, at: float = 0.5, **results: Any) -> tuple[tuple[float, str], ...]:
    """The log of a pod that runs these steps one after the other."""
    lines = []
    for number, step in enumerate(steps):
        lines.append((at + number * 0.2, event_line("step_started", step)))
        progress = event_line("progress", step, done=1, total=2)
        done = event_line("step_finished", step, seconds=1.5, result=results.get(step, {}))
        lines += [(at + number * 0.2 + 0.05, progress), (at + number * 0.2 + 0.1, done)]
    return tuple(lines)


def everything(**results: Any) -> tuple[Task, ...]:
    """One task that runs all steps well."""
    log = said(*STEPS, **{"register": MADE, **results})
    return grouped("prepare-train-judge", **{"prepare-train-judge": {"tries": (Try(seconds=4.0, log=log),)}})


def leaves(step: str, status: str, **fields: Any) -> Callable[[Scenario], None]:
    """An action of a scenario: the step writes its record."""

    def write(scenario: Scenario) -> None:
        empty = {"started": "2026-01-02T03:04:05+00:00", "seconds": 1.0, "attempt": 1, "pod": "", "result": None}
        document = {
            "step": step,
            "status": status,
            **empty,
            "error": None,
            "memory_peak": None,
            "final": False,
            **fields,
        }
        place = f"s3://lake/data/.runs/{scenario.run_id}/{step}.json"
        storage.write_bytes(place, json.dumps(document).encode())

    return write
