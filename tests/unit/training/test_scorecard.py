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
from pipelines.evaluation.scoring import provisional
from pipelines.training.binning import bin_category, bin_number
from pipelines.training.scorecard import ScorecardConfig, fit_scorecard, log_odds, save_scorecard

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


def test_the_engine_answers_as_training_computes_and_reasons_add_up(tmp_path: Path) -> None:
    card = fitted()
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
