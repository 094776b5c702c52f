"""A gate is checked before anything is read: it may name what the task's problem measures, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from contracts.errors import PlatformError
from pipelines.evaluation import get_evaluation
from pipelines.evaluation.base import Evaluation, MetricNames
from pipelines.settings import setting
from pipelines.task import problem_of

if TYPE_CHECKING:
    from pipelines.task import GateConfig, Task, TaskConfig, Threshold


def check_gate(task: Task, config: TaskConfig) -> None:
    """Refuse a gate that names a metric which is not measured, before anything is read or trained.

    What only the data tell, the values of slices and classes that are learned, is found by the gate itself.

    Raises:
        PlatformError: ``code="bad_config"``, with the metrics that are accepted, and the settings that name such.
    """
    evaluation = get_evaluation(problem_of(task))
    gate, names = config.gate, evaluation.metric_names(task, config)
    wrong = [rule.metric for rule in gate.thresholds if not names.has(rule.metric)]
    mended = _mended(gate, names)
    settings = [setting("gate.thresholds", _written(mended))] if wrong else []
    leave = ", or leave the rule out" if len(mended) < len(gate.thresholds) else ""
    where = "gate.thresholds"
    if not names.has(gate.primary):
        wrong, where = [gate.primary, *wrong], "gate.primary"
        settings.insert(0, setting("gate.primary", names.near(gate.primary) or evaluation.usual))
    if not wrong:
        return
    more = f"; nor {', '.join(map(repr, wrong[1:]))} of gate.thresholds" if wrong[1:] else ""
    raise PlatformError(
        f"{where} {wrong[0]!r} is not measured for task {task.name}{more}",
        detail=f"measured: {', '.join(names.accepted())}; and each of a slice, as slice:value:metric",
        fix=f"choose among these{leave}, such as: {' '.join(settings)}",
        code="bad_config",
    )


def usual_gate(task: Task, gate: GateConfig) -> GateConfig:
    """The gate with the metric that models of the task's problem are usually compared by."""
    return replace(gate, primary=get_evaluation(problem_of(task)).usual)


def _mended(gate: GateConfig, names: MetricNames) -> list[Threshold]:
    """The rules with the metric that was meant; those that mean none are left out."""
    rules = []
    for rule in gate.thresholds:
        if names.has(rule.metric):
            rules.append(rule)
        elif near := names.near(rule.metric):
            rules.append(replace(rule, metric=near))
    return rules


def _written(rules: Sequence[Threshold]) -> list[dict[str, object]]:
    """As `--set` takes them: without the side that is not given."""
    found = [json.loads(TypeAdapter(type(rule)).dump_json(rule)) for rule in rules]
    return [{key: value for key, value in rule.items() if value is not None} for rule in found]


def worth(evaluation: Evaluation, found: Mapping[str, float], metric: str) -> float:
    """A metric of what was measured, as a number that is higher the better the model.

    Raises:
        PlatformError: ``code="bad_config"``: it was not measured.
    """
    if metric not in found:
        raise PlatformError(
            f"gate.primary {metric!r} is not measured for this task",
            detail=f"measured: {', '.join(sorted(found))}",
            fix=f"choose one of these, such as: {setting('gate.primary', sorted(found)[0])}",
            code="bad_config",
        )
    return found[metric] if evaluation.higher_is_better(metric) else -found[metric]
