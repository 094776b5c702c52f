"""Metrics of pipelines' runs, from their records: the latest of each task, and since when its models are trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from contracts import metric_names as names
from services.controller.observations import ENDED

_FAILED = ("failed", "dead", "ended")
_WITH_MODEL = ("full", "training")
_TEXTS = {
    names.RUN_LAST: "When the latest run that ended so did.",
    names.RUN_SECONDS: "Duration of the latest run that ended.",
    names.STEP_SECONDS: "Duration of a step in the latest run that ended; one from the cache took none.",
    names.RUN_ROWS: "Rows that a step of the latest run that ended gave on.",
    names.RUN_FAILURES: "Failed runs since the last that did not fail.",
    names.MODEL_TRAINED: "When the champion was made.",
}


class RunMetrics(Collector):
    """What `put` was told last, as metrics."""

    def __init__(self) -> None:
        self._samples: tuple[tuple[str, tuple[str, ...], float], ...] = ()

    def put(self, records: Sequence[Mapping[str, Any]], trained: Mapping[str, datetime]) -> None:
        """Take the records of runs, in any order, and when each model's champion was made."""
        ended = [
            each
            for each in records
            if each.get("status") in ENDED and each.get("workflow") in _WITH_MODEL and each.get("started")
        ]
        by_task: dict[str, list[Mapping[str, Any]]] = {}
        for record in sorted(ended, key=lambda each: str(each.get("started") or "")):
            by_task.setdefault(str(record.get("task") or ""), []).append(record)
        made = [sample for task, runs in by_task.items() for sample in _samples(task, runs)]
        made += [(names.MODEL_TRAINED, (model,), moment.timestamp()) for model, moment in trained.items()]
        self._samples = tuple(made)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The families that Prometheus reads."""
        for name, labels in names.RUN_LABELS.items():
            family = GaugeMetricFamily(name, _TEXTS[name], labels=labels)
            for of, values, value in self._samples:
                if of == name:
                    family.add_metric(values, value)
            yield family


def _samples(task: str, runs: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, tuple[str, ...], float]]:
    """The samples of one task's runs, oldest first."""
    outcomes = {"failed" if run["status"] in _FAILED else str(run["status"]): _ended(run) for run in runs}
    for outcome, at in outcomes.items():
        yield names.RUN_LAST, (task, outcome), at
    failures = next((n for n, run in enumerate(reversed(runs)) if run["status"] not in _FAILED), len(runs))
    yield names.RUN_FAILURES, (task,), float(failures)
    latest = runs[-1]
    if isinstance(latest.get("seconds"), int | float):
        yield names.RUN_SECONDS, (task,), float(latest["seconds"])
    for step, about in (latest.get("steps") or {}).items():
        if isinstance(about.get("seconds"), int | float):
            yield names.STEP_SECONDS, (task, step), float(about["seconds"])
        if (rows := _rows(about.get("result"))) is not None:
            yield names.RUN_ROWS, (task, step), rows


def _ended(run: Mapping[str, Any]) -> float:
    """When a run ended; of one whose process went without a word, when it began."""
    return datetime.fromisoformat(str(run.get("finished") or run["started"])).timestamp()


def _rows(result: Any) -> float | None:
    """The rows that a step gave on: those that are good, or of all parts of a data set."""
    found = result.get("good", result.get("rows")) if isinstance(result, Mapping) else None
    if isinstance(found, Mapping):
        found = sum(part for part in found.values() if isinstance(part, int))
    return float(found) if isinstance(found, int | float) else None
