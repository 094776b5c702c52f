"""Predictions with what turned out to be true of them.

Of several labels of one prediction that with the latest time wins; two of the same time contradict each other, and the
one whose JSON sorts first is taken, so that the result does not depend on the order in which labels came.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import orjson

from services.feedback.reading import labels, predictions
from services.feedback.records import Label, Prediction, id_time, is_id

MOST = 200_000
WAITS = timedelta(days=7)  # a prediction may come to the log so long after it was made: its label waits for it
_AHEAD = timedelta(minutes=10)  # of the clock that an id was made by
_SHORTEST = timedelta(minutes=1)
_APART = timedelta(minutes=1)  # between the time in an id and that of its record


@dataclass(frozen=True, kw_only=True, slots=True)
class Joined:
    """A prediction, and the label that won; None where there is none yet."""

    prediction: Prediction
    label: Label | None


def may_come(identifier: str, now: datetime) -> bool:
    """Whether a prediction that is not in the log may come to it yet, by the time in its id."""
    return is_id(identifier) and now - WAITS < id_time(identifier) <= now + _AHEAD


def winner(first: Label, second: Label) -> Label:
    """Which of two labels of one prediction counts."""
    return min(first, second, key=_rank)


def winners(found: Iterable[Label]) -> dict[str, Label]:
    """The label that counts, by the prediction's id."""
    best: dict[str, Label] = {}
    for one in found:
        known = best.get(one.id)
        best[one.id] = one if known is None else winner(known, one)
    return best


def joined(folder: str, model: str, start: datetime, end: datetime, *, most: int = MOST) -> Iterator[Joined]:
    """Predictions with start <= event time < end, each with its label.

    Labels of at most `most` predictions are in memory at a time: a window that has more is read in halves.
    """
    best = _winners_between(folder, model, start, end, most if end - start > _SHORTEST else None)
    if best is None:
        middle = start + (end - start) / 2
        yield from joined(folder, model, start, middle, most=most)
        yield from joined(folder, model, middle, end, most=most)
        return
    for one in predictions(folder, model, start, end):
        yield Joined(prediction=one, label=best.get(one.id))


def _winners_between(
    folder: str, model: str, start: datetime, end: datetime, most: int | None
) -> dict[str, Label] | None:
    """The labels of predictions of a window; None when there are more than `most`."""
    best: dict[str, Label] = {}
    first, last = start - _APART, end + _APART
    for one in labels(folder, model, since=first.date()):
        if is_id(one.id) and first <= id_time(one.id) < last:
            known = best.get(one.id)
            best[one.id] = one if known is None else winner(known, one)
            if most is not None and len(best) > most:
                return None
    return best


def _rank(label: Label) -> tuple[float, bytes, str]:
    return (-label.time.timestamp(), orjson.dumps(label.label, option=orjson.OPT_SORT_KEYS), label.version)
