"""What a search has found, as a document: what was tried, what mattered, the front, and what was chosen."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from pipelines.search import study as studies
from pipelines.search_space import Dimension
from pipelines.settings import setting

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

    from pipelines.task import Task, TaskConfig

_KEPT = 1000  # trials in the document, the last ones


def document(task: Task, config: TaskConfig, study: Study, seconds: float) -> dict[str, Any]:
    """The document ``search`` of a training.

    Returns:
        trials (number, state, settings, values, seconds, error), counts, importance by key, front (numbers), default
        and best (number, settings, values), with ``command``, the options of a run that trains the best again.

    Raises:
        PlatformError: ``code="search_failed"``: no trial has a value, or none keeps the limits.
    """
    search = config.search
    space = dict(search.space)
    every = studies.patiently(lambda: study.get_trials(), search.patience, "reading the trials")
    trials = [one for one in every if studies.counted([one])]
    complete = [one for one in trials if one.state.name == "COMPLETE"]
    if not complete:
        raise _nothing_works(trials)
    higher = [one.name == "MAXIMIZE" for one in study.directions]
    front = _front(complete, higher)
    best = chosen(front, higher, search.tolerance)
    if best is None:
        raise _beyond(search.at_most, search.at_least, complete)
    default = next((one for one in complete if _number(one) == 0), None)
    return {
        "study": study.study_name,
        "sampler": search.sampler,
        "storage": search.storage or "file",
        "workers": search.workers,
        "seconds": round(seconds, 2),
        "metrics": list(search.metrics),
        "higher": higher,
        "limits": {"at_most": dict(search.at_most), "at_least": dict(search.at_least)},
        "space": {key: one.said() for key, one in space.items()},
        "counts": _counts(every, trials),
        "trials": [_trial(one, search.metrics, space) for one in trials[-_KEPT:]],
        "importance": _importance(study, complete),
        "front": [_number(one) for one in front] if len(higher) > 1 else [],
        "default": None if default is None else {"valid": _values(default, search.metrics)},
        "best": {
            "number": _number(best),
            "settings": (found := _settings(best, space)),
            "valid": _values(best, search.metrics),
            "command": " ".join(setting(key, value) for key, value in found.items()),
        },
    }


def chosen(front: Sequence[FrozenTrial], higher: Sequence[bool], tolerance: float) -> FrozenTrial | None:
    """Of a front, the best of the first metric, or of those within `tolerance` of it the best of the second."""
    if not front:
        return None

    def worth(trial: FrozenTrial, at: int) -> float:
        return float(trial.values[at] if higher[at] else -trial.values[at])

    top = max(worth(one, 0) for one in front)
    near = [one for one in front if worth(one, 0) >= top - tolerance]
    second = min(1, len(higher) - 1) if tolerance else 0
    return max(near, key=lambda one: (worth(one, second), worth(one, 0), -one.number))


def _front(complete: Sequence[FrozenTrial], higher: Sequence[bool]) -> list[FrozenTrial]:
    """Those within the limits that no other is at least as good as in every metric, and better in one."""
    feasible = [one for one in complete if all(beyond <= 0 for beyond in one.constraints.values())]
    points = {one.number: [v if up else -v for v, up in zip(one.values, higher, strict=True)] for one in feasible}

    def beaten(mine: Sequence[float], other: Sequence[float]) -> bool:
        return all(b >= a for a, b in zip(mine, other, strict=True)) and any(
            b > a for a, b in zip(mine, other, strict=True)
        )

    return [one for one in feasible if not any(beaten(points[one.number], other) for other in points.values())]


def _number(trial: FrozenTrial) -> int:
    """Its number, or that of the trial that it is another try of."""
    from optuna.storages import RetryHeartbeatStaleTrialCallback

    before = RetryHeartbeatStaleTrialCallback.retried_trial_number(trial)
    return trial.number if before is None else before


def _trial(trial: FrozenTrial, metrics: Sequence[str], space: Mapping[str, Dimension]) -> dict[str, Any]:
    kinds = {"COMPLETE": "tried", "PRUNED": "ended early", "FAIL": "failed", "RUNNING": "elsewhere"}
    found: dict[str, Any] = {
        "number": _number(trial),
        "state": kinds[trial.state.name],
        "settings": _settings(trial, space),
        "values": _values(trial, metrics),
        "within": all(beyond <= 0 for beyond in trial.constraints.values()),
        "seconds": round(trial.duration.total_seconds(), 3) if trial.duration else None,
    }
    return found | ({"error": trial.user_attrs[studies.ERROR]} if studies.failed(trial) else {})


def _values(trial: FrozenTrial, metrics: Sequence[str]) -> dict[str, float]:
    if trial.state.name != "COMPLETE":
        return {}
    limited: Mapping[str, float] = trial.user_attrs.get("measured", {})
    return {**dict(zip(metrics, map(float, trial.values), strict=True)), **limited}


def _settings(trial: FrozenTrial, space: Mapping[str, Dimension]) -> dict[str, Any]:
    """The values as a configuration has them."""
    found = {}
    for key, value in trial.params.items():
        choices = {studies.stored(space[key], choice): choice for choice in space[key].choices}
        found[key] = choices.get(value, studies.shortened(value))
    return found


def _counts(every: Sequence[FrozenTrial], trials: Sequence[FrozenTrial]) -> dict[str, int]:
    states = [one.state.name for one in trials]
    return {
        "tried": states.count("COMPLETE"),
        "ended early": states.count("PRUNED"),
        "failed": states.count("FAIL"),
        "lost and repeated": sum(
            one.state.name == "FAIL" and not studies.failed(one) and studies.SPARE not in one.user_attrs
            for one in every
        ),
    }


def _importance(study: Study, complete: Sequence[FrozenTrial]) -> dict[str, float]:
    """How much of the variance of the first metric each key explains; {} where it cannot be said yet."""
    import optuna

    if len(complete) < 8:
        return {}
    sign = -1.0 if study.directions[0].name == "MAXIMIZE" else 1.0  # what makes a low target is looked for
    first = (lambda one: sign * one.values[0]) if len(study.directions) > 1 else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a reminder of the sign
            found = optuna.importance.get_param_importances(study, target=first)
    except (ValueError, RuntimeError):  # all values are the same, or keys that few trials have
        return {}
    return {key: round(float(value), 4) for key, value in found.items()}


def _nothing_works(trials: Sequence[FrozenTrial]) -> PlatformError:
    said = [str(one.user_attrs[studies.ERROR]) for one in trials if studies.failed(one)]
    ended = f"{len(said)} trials failed" if said else "no trial was done in the time that was given"
    return PlatformError(
        f"the search has found nothing: {ended}",
        detail=f"the first: {said[0]}" if said else "",
        fix="correct what the error names, or the space" if said else "give it more time: --time 10m",
        code="search_failed",
    )


def _beyond(
    at_most: Mapping[str, float], at_least: Mapping[str, float], complete: Sequence[FrozenTrial]
) -> PlatformError:
    limits = [f"{name} at most {limit:g}" for name, limit in at_most.items()]
    limits += [f"{name} at least {limit:g}" for name, limit in at_least.items()]
    nearest = min(complete, key=lambda one: sum(max(0.0, beyond) for beyond in one.constraints.values()))
    said = ", ".join(f"{name} {value:.4g}" for name, value in nearest.user_attrs["measured"].items())
    return PlatformError(
        f"none of {len(complete)} trials keeps the limits: {'; '.join(limits)}",
        detail=f"the nearest has {said}",
        fix="loosen search.at_most and search.at_least, or widen the space",
        code="search_failed",
    )
