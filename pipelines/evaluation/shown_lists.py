"""Two recommenders, judged by the same lists that were shown: how high the clicks of these stand by either.

NDCG of what people took later is no judge of a ranker (ADR 0027): people take from what they are shown, so it flatters
what is popular and what showed the lists. Of the same list both models order the same items, which is like for like.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from contracts.bundle import Bundle

if TYPE_CHECKING:
    from pipelines.evaluation.comparison import Pair

Floats = NDArray[np.float64]
METRIC = "gain_of_shown_lists"
UNTIL = "learned_until"  # parameter of a bundle: seconds since 1970, after which it has learned of nothing
_TABLE = "impressions.parquet"
_LISTS, _LEAST_CLICKS = 5_000, 50


def click_gains(
    scores: Floats, lists: NDArray[np.int64], places: NDArray[np.int64], clicked: NDArray[np.bool_], look: Floats
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """How high clicks stand when lists are in the order of the scores: 1 / log2(1 + rank) of each click.

    T. Joachims, A. Swaminathan, T. Schnabel: Unbiased learning-to-rank with biased feedback, 2017: weighted by 1 / the
    chance of a look, the mean is that of lists that everybody reads to their end.

    Args:
        scores, lists, places, clicked: of each impression; lists are numbers that rise, places count from 0.
        look: how likely each place is looked at, of the first one's.

    Returns:
        of each click its gain, its weight, and its list.
    """
    order = np.lexsort((-scores, lists))
    first = np.searchsorted(lists, lists)
    rank = np.empty(len(scores))
    rank[order] = np.arange(len(scores))
    clicks = np.flatnonzero(clicked)
    weights = 1 / look[np.minimum(places[clicks], len(look) - 1)]
    return 1 / np.log2(rank[clicks] - first[clicks] + 2), weights, lists[clicks]


def judged_by_lists(candidate: Bundle, champion: Bundle, dataset: Path) -> tuple[Pair | None, str]:
    """The gains of the clicks of the test part's lists by both, with the 95 % interval of their difference, and a
    remark; None where it is for the primary metric to judge: neither has a ranker, or there are no such lists.

    The interval is of people: lists of one person are not independent of each other.
    """
    import pandas as pd

    from contracts.engines import load_engine
    from pipelines.evaluation.comparison import Pair
    from pipelines.evaluation.off_policy import histories

    engines: list[Any] = [load_engine(bundle, threads=1) for bundle in (candidate, champion)]
    rankers = [engine.model.ranker for engine in engines if engine.model.ranker is not None]
    if not rankers:
        return None, ""
    if not (dataset / _TABLE).exists():
        return (
            None,
            "one of both has a ranker, which NDCG does not judge well; impressions.source would let lists judge",
        )
    rows = pd.read_parquet(dataset / _TABLE)
    rows = rows[(rows["part"] == "test") & (rows["time"] > float(champion.document.parameters.get(UNTIL, 0)))]
    rows = rows[rows["list"].isin(rows["list"].drop_duplicates().iloc[-_LISTS:])].reset_index(drop=True)
    if int(rows["clicked"].sum()) < _LEAST_CLICKS:
        return None, f"the lists of the test part that neither has learned of have less than {_LEAST_CLICKS} clicks"
    parts = [pd.read_parquet(dataset / f"{name}.parquet") for name in ("train", "valid")]
    before = pd.concat(parts).rename(columns={"item": "_", "label": "item"})
    scores: list[list[Floats]] = [[], []]
    ordered = []
    for one, history in histories(rows, before):
        ordered.append(one)
        for found, engine in zip(scores, engines, strict=True):
            found.append(_scores(engine, history, one["item"].tolist()))
    table = pd.concat(ordered, ignore_index=True)
    lists = pd.factorize(table["list"])[0].astype(np.int64)
    people = pd.factorize(table.groupby("list", sort=False)["user"].first())[0]
    place, clicked = table["place"].to_numpy(dtype=np.int64) - 1, table["clicked"].to_numpy(dtype=bool)
    look = np.array(rankers[0].spec.looked)
    (ours, weight, of), (its, _, _) = (
        click_gains(np.concatenate(found), lists, place, clicked, look) for found in scores
    )
    total = float(weight.sum())
    mine, theirs = float(weight @ ours) / total, float(weight @ its) / total
    apart = np.bincount(people[of], weights=weight * (ours - its - (mine - theirs)) / total)
    error = 1.96 * float(np.sqrt((apart**2).sum()))
    pair = Pair(mine, theirs, (mine - theirs - error, mine - theirs + error), len(people), 0)
    return pair, f"compared by {len(people):,} lists of the test part that were shown, as one of both has a ranker"


def _scores(engine: Any, history: list[str], items: list[str]) -> Floats:
    """Of the items of a list; those that a model does not know stand last, as it would not list them."""
    model, place = engine.model, engine.places
    codes = model.history([place[item] for item in history if item in place])[0][-model.spec.history :]
    known = np.array([item in place for item in items], dtype=bool)
    found = np.full(len(items), -np.inf)
    if known.any():
        found[known] = model.relevance(codes, np.array([place[item] for item in items if item in place]))
    return found


def parameters_of(seconds: Floats) -> Mapping[str, float]:
    """What a bundle says about the time that it has learned of."""
    return {UNTIL: float(seconds.max()) if len(seconds) else 0.0}
