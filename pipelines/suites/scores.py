"""Answers of a suite as numbers: of each task, each language and the whole, with intervals, and two models in pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.texts import words
from pipelines.evaluation.measures import Measure, bootstrap, finite, paired_bootstrap
from pipelines.suites.asking import FILTERED, Answer
from pipelines.suites.document import Request, Suite
from pipelines.suites.metrics import METRICS

SCORE = "score"
_SEED = 0  # of the bootstrap: the same answers give the same intervals


class Scores:
    """What the answers of one model are worth.

    Attributes:
        primary: of each request the first metric of its task, shape (requests,), 0 to 1.
        values: of each request all its metrics by name.
    """

    def __init__(self, suite: Suite, requests: Sequence[Request], answers: Sequence[Answer]) -> None:
        metrics = {task.name: task.metrics for task in suite.tasks}
        self.values = [
            {name: measured(name, request, answer) for name in metrics[request.task]}
            for request, answer in zip(requests, answers, strict=True)
        ]
        self.primary: NDArray[np.float64] = np.array([next(iter(row.values())) for row in self.values])
        self._tasks = np.array([request.task for request in requests])
        self._languages = np.array([request.item.language for request in requests])
        self._names = [task.name for task in suite.tasks]
        self._columns = {
            f"{task}.{name}": np.array([row.get(name, np.nan) for row in self.values])
            for task in self._names
            for name in metrics[task]
        }

    @property
    def languages(self) -> list[str]:
        """That items name, sorted."""
        return sorted(set(self._languages) - {""})

    def measure(self) -> Measure:
        """``score``, the mean of tasks' first metrics; it for each language; and every metric as ``task.metric``.

        A function of row weights, as a bootstrap draws them.
        """

        whole = mean_of_tasks(self.primary, self._tasks)

        def of(weight: NDArray[np.float64] | None) -> dict[str, float]:
            w = np.ones(len(self.primary)) if weight is None else weight
            found = whole(w)
            for language in self.languages:
                found[f"{language}.{SCORE}"] = whole(w * (self._languages == language))[SCORE]
            for name, column in self._columns.items():
                found[name] = _mean(column, w * (self._tasks == name.partition(".")[0]))
            return found

        return of

    def document(self) -> dict[str, Any]:
        """``metrics`` and their 95 % ``intervals``, by resampling items."""
        measure = self.measure()
        return {"metrics": finite(measure(None)), "intervals": bootstrap(measure, len(self.primary), _SEED)}


def mean_of_tasks(values: NDArray[np.float64], tasks: NDArray[np.str_]) -> Measure:
    """``score``, the mean of the tasks' means, as a function of row weights; tasks without weight do not count."""
    names = sorted(set(tasks.tolist()))

    def of(weight: NDArray[np.float64] | None) -> dict[str, float]:
        w = np.ones(len(values)) if weight is None else weight
        means = [_mean(values, w * (tasks == name)) for name in names]
        defined = [value for value in means if np.isfinite(value)]
        return {SCORE: float(np.mean(defined)) if defined else float("nan")}

    return of


def measured(name: str, request: Request, answer: Answer) -> float:
    """One metric of one answer; a request that was refused has 0, but where refusing is right."""
    if answer.error and not (answer.error == FILTERED and answer.text):
        filtered = answer.error == FILTERED and request.item.refuse is not None
        return float(bool(request.item.refuse)) if name == "refusal" and filtered else 0.0
    return METRICS[name].value(answer.text, request.item)


def paired(scores: Scores, against: Scores) -> dict[str, dict[str, Any]]:
    """Differences of two models on the same requests, each with its 95 % interval (paired bootstrap) and what it shows.

    Items are resampled together for both, as one item is easy or hard for both.
    """
    mine, other = scores.measure(), against.measure()
    groups = np.arange(len(scores.primary))
    one, two = mine(None), other(None)
    found = {}
    for name in [SCORE, *(f"{language}.{SCORE}" for language in scores.languages)]:
        interval = paired_bootstrap(mine, other, name, groups, _SEED) if len(groups) > 1 else None
        shown = (
            "open" if interval is None or interval[0] <= 0 <= interval[1] else "better" if interval[0] > 0 else "worse"
        )
        found[name] = {"difference": one[name] - two[name], "interval": interval, "shown": shown}
    return found


def spent(answers: Sequence[Answer]) -> dict[str, Any]:
    """What the answers took: tokens, seconds of the median one, words, and how many were refused or cut."""
    return {
        "prompt_tokens": sum(one.prompt_tokens for one in answers),
        "tokens": sum(one.tokens for one in answers),
        "seconds_p50": round(float(np.median([one.seconds for one in answers])), 4),
        "words": round(float(np.mean([len(words(one.text)) for one in answers])), 2),
        "refused": sum(bool(one.error) for one in answers),
        "cut": sum(one.finish == "length" for one in answers),
        "empty": sum(not one.text for one in answers),
    }


def rows_of(values: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """Values of each row as JSON has them."""
    return [{name: round(value, 4) for name, value in row.items()} for row in values]


def _mean(values: NDArray[np.float64], weight: NDArray[np.float64]) -> float:
    used = np.isfinite(values) & (weight > 0)
    total = float(weight[used].sum())
    return float(weight[used] @ values[used]) / total if total > 0 else float("nan")
