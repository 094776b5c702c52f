"""Whether candidates are ranked again: a ranker is served where it beats the retriever on the validation part."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from contracts.bundle import Check
from contracts.errors import PlatformError
from contracts.ranker import Ranker
from contracts.recommender import Recommender
from pipelines.io import events
from pipelines.training.ranking import at_moment, fit_ranker, gains, of_lists
from pipelines.training.recommend import Log, Second, recommender
from pipelines.training.recommenders import fit
from pipelines.training.shown import shown

if TYPE_CHECKING:
    import pandas as pd

TABLE, SNAPSHOT = "impressions.parquet", "windows.parquet"
_SURE = 1.28  # standard errors: one of ten rankers that are no better is taken


def second_stage(
    dataset: Path,
    log: Log,
    retriever: Recommender,
    train: NDArray[np.int64],
    chosen: Mapping[str, Any],
    lists: Any,
    seed: int,
    settings: Any,
) -> Second:
    """Learn a ranker from the impressions of the data set, and compare it with the retriever it would follow.

    The retriever whose scores it learns from has seen the first part of the training's time, the impressions are of the
    rest, and what chooses are those of the validation part: no click is a feature of itself.

    Args:
        retriever: of the whole training part.  train: its interactions, the oldest first.  chosen: settings of the
            method.  settings: a `pipelines.recipes.recommend.settings.RankerConfig`.

    Raises:
        PlatformError: there are no impressions, or too few clicks.
    """
    import pandas as pd

    if not (dataset / TABLE).exists():
        raise PlatformError(
            f"ranker.kind {settings.kind} learns from impressions, and the run has none",
            fix="give the lists that were shown: --set impressions.source=FILE, or leave ranker.kind none",
            code="bad_config",
        )
    table = pd.read_parquet(dataset / TABLE)
    snapshot = pd.read_parquet(dataset / SNAPSHOT) if settings.windows else None
    seconds = log.seconds[train]
    cut = float(seconds[0] + (1 - settings.held_back) * (seconds[-1] - seconds[0]))
    early = log.taken(train[seconds < cut], seed)
    first = recommender(log, early, chosen, fit(early, chosen), lists)
    late = table[(table["part"] == "train") & (table["time"] >= cut)]
    ranker, files = fit_ranker(log, first, late, table[table["part"] == "valid"], settings, seed)
    end = float(np.nextafter(log.seconds.max(), np.inf))
    choice = _compared(log, retriever, ranker, table[table["part"] == "valid"], settings)
    looked = {"looked_last": ranker.spec.looked[-1]}
    if not choice.passed:
        said = f"the ranker is not served: {choice.metric} is {choice.value}, of the retriever alone {choice.limit}"
        events.emit("log", step="train", message=said)
        return Second({}, {"ranker": "none", **looked}, None, choice)
    return Second(files, {"ranker": settings.kind, **looked}, at_moment(ranker, log, end, snapshot), choice)


def _compared(log: Log, retriever: Recommender, ranker: Ranker, valid: pd.DataFrame, settings: Any) -> Check:
    """How high the clicks of the validation part stand by the ranker and by the retriever, see `gains`.

    Lists of one person are not independent of each other: the interval is of people.
    """
    rows = shown(log, retriever, valid, settings.lists, settings.windows)
    look = np.array(ranker.spec.looked)
    by_ranker, weights, lists = gains(rows, of_lists(ranker.raw, rows), look)
    by_retriever, _, _ = gains(rows, np.asarray(rows.found[:, 0], dtype=np.float64), look)
    total = max(float(weights.sum()), 1e-12)
    with_it, without = (float(weights @ one) / total for one in (by_ranker, by_retriever))
    apart = weights * (by_ranker - by_retriever - (with_it - without)) / total
    error = float(np.sqrt((np.bincount(rows.people[lists], weights=apart) ** 2).sum())) if len(apart) else 0.0
    return Check(
        metric=f"valid_gain_with_{settings.kind}",
        rule="above",
        value=round(with_it, 6),
        limit=round(without, 6),
        passed=with_it - without - _SURE * error > 0,
        against="retriever",
        interval=(round(with_it - without - 1.96 * error, 6), round(with_it - without + 1.96 * error, 6)),
    )
