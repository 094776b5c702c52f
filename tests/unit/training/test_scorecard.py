"""Scorecards: bins keep their direction, the card is the model, and reasons add up to its score."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.bundle import Input
from contracts.engines import load_engine
from contracts.engines.scorecard import read_scorecard
from contracts.errors import PlatformError
from contracts.tabular_engine import matrix
from pipelines.evaluation.measures import auc
from pipelines.evaluation.scoring import provisional
from pipelines.training.binning import bin_category, bin_number, each_category, fine_number, joined_alike
from pipelines.training.scorecard import ScorecardConfig, fit_scorecard, log_odds, save_scorecard
from pipelines.training.step_weights import fit_steps

INPUTS = [
    Input(name="income", dtype="float64"),
    Input(name="late", dtype="float64"),
    Input(name="home", dtype="string", categories=["own", "rent", "free"]),
]


def rows(count: int, seed: int) -> tuple[dict[str, Any], Any]:
    rng = np.random.default_rng(seed)
    income, late = rng.gamma(4, 500, count), rng.poisson(1.0, count).astype(float)
    home = rng.choice(["own", "rent", "free"], count).astype(object)
    odds = 0.5 - income / 1000 + 0.7 * late + np.where(home == "rent", 0.5, 0.0)
    income[rng.random(count) < 0.1] = np.nan
    return {"income": income, "late": late, "home": home}, (rng.random(count) < 1 / (1 + np.exp(-odds))).astype(int)


def fitted(**changes: Any) -> Any:
    given, y = rows(3000, 1)
    return fit_scorecard(INPUTS, matrix(INPUTS, given), y, np.ones(len(y)), ScorecardConfig(**changes), 7)


def engine_of(folder: Path, card: Any) -> Any:
    (folder / "model").mkdir()
    save_scorecard(card, {"kind": "none"}, folder / "model")
    fields = {
        "name": "loans",
        "task": "loans",
        "recipe": "scorecard",
        "modality": "tabular",
        "engine": "scorecard",
        "signature": {"inputs": [item.model_dump() for item in INPUTS], "classes": ["repaid", "default"]},
        "lineage": {"code_version": "", "data_version": "", "source": "", "seed": 1},
    }
    return load_engine(provisional(folder, fields))


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(float("nan"))), min_size=2, max_size=80),
    seed=st.integers(0, 9),
    direction=st.sampled_from([-1, 0, 1]),
)
def test_the_share_of_the_positive_class_never_turns(values: list[float], seed: int, direction: int) -> None:
    x, y = np.array(values), np.random.default_rng(seed).integers(0, 2, len(values))
    found = bin_number(x, y, np.ones(len(x)), most=5, least=0.05, direction=direction)
    shares = found.positive[:-1] / np.maximum(found.weight[:-1], 1e-12)
    turns = set(np.sign(np.diff(shares)))
    assert len(turns) <= 1
    assert direction == 0 or turns <= {direction}
    assert 2 <= len(found.weight) <= 6
    assert found.weight.sum() == len(x)
    assert np.bincount(found.place(x), minlength=len(found.weight)).tolist() == found.weight.tolist()


@settings(max_examples=40, deadline=None)
@given(codes=st.lists(st.integers(-1, 5), min_size=1, max_size=60), seed=st.integers(0, 9))
def test_every_category_has_one_bin(codes: list[int], seed: int) -> None:
    x = np.where(np.array(codes) < 0, np.nan, np.array(codes, dtype=float))
    y = np.random.default_rng(seed).integers(0, 2, len(x))
    found = bin_category(x, 6, y, np.ones(len(x)), most=3, least=0.05)
    assert found.groups is not None
    assert len(found.groups) == 6
    assert len(found.weight) <= 4
    assert np.bincount(found.place(x), minlength=len(found.weight)).tolist() == found.weight.tolist()


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(0.0), st.just(float("nan"))), min_size=2, max_size=80),
    seed=st.integers(0, 9),
    most=st.integers(2, 30),
)
def test_fine_bins_hold_every_row_once_and_alike_neighbours_become_one(
    values: list[float], seed: int, most: int
) -> None:
    rng = np.random.default_rng(seed)
    x, y = np.array(values), rng.integers(0, 2, len(values))
    found = fine_number(x, y, np.ones(len(x)), most, 0.05)
    assert np.bincount(found.place(x), minlength=len(found.weight)).tolist() == found.weight.tolist()
    assert len(found.weight) == 2 or found.weight[:-1].min() >= 0.05 * len(x)
    codes = np.where(np.isnan(x), np.nan, rng.integers(0, 6, len(x)))
    for given_to, binned in ((x, found), (codes, each_category(codes, 6, y, np.ones(len(x)), 0.1))):
        points = rng.integers(0, 2, len(binned.weight))
        joined, left = joined_alike(binned, points)
        assert left[joined.place(given_to)].tolist() == points[binned.place(given_to)].tolist()
        assert joined.weight.sum() == pytest.approx(len(x))
        assert joined.positive.sum() == pytest.approx(binned.positive.sum())


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 99), c=st.sampled_from([0.001, 0.1, 10.0]), direction=st.sampled_from(["rising", "falling"]))
def test_steps_against_the_direction_of_an_input_are_none(seed: int, c: float, direction: str) -> None:
    given, y = rows(300, seed)
    one_way: dict[str, Any] = {direction: ("income", "late")}
    config = ScorecardConfig(fit="steps", bins=12, min_share=0.01, c=c, **one_way)
    try:
        card = fit_scorecard(INPUTS, matrix(INPUTS, given), y, np.ones(len(y)), config, 7)
    except PlatformError as err:
        assert err.code == "bad_data"  # noqa: PT017  nothing is left that tells the classes apart
        return
    for one in card.characteristics:
        if one.edges is not None:
            points = [line.points for line in one.attributes[:-1]]
            assert points == sorted(points, reverse=direction == "rising")


def test_steps_find_the_middle_that_is_best() -> None:
    rng = np.random.default_rng(3)
    x = np.stack([rng.uniform(0, 100, 4000), rng.poisson(1.0, 4000).astype(float), rng.integers(0, 3, 4000)], axis=1)
    y = (rng.random(4000) < 1 / (1 + np.exp(2 - np.abs(x[:, 0] - 50) / 10))).astype(int)
    areas = {}
    for fit in ("evidence", "steps"):
        card = fit_scorecard(INPUTS, x, y, np.ones(4000), ScorecardConfig(fit=fit, bins=20, min_share=0.01, c=0.1), 7)
        areas[fit] = auc(y == 1, log_odds(card, INPUTS, x))
    assert areas["steps"] > 0.75
    assert areas["steps"] > areas["evidence"] + 0.1


def test_rows_that_weigh_twice_are_rows_that_are_there_twice() -> None:
    given, y = rows(400, 5)
    x = matrix(INPUTS, given)
    binned = [fine_number(x[:, at], y, np.ones(len(y)), 8, 0.02) for at in (0, 1)]
    once, bias = fit_steps(binned, x[:, :2], y, np.full(len(y), 2.0), 0.05, [0, 0])
    twice, other = fit_steps(binned, np.repeat(x[:, :2], 2, axis=0), np.repeat(y, 2), np.ones(2 * len(y)), 0.05, [0, 0])
    assert bias == pytest.approx(other, abs=1e-4)
    for one, two in zip(once, twice, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-3)


@pytest.mark.parametrize("fit", ["evidence", "steps"])
def test_the_engine_answers_as_training_computes_and_reasons_add_up(fit: str, tmp_path: Path) -> None:
    card = fitted(fit=fit, bins=10)
    engine, (columns, _) = engine_of(tmp_path, card), rows(200, 2)
    columns["home"][0] = "castle"
    odds = log_odds(card, INPUTS, matrix(INPUTS, columns))
    answers = engine.predict(columns)
    assert answers[:, 1] == pytest.approx(1 / (1 + np.exp(-odds)))
    normal = card.base + sum(one.mean for one in card.characteristics)
    usual = (card.level - normal) * np.log(2) / card.double
    said = [sum(reason.contribution for reason in row) for row in engine.explain(columns, 3)]
    assert said == pytest.approx(odds - usual)


def test_points_are_whole_and_double_the_odds() -> None:
    card = fitted(double=30.0, odds=20.0, points=500)
    assert card.level == pytest.approx(500 - 30 / np.log(2) * np.log(20))
    assert all(min(line.points for line in one.attributes) == 0 for one in card.characteristics)
    more = card.model_copy(update={"base": card.base + 30})
    x = matrix(INPUTS, rows(5, 3)[0])
    assert log_odds(card, INPUTS, x) - log_odds(more, INPUTS, x) == pytest.approx(np.log(2))


def test_a_better_income_never_costs_points_and_what_is_missing_has_a_line() -> None:
    income = fitted(falling=("income",)).characteristics[0]
    points = [line.points for line in income.attributes]
    assert points[:-1] == sorted(points[:-1])
    assert income.attributes[-1].said == "missing"
    assert income.attributes[-1].share == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rising": ("home",)}, "model.rising names 'home'"),
        ({"falling": ("wealth",)}, "model.falling names 'wealth'"),
        ({"rising": ("late",), "falling": ("late",)}, "both name 'late'"),
    ],
)
def test_a_direction_that_makes_no_sense_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(PlatformError, match=said):
        fitted(**changes)


def test_inputs_that_tell_nothing_are_refused() -> None:
    x, y = np.full((40, 3), np.nan), np.arange(40) % 2
    with pytest.raises(PlatformError, match="no input tells the two classes apart"):
        fit_scorecard(INPUTS, x, y, np.ones(40), ScorecardConfig(), 7)


def test_a_broken_card_is_no_card(tmp_path: Path) -> None:
    save_scorecard(fitted(), {"kind": "none"}, tmp_path)
    document = json.loads((tmp_path / "scorecard.json").read_text())
    document["characteristics"][0]["attributes"].pop()
    (tmp_path / "scorecard.json").write_text(json.dumps(document))
    with pytest.raises(PlatformError, match="is no scorecard"):
        read_scorecard(tmp_path)
