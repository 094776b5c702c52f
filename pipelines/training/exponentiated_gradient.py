"""How much a group must gain so that a model keeps a constraint: by fairlearn's exponentiated gradient.

A. Agarwal et al.: A reductions approach to fair classification, 2018. The method ends with a lottery over models, in
which the same applicant gets one answer today and another tomorrow. What is taken from it is one of its models: its
multipliers, which say what each row's answers gain and lose, and by which the recipe's own model is trained.
"""

from __future__ import annotations

import warnings
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from contracts.errors import PlatformError
from pipelines.settings import setting

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Constraint = Literal["demographic_parity", "equalized_odds"]
_CLASSES = {"demographic_parity": "DemographicParity", "equalized_odds": "EqualizedOdds"}
_ROUNDS = 25
_TREES: dict[str, Any] = {
    "objective": "binary",
    "num_leaves": 15,
    "learning_rate": 0.15,
    "verbose": -1,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "seed": 7,
}
_GROWN = 60


def gains(
    x: Floats,
    group: NDArray[Any],
    label: Ints,
    strength: float,
    constraint: Constraint,
    costs: tuple[float, float],
    column: str,
) -> dict[tuple[str, int], float]:
    """What the second class gains over the first in each group of each label.

    Args:
        x: shape (rows, inputs), a category as its number.  group, label: shape (rows,), all groups stated.
        strength: share of the constraint's largest violation, by a model without it, that is to go.
        costs: of a false alarm and of a miss.

    Raises:
        PlatformError: ``code="missing_package"`` without fairlearn; ``code="bad_config"``: a strength above 1;
            ``code="bad_data"``: equal errors, and a group of one class.
    """
    if strength > 1:
        raise PlatformError(
            f"a strength of {strength:g} takes away more than there is",
            detail="with mitigation.method=exponentiated_gradient it is a share of the gap",
            fix=setting("mitigation.strengths", [0.0, 0.5, 0.8, 1.0]),
            code="bad_config",
        )
    one_sided = [str(name) for name in sorted(set(group)) if len(set(label[group == name].tolist())) < 2]
    if one_sided and constraint == "equalized_odds":
        raise PlatformError(
            f"all training rows of group {one_sided[0]!r} of {column!r} are of one class",
            detail=f"{int((group == one_sided[0]).sum())} rows, so that it has no rate of errors in the other class",
            fix=f"give more rows, or another constraint: {setting('mitigation.constraint', 'demographic_parity')}",
            code="bad_data",
        )
    reductions = _reductions()
    rows, trees = np.arange(len(label))[:, None], _trees(x)
    objective, plain = {"fp": costs[0], "fn": costs[1]}, trees()
    plain.fit(rows, label, sample_weight=np.where(label == 1, costs[1], costs[0]))
    bound = (1 - strength) * _violation(reductions, constraint, rows, label, group, plain)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        search = reductions.ExponentiatedGradient(
            trees(),
            getattr(reductions, _CLASSES[constraint])(difference_bound=max(bound, 1e-4)),
            objective=reductions.ErrorRate(costs=objective),
            max_iter=_ROUNDS,
        )
        search.fit(rows, label, sensitive_features=group)
    moments = search.constraints_
    tried = [*(search.lambda_vecs_[at] for at in search.lambda_vecs_), *_means(search)]
    return _one(tried, moments, trees, rows, group, label, costs, bound)


def _one(
    tried: list[pd.Series[Any]],
    moments: Any,
    trees: Any,
    rows: Ints,
    group: NDArray[Any],
    label: Ints,
    costs: tuple[float, float],
    bound: float,
) -> dict[tuple[str, int], float]:
    """Of the multipliers that were tried, those whose model costs least within the bound, or is nearest to it."""
    gain = np.where(label == 1, costs[1], -costs[0])
    found: list[tuple[bool, float, dict[tuple[str, int], float]]] = []
    for multipliers in tried:
        push = moments.signed_weights(multipliers).to_numpy()
        total = gain + push
        model = trees()
        model.fit(rows, (total > 0).astype(np.int64), sample_weight=np.abs(total))
        violation = float(moments.gamma(model.predict).max())
        kept = violation <= bound + 1 / np.sqrt(len(label))
        price = float(np.abs(gain[model.predict(rows) != label]).sum())
        table: dict[tuple[str, int], float] = {}
        for name, value in product(sorted(set(group.tolist())), (0, 1)):
            some = push[(group == name) & (label == value)]  # of one class only: what its other rows gain
            table[str(name), value] = float(some[0] if len(some) else push[group == name][0])
        found.append((not kept, price if kept else violation, table))
    return min(found, key=lambda one: one[:2])[2]


def _means(search: Any) -> list[pd.Series[Any]]:
    """The multipliers of the saddle point that was found, by both ways to it."""
    best = search.best_iter_
    mean = search.lambda_vecs_EG_.iloc[:, : best + 1].mean(axis=1)
    program = search.lambda_vecs_LP_
    return [mean, *([program[best]] if best in program else [])]


def _violation(reductions: Any, constraint: str, rows: Ints, label: Ints, group: Any, model: Any) -> float:
    """How far the worst group is from all rows."""
    import pandas as pd

    moments = getattr(reductions, _CLASSES[constraint])()
    moments.load_data(rows, pd.Series(label), sensitive_features=pd.Series(group))
    return float(moments.gamma(model.predict).max())


def _trees(x: Floats) -> Any:
    """A quick model of the rows `x`, which it is told by their numbers: the search fits dozens."""
    import lightgbm
    from sklearn.base import BaseEstimator, ClassifierMixin

    data = lightgbm.Dataset(x, np.zeros(len(x)), params={"verbose": -1}, free_raw_data=False).construct()

    class Trees(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
        def fit(self, rows: Any, label: Any, sample_weight: Any = None) -> Any:
            data.set_label(np.asarray(label, dtype=np.float64)).set_weight(np.asarray(sample_weight))
            self.classes_ = np.array([0, 1])
            said = np.asarray(lightgbm.train(_TREES, data, _GROWN).predict(x, raw_score=True))
            self.answers_ = (said > 0).astype(np.int64)
            return self

        def predict(self, rows: Any) -> Any:
            return self.answers_[np.asarray(rows)[:, 0].astype(np.int64)]

    return Trees


def _reductions() -> Any:
    try:
        from fairlearn import reductions
    except ImportError as err:
        raise PlatformError(
            "mitigation.method=exponentiated_gradient needs fairlearn, which is not installed",
            fix="pip install 'fairlead[pipelines]'",
            code="missing_package",
        ) from err
    return reductions
