"""Impressions as a ranker learns from them: what was known of each place of each list when it was shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from contracts.ranking_features import FEATURES, WINDOWED, features, item_state, popularity_of, windowed
from contracts.recommender import Recommender

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.training.recommend import Log

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Shown:
    """Impressions, row by row: what was known of them when they were shown.

    Attributes:
        found: features, shape (rows, features).  items: places in the catalogue.  lists: number of the list, rising.
        places: from 0.  histories: of each list, the oldest item first.  people: of each list, a number.
    """

    found: NDArray[np.float32]
    items: NDArray[np.int64]
    lists: NDArray[np.int64]
    places: NDArray[np.int64]
    clicked: NDArray[np.bool_]
    histories: Sequence[NDArray[np.int64]]
    people: NDArray[np.int64]


def shown(log: Log, model: Recommender, impressions: pd.DataFrame, most: int, windows: bool = False) -> Shown:
    """The latest impressions as a model saw them: of a history that ends before each list, as serving does.

    Args:
        model: a retriever that has learned nothing of these impressions.  most: lists.  windows: whether there are
            features of the feature store, as columns.
    """
    names = impressions["list"].drop_duplicates(keep="last").to_numpy()[-most:]
    rows = impressions[impressions["list"].isin(names)]
    place = {item: at for at, item in enumerate(log.items)}
    rows = rows[rows["item"].isin(place)]
    items = rows["item"].map(place).to_numpy(dtype=np.int64).astype(np.int64)
    seconds = rows["time"].to_numpy(dtype=np.float64)
    state = item_state(log.item_of, log.seconds, items, seconds)
    before, popularity = _before(log), popularity_of(model.arrays["people"])
    codes, _ = _factorized(rows["list"])
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    parts, histories = [], []
    users = rows["user"].to_numpy()
    people = _factorized(rows["user"].iloc[starts])[0]
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(rows)], strict=True):
        history = before(users[start], seconds[start])[-model.spec.history :]
        candidates = items[start:end]
        relative, places = model.standing(history, candidates)
        parts.append(
            features(history, candidates, relative, places, state[start:end], model.arrays["vectors"], popularity)
        )
        histories.append(history)
    found = np.concatenate(parts) if parts else np.zeros((0, len(FEATURES)), np.float32)
    if windows:
        late = windowed({name: rows[name].to_numpy() for name in WINDOWED}, len(rows))
        found = np.column_stack([found, late])
    places_shown: Indices = rows["place"].to_numpy(dtype=np.int64) - 1
    return Shown(found, items, codes, places_shown, rows["clicked"].to_numpy(dtype=bool), histories, people)


def _factorized(names: pd.Series[Any]) -> tuple[NDArray[np.int64], Any]:
    import pandas as pd

    codes, found = pd.factorize(names)
    return codes.astype(np.int64), found


def _before(log: Log) -> Callable[[str, float], NDArray[np.int64]]:
    """The history of a person before a moment."""
    liked = np.flatnonzero(log.liked)
    order = liked[np.lexsort((log.seconds[liked], log.user_of[liked]))]
    users, seconds, items = log.user_of[order], log.seconds[order], log.item_of[order]
    ends = np.searchsorted(users, np.arange(len(log.users) + 1))
    place = {user: at for at, user in enumerate(log.users)}

    def history(user: str, at: float) -> NDArray[np.int64]:
        who = place.get(user)
        if who is None:
            return np.zeros(0, dtype=np.int64)
        mine = slice(ends[who], ends[who + 1])
        taken = items[mine][: np.searchsorted(seconds[mine], at, side="left")]
        _, first = np.unique(taken[::-1], return_index=True)
        return np.asarray(taken[len(taken) - 1 - np.sort(first)[::-1]], dtype=np.int64)

    return history
