"""Which metrics a gate may name, and what it compares by when it names none."""

from __future__ import annotations

import shlex
from types import SimpleNamespace
from typing import Any

import pytest

from contracts.errors import PlatformError
from contracts.problems import PROBLEMS
from pipelines.evaluation import get_evaluation
from pipelines.evaluation.classification import METRICS
from pipelines.evaluation.gate_metrics import worth
from pipelines.settings import parse_setting
from pipelines.task import TaskConfig, dump_config
from pipelines.tasks import get_task, load_config, recipe_config


def refused(task: Any, **gate: Any) -> PlatformError:
    with pytest.raises(PlatformError, match="is not measured") as caught:
        recipe_config(task, None, {f"gate.{key}": value for key, value in gate.items()})
    assert caught.value.code == "bad_config"
    return caught.value


@pytest.mark.parametrize(
    ("name", "gate"),
    [
        ("toy", {"primary": "acuracy"}),
        ("toy", {"primary": "f1:maybe"}),
        ("news", {"primary": "F1"}),
        ("news", {"thresholds": [{"metric": "beauty", "minimum": 0.1}, {"metric": "recal", "minimum": 0.2}]}),
        ("fraud", {"thresholds": [{"metric": "time:night:roc", "minimum": 0.5}, {"metric": "ece", "maximum": 0.1}]}),
        ("fraud", {"primary": "nothing", "thresholds": [{"metric": "latency_ms", "maximum": 5}]}),
    ],
)
def test_a_metric_that_is_not_measured_is_refused_before_anything_is_read_and_its_cure_holds(
    toy: Any, name: str, gate: dict[str, Any]
) -> None:
    task = get_task(name)
    error = refused(task, **gate)
    assert error.detail.startswith("measured: average_precision, roc_auc, ")
    words = shlex.split(error.fix.partition(": ")[2])
    assert words[::2] == ["--set"] * len(gate)
    recipe_config(task, None, dict(parse_setting(word) for word in words[1::2]))


def test_the_cure_names_the_metric_that_was_meant(toy: Any) -> None:
    assert "--set gate.primary=accuracy" in refused(toy, primary="acuracy").fix
    rules = [{"metric": "time:night:f1_score", "minimum": 0.1}, {"metric": "beauty", "maximum": 1.0}]
    error = refused(toy, thresholds=rules)
    assert error.headline == (
        "gate.thresholds 'time:night:f1_score' is not measured for task toy; nor 'beauty' of gate.thresholds"
    )
    _, word = shlex.split(error.fix.partition(": ")[2])
    assert parse_setting(word) == ("gate.thresholds", [{"metric": "time:night:f1", "minimum": 0.1}])


def task_of(problem: str) -> Any:
    """A task of a problem, whose recipe says nothing of a metric."""
    return SimpleNamespace(
        name="made",
        problem=problem,
        classes=None,
        recipes={"plain": TaskConfig(recipe="plain")},
        default_recipe="plain",
        inputs=lambda config: [],
        request=lambda config: [],
        columns=(),
    )


@pytest.mark.parametrize("problem", PROBLEMS.names())
def test_a_gate_compares_by_what_its_problem_measures_and_by_nothing_else(problem: str) -> None:
    task, evaluation = task_of(problem), get_evaluation(problem)
    config = recipe_config(task)
    assert config.gate.primary == evaluation.usual
    assert load_config(task, dump_config(config.training_part())).gate.primary == evaluation.usual
    foreign = next(
        other.usual
        for other in map(get_evaluation, PROBLEMS.names())
        if not evaluation.metric_names(task, config).has(other.usual)
    )
    key, cure = parse_setting(shlex.split(refused(task, primary=foreign).fix.partition("--set ")[2])[0])
    assert recipe_config(task, None, {key: cure}).gate.primary == cure
    assert refused(task, thresholds=[{"metric": foreign, "minimum": 0.1}]).headline.startswith("gate.thresholds")


@pytest.mark.parametrize("name", ["toy", "news", "fraud"])
@pytest.mark.parametrize("metric", [*METRICS, "kind:a:b:recall", "kind:box:rows", "kind:box:f1:yes", "f1:yes"])
def test_every_metric_of_the_set_may_be_named_whatever_the_number_of_classes(toy: Any, name: str, metric: str) -> None:
    task = get_task(name)
    if metric.endswith("f1:yes") and name == "fraud":
        refused(task, primary=metric)
    else:
        assert recipe_config(task, None, {"gate.primary": metric}).gate.primary == metric


@pytest.mark.parametrize("sides", [{}, {"minimum": 0.5, "maximum": 0.6}])
def test_a_rule_needs_exactly_one_side_before_anything_is_trained(toy: Any, sides: dict[str, float]) -> None:
    with pytest.raises(PlatformError, match="invalid configuration") as caught:
        recipe_config(toy, None, {"gate.thresholds": [{"metric": "roc_auc", **sides}]})
    assert "the rule for roc_auc needs either a minimum or a maximum" in caught.value.detail


def test_the_better_of_two_models_is_worth_more_whichever_way_its_metric_goes() -> None:
    evaluation = get_evaluation("regression")
    lower = next(name for name in ("mae", "rmse") if not evaluation.higher_is_better(name))
    assert worth(evaluation, {lower: 1.0}, lower) > worth(evaluation, {lower: 2.0}, lower)
    assert worth(evaluation, {"r2": 0.9}, "r2") > worth(evaluation, {"r2": 0.1}, "r2")
    with pytest.raises(PlatformError, match="r3"):
        worth(evaluation, {"r2": 0.9}, "r3")
