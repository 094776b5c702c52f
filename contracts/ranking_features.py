"""What a ranker is told of a person and of each candidate, by numpy alone; the same in training and serving."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
WINDOWS = (1.0, 7.0, 30.0)  # days
STATE = ("people", *(f"clicks_{days:g}d" for days in WINDOWS), "age")
FEATURES = (
    "retrieval", "retrieval_place", *STATE,
    "like_history", "like_recent", "like_last", "like_any", "mix", "length", "taste", "off_taste",
)  # fmt: skip
KINDS = ("views", "clicks", "sales")
SPANS = {"1h": 3_600, "1d": 86_400, "7d": 604_800}  # seconds
PERSON = (*(f"user_{kind}_{span}" for kind in KINDS for span in SPANS), "user_hours_since_click")
ITEM = (
    *(f"item_{kind}_{span}" for kind in KINDS for span in SPANS),
    *(f"item_click_rate_{span}" for span in SPANS),
)
CONTEXT = ("hour", "weekend")
WINDOWED = (*PERSON, *ITEM, *CONTEXT)  # of the feature store, for rankers that were told of them
_RECENT, _LONG = 5, 720.0  # hours


def item_state(items: NDArray[np.int64], seconds: Floats, at_items: NDArray[np.int64], at: Floats) -> Floats:
    """`STATE` of items at moments, by what was taken before each.

    Counts are how many times the mean of an item, as logs of one more, so that a model holds while a log grows.

    Args:
        items, seconds: of each interaction of the log.  at_items, at: the items and moments that are asked about.

    Returns:
        Shape (len(at_items), 5).
    """
    order = np.lexsort((seconds, items))
    items, seconds = items[order], seconds[order]
    start = float(min(seconds.min(initial=np.inf), at.min(initial=np.inf), 0.0))
    span = float(max(seconds.max(initial=0.0), at.max(initial=0.0))) - start + 1 + 86_400 * WINDOWS[-1]
    keys, every = items * (2 * span) + (seconds - start), np.sort(seconds)
    first = np.searchsorted(keys, at_items * (2 * span), side="left")
    upto = np.searchsorted(keys, at_items * (2 * span) + (at - start), side="left")
    total = np.searchsorted(every, at, side="left")
    catalogue = max(len(np.unique(items)), 1)

    def share(count: Any, whole: Any) -> Floats:
        return np.asarray(np.log1p(count * catalogue / np.maximum(whole, 1)), dtype=np.float64)

    found = [share(upto - first, total)]
    for days in WINDOWS:
        begin = at - days * 86_400
        before = np.maximum(np.searchsorted(keys, at_items * (2 * span) + (begin - start), side="left"), first)
        found.append(share(upto - before, total - np.searchsorted(every, begin, side="left")))
    known = upto > first
    since = np.where(known, at - seconds[np.minimum(first, len(seconds) - 1)], 0.0) if len(seconds) else 0.0 * at
    return np.column_stack([*found, np.log1p(np.maximum(since, 0) / 86_400)])


def features(
    history: NDArray[np.int64],
    candidates: NDArray[np.int64],
    scores: Any,
    places: Any,
    state: Any,
    vectors: NDArray[Any],
    popularity: NDArray[Any],
) -> NDArray[np.float32]:
    """`FEATURES` of candidates for one person.

    Args:
        history: items, the oldest first.  scores: of the retriever, over the best one's.  places: by them, from 0.
        state: of the candidates, see `item_state`.  vectors, popularity (see `popularity_of`): of all items.

    Returns:
        Shape (candidates, features).
    """
    theirs = np.asarray(vectors[candidates], dtype=np.float64)
    mine = np.asarray(vectors[history], dtype=np.float64)
    count, popular = len(candidates), np.asarray(popularity[candidates], dtype=np.float64)
    near = theirs @ mine.T if mine.size else np.zeros((count, 1))
    if not near.shape[1]:
        near = np.zeros((count, 1))
    taste = float(np.mean(popularity[history])) if len(history) else 0.0
    shares = _shares(mine)
    found = (
        np.asarray(scores, dtype=np.float64),
        1 / (1 + np.log2(1 + np.asarray(places, dtype=np.float64))),
        *np.asarray(state, dtype=np.float64).T,
        near.mean(axis=1),
        near[:, -_RECENT:].mean(axis=1),
        near[:, -1],
        near.max(axis=1),
        _shares_of(theirs) @ shares if shares.any() else np.zeros(count),
        np.full(count, np.log1p(len(history))),
        np.full(count, taste),
        popular - taste,
    )
    return np.column_stack(found).astype(np.float32)


def windowed(columns: Mapping[str, Any], count: int) -> NDArray[np.float32]:
    """`WINDOWED` as a ranker takes them: counts and hours as logs of one more; 0 where nothing is known.

    Args:
        columns: features by name, each of shape (count,); one that is missing is nowhere known.

    Returns:
        Shape (count, len(WINDOWED)).
    """
    found = np.zeros((count, len(WINDOWED)), dtype=np.float32)
    for at, name in enumerate(WINDOWED):
        hours = name == "user_hours_since_click"
        given = np.asarray(columns[name], dtype=np.float64) if name in columns else np.full(count, np.nan)
        given = np.where(np.isnan(given), _LONG if hours else 0.0, given)
        given = np.clip(given, 0, _LONG) if hours else given
        found[:, at] = given if name in CONTEXT or "_rate_" in name else np.log1p(given)
    return found


def popularity_of(people: NDArray[Any]) -> Floats:
    """How many times the people of a mean item each has, as the log of one more."""
    found = np.asarray(people, dtype=np.float64)
    return np.log1p(found / max(float(found.mean()) if len(found) else 0.0, 1e-12))


def _shares_of(vectors: Floats) -> Floats:
    """Of each item the shares of its attributes, in all one."""
    has = np.maximum(vectors, 0)
    return np.asarray(has / np.maximum(has.sum(axis=1, keepdims=True), 1e-12))


def _shares(vectors: Floats) -> Floats:
    """The mean shares of a history."""
    return np.asarray(_shares_of(vectors).mean(axis=0)) if len(vectors) else np.zeros(vectors.shape[1])
