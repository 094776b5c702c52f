"""How good answers were, once labels are there: metrics with intervals, of all rows and of slices, beside the bundle's.

A metric has dropped when its whole interval lies on the worse side of the bundle's value, by more than what is
tolerated. Before labels are there, `estimates` says what is to be expected, and how far it was off on labelled rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from services.monitor.bundles import Known
from services.problems.measures import FALLING, UNRANKED

_LEAST, _SLICES = 200, 20  # rows that are measured; slices of an input, the commonest
_ROUNDS, _TAIL = 200, 0.5  # resamples, and percent outside the interval on each side
_TOLERATED = 0.02  # of the bundle's value
_PAST = 500  # labelled rows of one look back at the estimate

Row = Mapping[str, Any]  # a labelled prediction: time, answer, label, slices


def measured(rows: Sequence[Row], known: Known) -> list[dict[str, Any]]:
    """Each metric of all rows and of each slice with enough of them: value, interval, reference, dropped.

    Args:
        rows: labelled predictions of one version.
    """
    if known.document is None or known.serving is None or len(rows) < _LEAST:
        return []
    found = _metrics(rows, known, "", known.metrics)
    for name, some in _slices(rows).items():
        found += _metrics(some, known, name, known.document.slices.get(name, {}))
    return found


def of_all(rows: Sequence[Row], known: Known) -> list[dict[str, Any]]:
    """Each metric of all rows, however few they are."""
    return _metrics(rows, known, "", known.metrics) if known.document is not None and known.serving is not None else []


def _slices(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by the value of each categorical input."""
    groups: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        for name, value in row["slices"].items():
            groups.setdefault(name, {}).setdefault(value, []).append(row)
    found: dict[str, list[Row]] = {}
    for name, values in groups.items():
        commonest = sorted(values.items(), key=lambda item: -len(item[1]))[:_SLICES]
        found |= {f"{name}:{value}": some for value, some in commonest if _LEAST <= len(some) < len(rows)}
    return found


def _metrics(rows: Sequence[Row], known: Known, name: str, reference: Mapping[str, float]) -> list[dict[str, Any]]:
    assert known.document is not None
    assert known.serving is not None
    output = known.document.signature.output
    answers, labels = [row["answer"] for row in rows], [row["label"] for row in rows]
    try:
        measure = known.serving.measure(output, known.document.decision, answers, labels)
    except (KeyError, ValueError, TypeError, IndexError):  # labels or lines of somebody else
        return []
    if measure is None:
        return []
    values = measure(np.ones(len(rows)))
    rng = np.random.default_rng(len(rows))
    rounds = [measure(rng.poisson(1.0, len(rows)).astype(np.float64)) for _ in range(_ROUNDS)]
    found = []
    for metric, value in values.items():
        drawn = np.array([one[metric] for one in rounds])
        if not math.isfinite(value) or not np.isfinite(drawn).any():
            continue
        low, high = np.nanpercentile(drawn, [_TAIL, 100 - _TAIL]).tolist()
        normal = reference.get(metric)
        item = {"metric": metric, "slice": name, "rows": len(rows), "value": value, "low": low, "high": high}
        found.append({**item, "reference": normal, "dropped": _dropped(metric, low, high, normal)})
    return found


def _dropped(metric: str, low: float, high: float, reference: float | None) -> bool:
    if reference is None or metric in UNRANKED:
        return False
    slack = _TOLERATED * abs(reference)
    return low > reference + slack if metric in FALLING else high < reference - slack


class Expected:
    """Sums of what answers expect of themselves, by day, for the estimate before labels are there."""

    _DAYS = 30

    def __init__(self, document: Mapping[str, Mapping[str, float]] | None = None) -> None:
        self._days: dict[str, dict[str, float]] = {day: dict(sums) for day, sums in (document or {}).items()}

    def add(self, answers: Iterable[tuple[str, Mapping[str, Any]]], known: Known) -> None:
        """Logged answers, each with its day."""
        if known.document is None or known.serving is None:
            return
        output, decision = known.document.signature.output, known.document.decision
        for day, answer in answers:
            try:
                expected = known.serving.expected(output, decision, answer, known.baseline)
            except (KeyError, ValueError, TypeError, IndexError):  # a line of somebody else
                continue
            sums = self._days.setdefault(day, {})
            for name, value in expected.items():
                sums[name] = sums.get(name, 0.0) + value
        for day in sorted(self._days)[: -self._DAYS]:
            del self._days[day]

    def estimates(self, known: Known, errors: Mapping[str, float]) -> dict[str, Any]:
        """The metrics to be expected of the latest day, each with the `errors` that such estimates had."""
        days = [day for day in sorted(self._days) if self._days[day].get("rows", 0) > 0]
        if not days or known.serving is None:
            return {}
        latest = self._days[days[-1]]
        metrics = {
            name: {"value": value, "error": errors.get(name), "reference": known.metrics.get(name)}
            for name, value in known.serving.estimate(latest).items()
        }
        return {"day": days[-1], "rows": int(latest["rows"]), "metrics": metrics}

    def to_json(self) -> dict[str, dict[str, float]]:
        """What the constructor takes."""
        return self._days


def past_errors(rows: Sequence[Row], known: Known) -> dict[str, float]:
    """How far estimates were off, on average over past stretches of labelled rows; {} where there are too few."""
    if known.document is None or known.serving is None:
        return {}
    output, decision = known.document.signature.output, known.document.decision
    ordered, errors = sorted(rows, key=lambda row: row["time"]), dict[str, list[float]]()
    for start in range(0, len(ordered) - _PAST + 1, _PAST):
        some = ordered[start : start + _PAST]
        stretch = Expected()
        stretch.add((("", row["answer"]) for row in some), known)
        answers, labels = [row["answer"] for row in some], [row["label"] for row in some]
        measure = known.serving.measure(output, decision, answers, labels)
        said = stretch.estimates(known, {}).get("metrics", {})
        true = measure(np.ones(len(some))) if measure is not None and said else {}
        for name in said:
            if math.isfinite(true.get(name, math.nan)):
                errors.setdefault(name, []).append(abs(said[name]["value"] - true[name]))
    return {name: float(np.mean(each)) for name, each in errors.items()}
