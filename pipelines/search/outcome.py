"""The one look at the test rows: what the search brings there, beside what it seemed to bring on validation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from contracts.engines import load_engine
from pipelines.data.seen import row_hashes
from pipelines.evaluation import get_evaluation, scoring, search_plots
from pipelines.evaluation.measures import finite, paired_bootstrap
from pipelines.io.files import read_json
from pipelines.search.run_search import DEFAULT
from pipelines.search.trial import SERVING, changed, measure_of
from pipelines.task import problem_of

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.task import Task, TaskConfig

_SEED = 0
_LITTLE = 0.005  # of the default's value: less is little, however sure


def judged(
    search: Mapping[str, Any],
    task: Task,
    config: TaskConfig,
    trained: Path,
    frame: pd.DataFrame,
    given: tuple[Any, Any, Any, Any],
    plots: Path,
) -> dict[str, Any]:
    """The document of a search with what the test rows say, drawn to `plots`.

    Args:
        trained: folder of the training, with what the recipe gives by itself.  given: rows, answers, output and
            decision of the searched model.
    """
    result: dict[str, Any] = {**search, "default": {**(search["default"] or {"valid": {}})}, "best": {**search["best"]}}
    names = tuple(name for name in search["metrics"] if name not in SERVING)
    if names:
        _measure(result, names, task, config, trained, frame, given)
    search_plots.draw(plots, result)
    return result


def _measure(
    result: dict[str, Any],
    names: tuple[str, ...],
    task: Task,
    config: TaskConfig,
    trained: Path,
    frame: pd.DataFrame,
    given: tuple[Any, Any, Any, Any],
) -> None:
    rows, answers, output, decision = given
    mine = get_evaluation(problem_of(task)).measure_for(rows, answers, output, decision, names)
    result["best"]["test"] = best = _only(mine(None), names)
    folder, first = trained / DEFAULT, names[0]
    if not folder.exists():  # nothing was better on the validation rows
        result["default"]["test"] = best
        result["gain"] = {"metric": first, "valid": 0.0, "test": 0.0, "interval": None}
        result["verdict"] = "nothing that was tried is better than the recipe as it is"
        return
    own = changed(task, config, {})
    bundle = scoring.provisional(folder, scoring.fields_of(task, own, read_json(folder / "train.json")))
    engine = load_engine(bundle, threads=1)
    columns = scoring.columns_of(frame, bundle.document.signature.inputs)
    theirs = measure_of(task, bundle, engine, frame, columns, names)
    assert theirs is not None
    result["default"]["test"] = default = _only(theirs(None), names)
    sign = 1.0 if get_evaluation(problem_of(task)).higher_is_better(first) else -1.0
    _, groups = np.unique(row_hashes(frame["row_key"]), return_inverse=True)
    interval = paired_bootstrap(mine, theirs, first, groups, _SEED)
    result["gain"] = gain = {
        "metric": first,
        "valid": _gain(sign, result["best"]["valid"].get(first), result["default"]["valid"].get(first)),
        "test": _gain(sign, best.get(first), default.get(first)),
        "interval": None if interval is None else sorted(sign * end for end in interval),
    }
    result["verdict"] = verdict(gain, default.get(first))


def verdict(gain: Mapping[str, Any], default: float | None) -> str:
    """What the search is worth, in words: nothing, little, or something; positive is better in every metric."""
    found, interval = gain["test"], gain["interval"]
    if found is None or default is None:
        return f"{gain['metric']} is not defined on the test rows"
    said = f"{found:+.4f} {gain['metric']} on the test rows"
    said += f" (95 % {interval[0]:+.4f} to {interval[1]:+.4f})" if interval else ""
    if interval and interval[0] <= 0.0 <= interval[1]:
        return f"there is little to gain here: {said}, which may be chance"
    if abs(found) < _LITTLE * abs(default):
        return f"there is little to gain here: {said}"
    return f"the search helps: {said}" if found > 0 else f"the search does harm: {said}"


def _gain(sign: float, best: float | None, default: float | None) -> float | None:
    return None if best is None or default is None else sign * (best - default)


def _only(found: Mapping[str, float], names: tuple[str, ...]) -> dict[str, float]:
    return {name: value for name, value in finite(found).items() if name in names}
