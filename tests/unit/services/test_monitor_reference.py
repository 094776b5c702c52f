"""In which bin of the reference a logged value falls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.baseline import category, describe, number, variation
from contracts.bundle import Input
from services.monitor.reference import ABSENT, FIRST, FOREIGN, LACKED, MISSING, ODD, UNSAID, Column, column_of


def _column(described: dict[str, Any], item: Input | None = None) -> Column:
    found = column_of("x", described, item)
    assert isinstance(found, Column), found
    return found


SEVENTHS = st.integers(-(10**6), 10**6).map(lambda value: value / 7)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.one_of(st.none(), SEVENTHS, st.sampled_from([0.0, 1 / 3, 2 / 3])), min_size=1, max_size=60))
def test_the_rows_of_the_baseline_fall_as_it_says(values: list[float | None]) -> None:
    column = _column(number(np.array(values, dtype=np.float64)))
    counts = np.bincount(column.place(values), minlength=len(column.bins))
    assert column.shares.sum() == pytest.approx(1)
    assert counts / len(values) == pytest.approx(column.shares, abs=1e-6)


def test_a_value_that_most_rows_have_is_told_from_the_others() -> None:
    column = _column(number(np.array([0.0] * 960 + [1.0] * 40)))
    assert column.shares[FIRST:].tolist() == pytest.approx([0.96, 0.04])
    risk = _column(number(np.concatenate([np.zeros(900), np.linspace(0.01, 1, 100)])))
    assert risk.shares[FIRST] == pytest.approx(0.9)
    assert len(risk.shares) - FIRST == 5


def test_what_varies_by_the_hour_is_described_so() -> None:
    seconds = np.arange(0, 14 * 86_400, 120)
    hours, steady = seconds / 3_600 % 24, np.random.default_rng(2).normal(size=len(seconds))
    assert variation(hours, number(hours), seconds)["hour"] > 1
    assert variation(hours, number(hours), seconds)["day"] == 0
    assert variation(steady, number(steady), seconds) == {"hour": pytest.approx(0, abs=0.01), "day": 0}


def test_numbers_that_are_none_are_told_apart() -> None:
    column = _column(number(np.linspace(0, 100, 1_001)))
    places = column.place([None, 101.0, -1, ABSENT, "7", 100.0, 0.0, True])
    assert places.tolist() == [MISSING, FOREIGN, FOREIGN, LACKED, ODD, len(column.bins) - 1, FIRST, FIRST]


def test_a_constant_is_at_home_and_everything_else_is_foreign() -> None:
    column = _column(number(np.full(50, 0.1234567891234)))
    assert column.place([0.1234567891234, 0.2, None]).tolist() == [FIRST, FOREIGN, MISSING]
    assert column.shares.tolist() == [0, 0, 0, 0, 1]


def test_an_input_that_never_had_a_value_expects_none() -> None:
    column = _column(number(np.full(5, np.nan)))
    assert column.place([None, 3.0]).tolist() == [MISSING, FOREIGN]
    assert column.shares.tolist() == [1, 0, 0, 0]


def test_ten_thousand_categories_are_few_bins() -> None:
    names = [f"c{at}" for at in range(10_000)]
    item = Input(name="x", dtype="string", categories=names)
    column = _column(category([*names, *["c1"] * 5_000, *["c2"] * 3_000, ""]), item)
    assert column.bins == ("(missing)", "(new)", "(absent)", "(other type)", "c1", "c2", "(other)")
    assert column.shares.sum() == pytest.approx(1)
    places = column.place(["c1", "c9999", {"chars": 4}, {"chars": 0}, "", None, ABSENT, 3])
    assert places.tolist() == [FIRST, FIRST + 2, FOREIGN, MISSING, MISSING, MISSING, LACKED, ODD]


def test_texts_are_watched_by_their_length_whatever_the_log_keeps() -> None:
    texts = [f"{'word ' * (at % 40)}{at}" for at in range(2_000)]
    item = Input(name="x", dtype="string")
    column = _column(describe(np.array(texts, dtype=object), item), item)
    assert column.kind == "text"
    logged = [{"chars": len(text)} for text in texts]
    assert np.bincount(column.place(logged), minlength=len(column.bins)) / 2_000 == pytest.approx(column.shares)
    assert column.place([{"chars": 0}, {"hash": "ab", "chars": 9_999}, "the beginning"]).tolist() == [
        MISSING,
        FOREIGN,
        UNSAID,
    ]


def test_categories_that_are_not_declared_are_logged_and_watched_as_texts() -> None:
    item = Input(name="x", dtype="string")
    described = describe(np.array(["red", "green"] * 50, dtype=object), item)
    assert described["kind"] == "category"
    column = _column(described, item)
    assert (column.kind, column.bins[FIRST:]) == ("text", ("3 to 4", "4 to 5"))
    described.pop("length")  # as older bundles are
    assert "only the length" in str(column_of("x", described, item))


@pytest.mark.parametrize(
    ("described", "item", "reason"),
    [
        ({"kind": "number"}, Input(name="x", dtype="bytes"), "nothing of a file"),
        ({"kind": "graph"}, None, "graph"),
    ],
)
def test_what_cannot_be_watched_says_why(described: dict[str, Any], item: Input | None, reason: str) -> None:
    assert reason in str(column_of("x", described, item))
