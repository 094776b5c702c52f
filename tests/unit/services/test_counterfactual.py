"""Counterfactuals: allowed changes only, as small as was tried, and what is told flips the answer."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.bundle import Input
from services.model.counterfactual import Counterfactuals

INPUTS = [
    Input(name="income", dtype="float64"),
    Input(name="debts", dtype="float64"),
    Input(name="home", dtype="string", categories=["own", "rent"]),
]
NORMAL = {
    "income": {"edges": [0.0, 1000.0, 2000.0, 4000.0], "shares": [0.3, 0.4, 0.3]},
    "debts": {"edges": [0.0, 500.0, 3000.0], "shares": [0.5, 0.5]},
}
WAYS = {"income": "up", "debts": "down", "home": "any"}


def points(columns: Any) -> Any:
    return columns["income"] - columns["debts"] + np.where(columns["home"] == "own", 300.0, 0.0)


def searching(limit: float, ways: dict[str, str] = WAYS) -> Counterfactuals:
    return Counterfactuals(INPUTS, ways, NORMAL, lambda columns: (points(columns) >= limit, points(columns) / 10_000))


@settings(max_examples=60, deadline=None)
@given(
    income=st.floats(0, 4000),
    debts=st.floats(0, 3000),
    home=st.sampled_from(["own", "rent"]),
    limit=st.floats(-500, 6000),
)
def test_what_is_told_flips_the_answer_and_goes_the_allowed_way(
    income: float, debts: float, home: str, limit: float
) -> None:
    row = {"income": income, "debts": debts, "home": home}
    found = searching(limit).of(row)
    if found is None:
        assert limit > 4300  # all income, no debts, a home of one's own
        return
    assert len({one["feature"] for one in found}) == len(found) > 0
    changed = row | {one["feature"]: one["to"] for one in found}
    assert points({name: np.array([value], dtype=object) for name, value in changed.items()})[0] >= limit
    assert all(one["from"] == row[one["feature"]] for one in found)
    assert changed["income"] >= income
    assert changed["debts"] <= debts


def test_the_smaller_change_is_told_and_drawn_back() -> None:
    row = {"income": 1000.0, "debts": 100.0, "home": "own"}
    (only,) = searching(1500.0).of(row) or []
    assert only["feature"] == "income"
    assert 1300 <= only["to"] <= 1350


def test_two_changes_where_one_is_not_enough_and_none_where_none_is() -> None:
    row = {"income": 3000.0, "debts": 3000.0, "home": "rent"}
    found = searching(2500.0, {"income": "up", "debts": "down"}).of(row)
    assert {one["feature"] for one in found or []} == {"debts"}
    assert {one["feature"] for one in searching(3900.0).of(row) or []} == {"income", "debts"}
    assert searching(1e6).of(row) is None
    assert searching(2500.0, {}).of(row) is None
    assert searching(5000.0, {"income": "up"}).of(row | {"income": float("nan")}) is None


def test_a_refusal_is_told_with_which_change_it_would_be_none(serve: Any, make_bundle: Any, tmp_path: Any) -> None:
    (tmp_path / "source").mkdir()
    given = {"favourable": "genuine", "texts": {"amount": {"en": "a", "zh": "b"}}, "changes": {"amount": "down"}}
    (tmp_path / "source" / "reasons.json").write_text(json.dumps(given))
    normal = {"inputs": {"amount": {"edges": [0.0, 100.0, 200.0, 900.0], "shares": [0.3, 0.3, 0.4]}}}
    (tmp_path / "source" / "baseline.json").write_text(json.dumps(normal))
    served = serve(make_bundle())
    rows = [{"amount": amount, "country": "AT"} for amount in (500, 100)]
    refused, fine = served.predict(*rows, counterfactual=True).json()["predictions"]
    assert refused["counterfactual"]["possible"] is True
    (change,) = refused["counterfactual"]["changes"]
    assert change["feature"] == "amount"
    assert 200 <= change["to"] < 300
    assert "counterfactual" not in fine
    assert "counterfactual" not in served.predict(rows[0]).json()["predictions"][0]
    assert served.predict(rows[0], counterfactual=1).status_code == 422


def test_a_refusal_that_no_allowed_change_would_flip_says_so(serve: Any, make_bundle: Any, tmp_path: Any) -> None:
    (tmp_path / "source").mkdir()
    given = {"favourable": "genuine", "texts": {"amount": {"en": "a", "zh": "b"}}, "changes": {"amount": "up"}}
    (tmp_path / "source" / "reasons.json").write_text(json.dumps(given))
    normal = {"inputs": {"amount": {"edges": [0.0, 100.0, 200.0, 900.0], "shares": [0.3, 0.3, 0.4]}}}
    (tmp_path / "source" / "baseline.json").write_text(json.dumps(normal))
    (refused,) = (
        serve(make_bundle()).predict({"amount": 500, "country": "AT"}, counterfactual=True).json()["predictions"]
    )
    assert refused["counterfactual"] == {"possible": False, "changes": []}


def test_a_model_without_changes_refuses(serve: Any, make_bundle: Any) -> None:
    refused = serve(make_bundle()).predict({"amount": 500, "country": "AT"}, counterfactual=True)
    assert refused.status_code == 422
    assert refused.json()["type"].endswith("no-counterfactual")


@pytest.mark.parametrize("old", [0.0, 4000.0])
def test_an_input_at_its_end_has_nowhere_to_go(old: float) -> None:
    way = "down" if old == 0 else "up"
    assert searching(1e5, {"income": way}).of({"income": old, "debts": 0.0, "home": "own"}) is None
