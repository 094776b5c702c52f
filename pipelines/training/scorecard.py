"""Scorecards: monotone bins, weight of evidence, logistic regression, and whole points that double the odds.

N. Siddiqi: Credit Risk Scorecards, 2006. The points are rounded, and the rounded card is the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from contracts.bundle import Input
from contracts.engines.scorecard import FILE, Attribute, Characteristic, Scorecard
from contracts.errors import PlatformError
from pipelines.formatting import number
from pipelines.search_space import Dimension
from pipelines.task import STRICT
from pipelines.training.binning import (
    Binned,
    Floats,
    Ints,
    bin_category,
    bin_number,
    each_category,
    fine_number,
    joined_alike,
)
from pipelines.training.boosting import Columns, Share, check_monotone


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ScorecardConfig:
    """A scorecard. `odds` good to bad have `points`, and twice as good ones `double` more.

    bins, min_share: of an input at most so many, each of at least that share of the rows.
    fit: ``evidence`` joins bins until each input goes one way, and weighs the evidence of an input as one. ``steps``
        takes fine bins, all categories, and a ridge regression on the steps between them, see
        `pipelines.training.step_weights`: better, of more lines, and an input that is in neither of the next two may
        turn. Its `c` is small, such as 0.005 of a thousand rows.
    rising, falling: numbers with which the chance of the second class never falls, or never rises; with ``evidence``
        any other number does one of both, whichever fits better.
    c: 1 / L2 of the regression.  hide_share: as in LightGBMConfig.
    """

    kind: Literal["scorecard"] = "scorecard"
    fit: Literal["evidence", "steps"] = "evidence"
    bins: Annotated[int, Field(ge=2)] = 6
    min_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    double: Annotated[float, Field(gt=0)] = 20.0
    odds: Annotated[float, Field(gt=0)] = 50.0
    points: int = 600
    c: float = 1.0
    rising: tuple[str, ...] = ()
    falling: tuple[str, ...] = ()
    calibration: Literal["platt", "isotonic", "none"] = "platt"
    hide_share: Share = 0.0

    SPACE: ClassVar[Mapping[str, Dimension]] = {
        "bins": Dimension(low=3, high=12),
        "min_share": Dimension(low=0.01, high=0.15, log=True),
        "c": Dimension(low=0.01, high=100.0, log=True),
    }


def fit_scorecard(
    inputs: Sequence[Input], x: Floats, y: Ints, weight: Floats, config: ScorecardConfig, seed: int
) -> Scorecard:
    """A card, not calibrated, of rows `x` of shape (rows, inputs), as `contracts.tabular_engine.matrix` makes them.

    An input whose weight would turn its bins around is left out, and so is one that tells nothing.

    Raises:
        PlatformError: ``code="bad_config"`` for a wrong name; ``code="bad_data"`` when nothing tells the classes apart.
    """
    strings = [item.name for item in inputs if item.dtype == "string"]
    columns = Columns(names=[item.name for item in inputs], categorical=strings, classes=2)
    check_monotone(columns, config.rising, config.falling)
    found = _FITS[config.fit](inputs, x, y, weight, config, seed)
    if found is None:
        raise PlatformError(
            "no input tells the two classes apart",
            detail=f"tried: {', '.join(columns.names)}",
            fix="give more rows, or other inputs",
            code="bad_data",
        )
    return found


def _of_evidence(
    inputs: Sequence[Input], x: Floats, y: Ints, weight: Floats, config: ScorecardConfig, seed: int
) -> Scorecard | None:
    from sklearn.linear_model import LogisticRegression

    binned = [_binned(item, x[:, at], y, weight, config) for at, item in enumerate(inputs)]
    evidence = np.column_stack([one.woe[one.place(x[:, at])] for at, one in enumerate(binned)])
    used = [at for at in range(len(inputs)) if np.ptp(evidence[:, at]) > 0]
    while used:
        model = LogisticRegression(C=config.c, max_iter=500, random_state=seed)
        model.fit(evidence[:, used], y, sample_weight=weight)
        turned = [at for at, slope in zip(used, model.coef_[0], strict=True) if slope >= 0]
        if not turned:
            slopes = zip(used, model.coef_[0], strict=True)
            added = {at: slope * binned[at].woe for at, slope in slopes}
            return _card(inputs, binned, added, model.intercept_[0], config)
        worst = max(zip(used, model.coef_[0], strict=True), key=lambda pair: pair[1])[0]
        used = [at for at in used if at != worst]
    return None


def _of_steps(
    inputs: Sequence[Input], x: Floats, y: Ints, weight: Floats, config: ScorecardConfig, seed: int
) -> Scorecard | None:
    from pipelines.training.step_weights import fit_steps

    binned = [
        each_category(x[:, at], len(item.categories or []), y, weight, config.min_share)
        if item.dtype == "string"
        else fine_number(x[:, at], y, weight, config.bins, config.min_share)
        for at, item in enumerate(inputs)
    ]
    added, bias = fit_steps(binned, x, y, weight, config.c, [_direction(item, config) for item in inputs])
    telling = {at: bins for at, bins in enumerate(added) if np.ptp(bins) > 0}
    return _card(inputs, binned, telling, bias, config) if telling else None


_FITS = {"evidence": _of_evidence, "steps": _of_steps}


def log_odds(card: Scorecard, inputs: Sequence[Input], x: Floats) -> Floats:
    """Raw log-odds of the positive class, as the engine computes them."""
    names = [item.name for item in inputs]
    score = np.full(len(x), float(card.base))
    for one in card.characteristics:
        zero = np.zeros(len(one.attributes))
        place = Binned(edges=one.edges, groups=one.groups, weight=zero, positive=zero).place(
            x[:, names.index(one.name)]
        )
        score += np.array([each.points for each in one.attributes])[place]
    found: Floats = (card.level - score) * np.log(2) / card.double
    return found


def save_scorecard(card: Scorecard, calibration: Mapping[str, Any], out: Path) -> None:
    """Write the calibrated card."""
    whole = card.model_copy(update={"calibration": dict(calibration)})
    (out / FILE).write_text(whole.model_dump_json(indent=1) + "\n", encoding="utf-8")


def _binned(item: Input, x: Floats, y: Ints, weight: NDArray[np.float64], config: ScorecardConfig) -> Binned:
    if item.dtype == "string":
        return bin_category(x, len(item.categories or []), y, weight, config.bins, config.min_share)
    return bin_number(x, y, weight, config.bins, config.min_share, _direction(item, config))


def _direction(item: Input, config: ScorecardConfig) -> int:
    return int(item.name in config.rising) - int(item.name in config.falling)


def _card(
    inputs: Sequence[Input], binned: Sequence[Binned], added: Mapping[int, Floats], bias: float, config: ScorecardConfig
) -> Scorecard:
    """`added`: the log-odds of the positive class of each bin, of each input that is on the card."""
    factor = config.double / np.log(2)
    level = config.points - factor * np.log(config.odds)
    base, characteristics = level - factor * bias, []
    for at, odds in added.items():
        exact = -factor * odds
        lowest = float(exact.min())
        base += lowest
        one, points = binned[at], np.round(exact - lowest).astype(np.int64)
        if config.fit == "steps":
            one, points = joined_alike(one, points)
        share = one.weight / one.weight.sum()
        lines = zip(_said(inputs[at], one), points.tolist(), share, one.rate, one.woe, strict=True)
        characteristics.append(
            Characteristic(
                name=inputs[at].name,
                edges=one.edges,
                groups=one.groups,
                mean=float(share @ points),
                attributes=[
                    Attribute(said=said, points=int(given), share=float(part), rate=float(rate), woe=float(woe))
                    for said, given, part, rate, woe in lines
                ],
            )
        )
    return Scorecard(
        base=round(base),
        double=config.double,
        level=level,
        characteristics=characteristics,
        calibration={"kind": "none"},
    )


def _said(item: Input, one: Binned) -> list[str]:
    """The values of each bin in words."""
    if one.edges is None:
        names = item.categories or []
        bins = range(len(one.weight) - 1)
        joined = [", ".join(n for n, at in zip(names, one.groups or [], strict=True) if at == each) for each in bins]
        return [*joined, "missing or another"]
    if not one.edges:
        return ["any", "missing"]
    ends = [number(edge) for edge in one.edges]
    between = [f"{low} to below {high}" for low, high in pairwise(ends)]
    return [f"below {ends[0]}", *between, f"{ends[-1]} and more", "missing"]
