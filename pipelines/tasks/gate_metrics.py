"""The metrics that a gate may name: one set for every classification, whatever the number of its classes."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from contracts.errors import PlatformError
from pipelines.tasks.settings import setting

if TYPE_CHECKING:
    from pipelines.tasks.base import GateConfig, Task, TaskConfig, Threshold

METRICS = (
    "average_precision", "roc_auc", "precision", "recall", "f1", "accuracy", "macro_f1", "cost", "brier", "log_loss",
    "ece",
)  # fmt: skip
RANKED = frozenset({"average_precision", "roc_auc"})  # from the order of scores: dear where classes are many
FEW = 30  # with more classes, a class has no metric of its own
_OF_CLASS = "f1:"
_OF_SLICE = "rows"  # is measured of slices alone


def check_gate(task: Task, config: TaskConfig) -> None:
    """Refuse a gate that names a metric which is not measured, before anything is read or trained.

    What only the data tell, the values of slices and classes that are learned, is found by the gate itself.

    Raises:
        PlatformError: ``code="bad_config"``, with the metrics that are accepted, and the settings that name such.
    """
    gate, classes = config.gate, task.classes
    wrong = [rule.metric for rule in gate.thresholds if not _is_measured(rule.metric, classes)]
    mended = _mended(gate, classes)
    settings = [setting("gate.thresholds", _written(mended))] if wrong else []
    leave = ", or leave the rule out" if len(mended) < len(gate.thresholds) else ""
    where = "gate.thresholds"
    if not _is_measured(gate.primary, classes):
        wrong, where = [gate.primary, *wrong], "gate.primary"
        settings.insert(0, setting("gate.primary", _near(gate.primary, classes) or "macro_f1"))
    if not wrong:
        return
    more = f"; nor {', '.join(map(repr, wrong[1:]))} of gate.thresholds" if wrong[1:] else ""
    raise PlatformError(
        f"{where} {wrong[0]!r} is not measured for task {task.name}{more}",
        detail=f"measured: {', '.join(_accepted(classes))}; and each of a slice, as slice:value:metric",
        fix=f"choose among these{leave}, such as: {' '.join(settings)}",
        code="bad_config",
    )


def _is_measured(metric: str, classes: Sequence[str] | None) -> bool:
    """Whether it may be measured; names of slices, their values and classes may have colons of their own."""
    if metric in METRICS or _is_of_class(metric, classes):
        return True
    parts = metric.split(":")
    ends = [":".join(parts[at:]) for at in range(2, len(parts))]
    return any(end in METRICS or end == _OF_SLICE or _is_of_class(end, classes) for end in ends)


def _is_of_class(metric: str, classes: Sequence[str] | None) -> bool:
    name = metric.removeprefix(_OF_CLASS)
    return name not in (metric, "") and (classes is None or (name in classes and len(classes) <= FEW))


def _accepted(classes: Sequence[str] | None) -> list[str]:
    if classes is None:
        return [*METRICS, f"{_OF_CLASS}CLASS"]
    return [*METRICS, *(f"{_OF_CLASS}{name}" for name in classes if len(classes) <= FEW)]


def _near(metric: str, classes: Sequence[str] | None) -> str:
    """The accepted metric that was most likely meant, of the same slice; "" without one."""
    known = [name for name in _accepted(classes) if name != f"{_OF_CLASS}CLASS"]
    slice_of, _, last = metric.rpartition(":")
    before, meant = (f"{slice_of}:", last) if ":" in slice_of else ("", metric)
    near = [*difflib.get_close_matches(meant, known, 1), *(name for name in known if meant.startswith(name))]
    return f"{before}{near[0]}" if near else ""


def _mended(gate: GateConfig, classes: Sequence[str] | None) -> list[Threshold]:
    """The rules with the metric that was meant; those that mean none are left out."""
    rules = []
    for rule in gate.thresholds:
        if _is_measured(rule.metric, classes):
            rules.append(rule)
        elif near := _near(rule.metric, classes):
            rules.append(replace(rule, metric=near))
    return rules


def _written(rules: Sequence[Threshold]) -> list[dict[str, object]]:
    """As `--set` takes them: without the side that is not given."""
    found = [json.loads(TypeAdapter(type(rule)).dump_json(rule)) for rule in rules]
    return [{key: value for key, value in rule.items() if value is not None} for rule in found]
