"""The space of a search, checked before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from contracts.errors import PlatformError
from pipelines.evaluation import get_evaluation
from pipelines.search.trial import SERVING, changed
from pipelines.search_space import Dimension, declared_space
from pipelines.settings import setting
from pipelines.task import Task, TaskConfig, dump_config, problem_of

# What the data are, what is judged by, and how chance falls: the same for all trials, or they could not be compared.
_SAME = ("recipe", "seed", "data", "split", "gate", "rollout", "loop", "search", "simulator", "layout", "labels")


def checked_space(task: Task, config: TaskConfig) -> dict[str, Dimension]:
    """The dimensions of a search, each wide enough for the recipe's own value.

    Raises:
        PlatformError: ``code="bad_config"``: no dimension, one with a single value, a key that is not there, a value
            that the configuration refuses, or a metric that is not measured.
    """
    declared = {key: _plain(one) for key, one in declared_space(config).dimensions.items()}
    document = json.loads(dump_config(config))
    if not declared:
        raise PlatformError(
            f"recipe {config.recipe} of task {task.name} declares nothing to search",
            detail="its space is empty",
            fix=f"give a space: {setting('search.space', {'model.KEY': {'low': 1, 'high': 9}})}, or another --recipe",
            code="bad_config",
        )
    found: dict[str, Dimension] = {}
    for key, one in declared.items():
        _check_key(task, config, key, one, document)
        found[key] = _with_own(key, one, key_value(document, key))
    for key, one in found.items():
        for other in one.when:
            _present(task, config, other, document, f"the condition of {key}")
        for value in one.choices or (one.low, one.high):
            changed(task, config, {key: value})
    if constant := [key for key, one in declared.items() if one.constant]:
        raise PlatformError(
            f"{constant[0]} has one value in the space, so there is nothing to search in it",
            detail=f"it is {declared[constant[0]].said()}",
            fix=f"give it a range, or set it: {setting(constant[0], _first(declared[constant[0]]))}",
            code="bad_config",
        )
    check_metrics(task, config)
    return found


def check_search(task: Task, config: TaskConfig) -> TaskConfig:
    """The configuration, refused when it asks for a search that cannot be made, see `checked_space`."""
    if config.search.trials:
        checked_space(task, config)
    return config


def check_metrics(task: Task, config: TaskConfig) -> None:
    """Refuse a metric or a limit that is not measured.

    Raises:
        PlatformError: ``code="bad_config"``, with what is accepted.
    """
    search = config.search
    names = get_evaluation(problem_of(task)).metric_names(task, config)
    for name in (*search.metrics, *search.at_most, *search.at_least):
        if name not in SERVING and not names.has(name):
            near = names.near(name)
            raise PlatformError(
                f"--metric {name!r} is not measured for task {task.name}",
                detail=f"measured: {', '.join([*names.accepted(), *SERVING])}",
                fix=f"choose among these, such as: --metric {near or get_evaluation(problem_of(task)).usual}",
                code="bad_config",
            )


def key_value(document: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key."""
    at: Any = document
    for part in key.split("."):
        at = at[part]
    return at


def _check_key(task: Task, config: TaskConfig, key: str, one: Dimension, document: Mapping[str, Any]) -> None:
    _present(task, config, key, document, "the space")
    if key.partition(".")[0] in _SAME:
        raise PlatformError(
            f"{key} cannot be searched: trials could not be compared",
            detail=f"the same for all trials: {', '.join(_SAME)}",
            fix="search keys of the model or of its training",
            code="bad_config",
        )
    if isinstance(key_value(document, key), dict):
        raise PlatformError(
            f"{key} is a section, not a value", fix="name a key of it in search.space", code="bad_config"
        )


def _present(task: Task, config: TaskConfig, key: str, document: Mapping[str, Any], where: str) -> None:
    try:
        key_value(document, key)
    except (KeyError, TypeError):
        raise PlatformError(
            f"{where} names {key!r}, which recipe {config.recipe} of task {task.name} does not have",
            detail=f"it has: {', '.join(_keys(document))}",
            fix="correct search.space",
            code="bad_config",
        ) from None


def _keys(document: Mapping[str, Any], before: str = "") -> Sequence[str]:
    found: list[str] = []
    for key, value in document.items():
        if before or key not in _SAME:
            found += _keys(value, f"{before}{key}.") if isinstance(value, dict) and value else [f"{before}{key}"]
    return found


def _with_own(key: str, one: Dimension, value: Any) -> Dimension:
    """The dimension, and in it the recipe's own value, which is the first that is tried."""
    if one.choices:
        known = [*one.choices]
        return one if value in known else replace(one, choices=(*known, value))
    assert one.low is not None
    assert one.high is not None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PlatformError(
            f"{key} is no number, so it has no range: {value!r}", fix="give choices in search.space", code="bad_config"
        )
    if one.log and value <= 0:
        raise PlatformError(
            f"{key} is {value!r}, which is not on a logarithmic scale",
            fix=f"begin with a value above 0: {setting(key, one.low)}",
            code="bad_config",
        )
    return replace(one, low=min(one.low, value), high=max(one.high, value))


def _plain(one: Dimension) -> Dimension:
    """Choices and conditions as a configuration in JSON has them."""
    choices, when = json.loads(json.dumps([one.choices, dict(one.when)]))
    return replace(one, choices=tuple(choices), when={key: tuple(values) for key, values in when.items()})


def _first(one: Dimension) -> Any:
    return one.choices[0] if one.choices else one.low
