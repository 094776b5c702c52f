"""What lists would have earned that were not shown, from lists that were shown with some of it left to chance.

A click is taken to depend on the person, the item and the place, not on the other items of the list (the item-position
model; S. Li, Y. Abbasi-Yadkori, B. Kveton, S. Muthukrishnan, V. Vinay, Z. Wen: Offline evaluation of ranking policies
with click models, 2018). Every list is one observation of all its places; people, not lists, are independent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from contracts.errors import PlatformError
from contracts.problems.ranking import SEPARATOR

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
_NORMAL = 1.959963984540054
_PRIOR = 5.0  # clicks' worth of impressions of a mean item
_FOLDS = 2


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Clicks of a list, and the 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What a log says of lists that it did not show.

    Attributes:
        logged: what was earned.  ips, snips, dr: what the other lists would have earned: by inverse propensities, by
            those made to sum to one at each place (A. Swaminathan, T. Joachims, 2015), and doubly robust (M. Dudik, J.
            Langford, L. Li, 2011).
        difference: of dr to what was earned, over the same lists.
        lists: that were logged.  effective: how many lists without weights would tell as much.  matched: share of
            places at which both have the same item.
    """

    logged: Estimate
    ips: Estimate
    snips: Estimate
    dr: Estimate
    difference: Estimate
    lists: int
    effective: float
    matched: float

    def document(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def off_policy(rows: pd.DataFrame, targets: Sequence[Sequence[str]]) -> Judged:
    """Judge lists by a log.

    Args:
        rows: impressions, see `pipelines.recipes.recommend.impressions.checked`, sorted by list.
        targets: of each list, in the order of their first rows, the items that would be shown instead.

    Raises:
        PlatformError: ``code="bad_impressions"``: a propensity of zero, or no lists.
    """
    import pandas as pd

    if not len(rows):
        raise PlatformError(
            "there are no lists to judge by", fix="give a log with answers and feedback", code="bad_impressions"
        )
    chance = rows["propensity"].to_numpy(dtype=np.float64)
    if (wrong := ~((chance > 0) & (chance <= 1))).any():
        first = rows[wrong].iloc[0]
        raise PlatformError(
            f"a propensity is not above 0 and at most 1: {first['propensity']}",
            detail=f"list {first['list']!r}, place {first['place']}, item {first['item']!r}: it was shown",
            fix="log the chance that the item had to stand there, as /recommend does",
            code="bad_impressions",
        )
    lists, names = pd.factorize(rows["list"])
    users, _ = pd.factorize(rows["user"])
    place = rows["place"].to_numpy(dtype=np.int64) - 1
    clicked = rows["clicked"].to_numpy(dtype=np.float64)
    items = rows["item"].to_numpy()
    target = np.empty(len(rows), dtype=object)
    for row, (one, at) in enumerate(zip(lists.tolist(), place.tolist(), strict=True)):
        target[row] = targets[one][at] if at < len(targets[one]) else ""
    same = target == items
    weight = same / chance
    guess = _reward_model(users, items, place, clicked)
    count, group = len(names), users[np.unique(lists, return_index=True)[1]]

    def whole(values: Floats) -> Floats:
        return np.bincount(lists, weights=values, minlength=count).astype(np.float64)

    expected = guess(target) * (target != "")
    robust = whole(expected + weight * (clicked - guess(items)))
    logged = whole(clicked)
    square = float((weight**2).sum())
    return Judged(
        logged=_mean(logged, group),
        ips=_mean(whole(weight * clicked), group),
        snips=_normalised(weight, clicked, place, whole, group),
        dr=_mean(robust, group),
        difference=_mean(robust - logged, group),
        lists=count,
        effective=float(weight.sum()) ** 2 / square * count / len(rows) if square else 0.0,
        matched=float(same.mean()),
    )


def _mean(values: Floats, group: NDArray[np.int64], middle: float | None = None) -> Estimate:
    """The mean of lists; its interval is of people: lists of one are not independent of each other."""
    mean = float(values.mean()) if middle is None else middle
    parts = np.bincount(group, weights=values - values.mean())
    people = max(len(parts), 2)
    error = float(np.sqrt((parts**2).sum() * people / (people - 1)) / len(values))
    return Estimate(value=mean, low=mean - _NORMAL * error, high=mean + _NORMAL * error)


def _normalised(
    weight: Floats, clicked: Floats, place: NDArray[np.int64], whole: Callable[[Floats], Floats], group: Any
) -> Estimate:
    """Of each place the weighted share of clicks, all places together; linearised for the interval."""
    total, count = np.bincount(place, weights=weight), np.bincount(place)
    there = total > 0
    rate = np.where(there, np.bincount(place, weights=weight * clicked) / np.where(there, total, 1), 0.0)
    share = np.bincount(place) / len(whole(clicked))  # lists that are so long
    mean = np.where(there, total / np.maximum(count, 1), 1.0)
    influence = whole(weight * (clicked - rate[place]) / mean[place])
    return _mean(influence, group, float((rate * share).sum()))


def _reward_model(
    users: NDArray[np.int64], items: NDArray[Any], place: NDArray[np.int64], clicked: Floats
) -> Callable[[NDArray[Any]], Floats]:
    """The chance of a click as that of the place times how liked the item is, learned from other people each time."""
    import pandas as pd

    fold = users % _FOLDS
    learned = []
    for held in range(_FOLDS):
        use = fold != held
        rate = (np.bincount(place[use], weights=clicked[use], minlength=int(place.max()) + 1) + 0.5) / (
            np.bincount(place[use], minlength=int(place.max()) + 1) + 1
        )
        some = pd.DataFrame({"item": items[use], "clicked": clicked[use], "expected": rate[place[use]]})
        sums = some.groupby("item")[["clicked", "expected"]].sum()
        prior = _PRIOR * max(float(clicked.mean()), 1e-3)
        learned.append((rate, (sums["clicked"] + prior) / (sums["expected"] + prior)))

    def guess(of: NDArray[Any]) -> Floats:
        found = np.zeros(len(of))
        for held, (rate, lift) in enumerate(learned):
            mine = fold == held
            found[mine] = np.minimum(rate[place[mine]] * pd.Series(of[mine]).map(lift).fillna(1.0).to_numpy(), 1.0)
        return found

    return guess


def replayed(engine: Any, rows: pd.DataFrame, before: pd.DataFrame | None) -> list[tuple[str, ...]]:
    """The lists that a model gives for the histories that people had when the logged ones were shown to them.

    Args:
        engine: of the model.  before: interactions: columns user, item and seconds; the clicks of `rows` join them.
            None: the model's own, for lists of a time after it was made.
    """
    found = []
    for one, history in histories(rows, before):
        name = "" if before is not None else one["user"].iloc[0]
        asked = {"user": name, "items": SEPARATOR.join(history), "exclude": "", "attributes": ""}
        columns: dict[str, Any] = {name: np.array([text], dtype=object) for name, text in asked.items()}
        longest = float(one["place"].max())
        columns |= {
            "k": np.array([longest]),
            "diversity": np.array([np.nan]),
            "explore": np.zeros(1),
            "age": np.zeros(1),
        }
        found.append(engine.predict(columns)[0].items)
    return found


def histories(rows: pd.DataFrame, before: pd.DataFrame | None) -> Iterator[tuple[pd.DataFrame, list[str]]]:
    """Each list with what its person had taken before it was shown; arguments as of `replayed`."""
    import pandas as pd

    clicks = rows.loc[rows["clicked"], ["user", "item", "time"]].rename(columns={"time": "seconds"})
    taken = clicks if before is None else pd.concat([before[["user", "item", "seconds"]], clicks], ignore_index=True)
    taken = taken.drop_duplicates(["user", "item"]).sort_values("seconds", kind="stable")
    of_user = {
        user: (part["seconds"].to_numpy(), part["item"].to_numpy()) for user, part in taken.groupby("user", sort=False)
    }
    none = (np.zeros(0), np.zeros(0, dtype=object))
    for _, one in rows.groupby("list", sort=False):
        seconds, items = of_user.get(one["user"].iloc[0], none)
        yield one, items[: int(np.searchsorted(seconds, one["time"].iloc[0], side="left"))].tolist()
