"""From impressions to a ranker: what places have to do with clicks is estimated and taken out, the rest is learned."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from contracts.errors import PlatformError
from contracts.ranker import STATE_ARRAY, WINDOW_ARRAYS, Ranker, RankerSpec, booster_scores, last_layer, logistic
from contracts.ranking_features import FEATURES, ITEM, PERSON, WINDOWED, item_state, windowed
from contracts.recommender import Recommender
from pipelines.evaluation.shown_lists import click_gains
from pipelines.training.shown import Shown, shown

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.training.recommend import Log

Floats = NDArray[np.float64]
_DAY = 86_400.0
_TREES_OF_BIAS, _ROWS_OF_BIAS = 80, 60_000
_LEAST_LOOK = 0.02  # no click counts more than fifty times
_LEAST_CLICKS = 20
_PRIOR = 1.0  # precision of the weights of the last layer


def position_bias(rows: Shown, seed: int) -> Floats:
    """How likely each place is looked at, of the first one's.

    A click is a look and a liking; looks are of the place, likings a function of the features, and both are what makes
    the clicks likeliest. X. Wang, N. Golbandi, M. Bendersky, D. Metzler, M. Najork: Position bias estimation for
    unbiased learning to rank in personal search, 2018, who find them by EM; here every tree is followed by the looks.
    """
    from contracts.tabular_engine import import_lightgbm

    lightgbm = import_lightgbm()
    count, chosen = int(rows.places.max(initial=0)) + 1, np.arange(len(rows.places))
    if len(chosen) > _ROWS_OF_BIAS:
        chosen = np.sort(np.random.default_rng(seed).choice(chosen, _ROWS_OF_BIAS, replace=False))
    places, clicked = rows.places[chosen], rows.clicked[chosen].astype(np.float64)
    look = np.ones(count)

    def objective(raw: Floats, _: Any) -> tuple[Floats, Floats]:
        nonlocal look
        liking = np.clip(logistic(raw), 1e-6, 1 - 1e-6)
        for _ in range(3):
            look = _looked(look, liking, places, clicked)
        chance = np.clip(look[places] * liking, 1e-6, 1 - 1e-6)
        slope = chance * (1 - liking)
        return -(clicked - chance) * (1 - liking) / (1 - chance), slope * (1 - liking) / (1 - chance) + 1e-9

    start = float(np.clip(clicked[places == 0].mean() if (places == 0).any() else clicked.mean(), 1e-3, 0.9))
    options = {
        "objective": objective, "num_leaves": 15, "learning_rate": 0.15, "min_data_in_leaf": 50, "verbose": -1,
        "num_threads": 1, "seed": seed, "deterministic": True,
    }  # fmt: skip
    begin = np.full(len(chosen), np.log(start / (1 - start)))
    lightgbm.train(options, lightgbm.Dataset(rows.found[chosen], clicked, init_score=begin), _TREES_OF_BIAS)
    return np.asarray(np.clip(look / look[0], _LEAST_LOOK, 1.0))


def _looked(look: Floats, liking: Floats, places: NDArray[np.int64], clicked: Floats) -> Floats:
    """A step of Fisher scoring towards the likeliest looks, given the likings; only their ratios are known."""
    chance = np.clip(look[places] * liking, 1e-9, 1 - 1e-9)
    spread = chance * (1 - chance)
    score = np.bincount(places, weights=liking * (clicked - chance) / spread, minlength=len(look))
    fisher = np.bincount(places, weights=liking**2 / spread, minlength=len(look))
    return np.asarray(np.clip(look + score / np.maximum(fisher, 1e-9), 1e-3, 3.0))


def by_click(rows: Shown, look: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """A group for each click, of it and of all that was not clicked in its list, weighted by 1 / its chance of a look.

    T. Joachims, A. Swaminathan, T. Schnabel: Unbiased learning-to-rank with biased feedback, 2017.

    Returns:
        the rows, those of a group together; sizes of the groups; the weight of each row.
    """
    starts = np.flatnonzero(np.diff(rows.lists, prepend=-1))
    chosen, sizes, weights = [], [], []
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(rows.lists)], strict=True):
        every = np.arange(start, end)
        others = every[~rows.clicked[every]]
        if not len(others):
            continue
        for click in every[rows.clicked[every]].tolist():
            chosen.append(np.array([click, *others.tolist()]))
            sizes.append(len(others) + 1)
            weights.append(np.full(len(others) + 1, 1 / look[min(int(rows.places[click]), len(look) - 1)]))
    if not sizes:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    return np.concatenate(chosen), np.array(sizes), np.concatenate(weights)


def lambdarank(train: Shown, look: Floats, settings: Any, seed: int) -> Any:
    """A LightGBM booster by LambdaMART (C. Burges: From RankNet to LambdaRank to LambdaMART, 2010)."""
    from contracts.tabular_engine import import_lightgbm

    lightgbm = import_lightgbm()
    options = {
        "objective": "lambdarank", "num_leaves": settings.leaves,
        "learning_rate": settings.rate, "min_data_in_leaf": 50, "lambda_l2": 1.0, "verbose": -1, "num_threads": 1,
        "seed": seed, "deterministic": True, "feature_fraction": 0.8,
    }  # fmt: skip
    chosen, sizes, weights = by_click(train, look)
    label = np.zeros(len(chosen))
    label[np.cumsum(sizes) - sizes] = 1
    data = lightgbm.Dataset(train.found[chosen], label, group=sizes, weight=weights)
    return lightgbm.train(options, data, settings.rounds)


def gains(rows: Shown, scores: Floats, look: Floats) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """How high clicks stand when lists are in the order of the scores, see `pipelines.evaluation.shown_lists`."""
    return click_gains(scores, rows.lists, rows.places, rows.clicked, look)


def calibrated(scores: Floats, clicked: NDArray[np.bool_], look: Floats) -> tuple[float, float]:
    """Slope and intercept of the logistic curve by which a click has the chance look * curve(score).

    J. Platt: Probabilistic outputs for support vector machines, 1999; the place's look is not the item's merit.
    """
    from scipy.optimize import minimize

    def loss(given: Floats) -> float:
        chance = np.clip(look * logistic(np.exp(given[0]) * scores + given[1]), 1e-9, 1 - 1e-9)
        return float(-np.where(clicked, np.log(chance), np.log1p(-chance)).mean() + 1e-4 * given[0] ** 2)

    best = minimize(loss, np.array([0.0, -1.0]), method="Nelder-Mead", options={"maxiter": 400, "xatol": 1e-4})
    return float(np.exp(best.x[0])), float(best.x[1])


def posterior(inner: Floats, clicked: NDArray[np.bool_], look: Floats) -> tuple[Floats, Floats]:
    """Weights of the last layer and a root of their covariance: Laplace's approximation around their mode.

    The prior is the calibrated score alone, of weight one; a click has the chance look * logistic.
    """
    prior = np.zeros(inner.shape[1])
    prior[0] = 1.0
    weights = prior.copy()
    precision = _PRIOR * np.eye(len(prior))
    for _ in range(15):  # Fisher scoring
        liking = np.clip(logistic(inner @ weights), 1e-6, 1 - 1e-6)
        chance = np.clip(look * liking, 1e-9, 1 - 1e-9)
        slope = look * liking * (1 - liking)
        score = inner.T @ (slope * (clicked - chance) / (chance * (1 - chance))) - _PRIOR * (weights - prior)
        fisher = (inner * (slope**2 / (chance * (1 - chance)))[:, None]).T @ inner + precision
        step = np.linalg.solve(fisher, score)
        weights = weights + step
        if np.abs(step).max() < 1e-6:
            break
    lower = np.linalg.cholesky(fisher)
    return weights, np.linalg.inv(lower).T


def fit_ranker(
    log: Log, retriever: Recommender, train: pd.DataFrame, valid: pd.DataFrame, settings: Any, seed: int
) -> tuple[Ranker, dict[str, bytes]]:
    """A ranker that learns from impressions, and the files that it is kept in.

    Args:
        retriever: that has not seen the impressions.  train: those to learn from; valid: those that stop the training
            and calibrate.  settings: a `pipelines.recipes.recommend.settings.RankerConfig`.

    Raises:
        PlatformError: ``code="bad_impressions"``: there are too few clicks to learn from.
    """
    rows, later = (shown(log, retriever, part, settings.lists, settings.windows) for part in (train, valid))
    clicks = int(rows.clicked.sum())
    if clicks < _LEAST_CLICKS or clicks == len(rows.clicked):
        raise PlatformError(
            f"a ranker cannot learn from {clicks:,} clicks on {len(rows.clicked):,} impressions",
            detail=f"at least {_LEAST_CLICKS} clicks are needed, and something that was shown and not clicked",
            fix="give impressions of a longer time, also those that nobody clicked, or leave ranker.kind none",
            code="bad_impressions",
        )
    look = position_bias(rows, seed) if settings.positions == "estimate" else np.ones(int(rows.places.max()) + 1)
    raw, files = _MAKERS[settings.kind](rows, later, look, settings, seed, len(log.items))
    held = later if int(later.clicked.sum()) >= _LEAST_CLICKS else rows
    scores = of_lists(raw, held)
    at = look[np.minimum(held.places, len(look) - 1)]
    slope, intercept = calibrated(scores, held.clicked, at)
    spec = RankerSpec(
        kind=settings.kind,
        features=[*FEATURES, *(WINDOWED if settings.windows else ())],
        slope=slope,
        intercept=intercept,
        looked=look.round(6).tolist(),
        candidates=settings.candidates,
    )
    mean, scale = rows.found.mean(axis=0, dtype=np.float64), rows.found.std(axis=0, dtype=np.float64)
    scale = np.where(scale > 1e-9, scale, 1.0)
    weights, spread = posterior(
        last_layer(logistic(slope * scores + intercept), held.found, mean, scale), held.clicked, at
    )
    arrays = {"rank.mean": mean, "rank.scale": scale, "rank.weights": weights, "rank.spread": spread}
    return Ranker(spec, raw, arrays), files


def at_moment(ranker: Ranker, log: Log, seconds: float, snapshot: pd.DataFrame | None = None) -> Ranker:
    """The ranker with the state of all items at a moment.

    Args:
        snapshot: features of the feature store at that moment, of all people and of all items, for a ranker that is
            told of them: columns user, item and `WINDOWED`.
    """
    import pandas as pd

    every = np.arange(len(log.items))
    state = item_state(log.item_of, log.seconds, every, np.full(len(every), seconds))
    arrays = {**ranker.arrays, STATE_ARRAY: state.astype(np.float32)}
    if snapshot is not None:
        found = windowed({name: snapshot[name].to_numpy() for name in WINDOWED}, len(snapshot))
        first, second = len(PERSON), len(PERSON) + len(ITEM)
        of = {"user": (log.users, found[:, :first]), "item": (log.items, found[:, first:second])}
        made = []
        for side, (names, values) in of.items():
            known = snapshot[side].notna().to_numpy()
            place = pd.Index(snapshot.loc[known, side]).get_indexer(names)
            nothing = windowed({}, 1)[0, :first] if side == "user" else np.zeros(len(ITEM))
            made.append(np.where((place >= 0)[:, None], values[known][place], nothing).astype(np.float32))
        arrays |= dict(zip(WINDOW_ARRAYS, (*made, found[-1, second:]), strict=True))
    return Ranker(ranker.spec, ranker.raw, arrays)


def of_lists(raw: Callable[..., Floats], rows: Shown) -> Floats:
    """Scores of all impressions, list by list."""
    starts = np.flatnonzero(np.diff(rows.lists, prepend=-1))
    ends = [*starts[1:].tolist(), len(rows.lists)]
    parts = [
        raw(rows.found[start:end], rows.items[start:end], history)
        for start, end, history in zip(starts.tolist(), ends, rows.histories, strict=True)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)


def _trees(
    rows: Shown, later: Shown, look: Floats, settings: Any, seed: int, items: int
) -> tuple[Callable[..., Floats], dict[str, bytes]]:
    from contracts.ranker import BOOSTER

    booster = lambdarank(rows, look, settings, seed)
    return booster_scores(booster), {BOOSTER: booster.model_to_string().encode()}


def _network(
    rows: Shown, later: Shown, look: Floats, settings: Any, seed: int, items: int
) -> tuple[Callable[..., Floats], dict[str, bytes]]:
    from pipelines.training.ranking_network import train_network

    return train_network(rows, later, look, settings, seed, items)


_MAKERS: dict[str, Callable[..., tuple[Callable[..., Floats], dict[str, bytes]]]] = {
    "lambdarank": _trees,
    "dlrm": _network,
}
