"""From small fits to the whole: what lies on a law is found, and a band is never turned round."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.forecast import amount, learning_curve

SIZES = [1000.0, 2000.0, 4000.0]


@given(st.floats(0.0, 50.0), st.floats(1e-5, 1e-1), st.floats(4000, 100_000))
def test_what_grows_in_line_is_within_the_band(fixed: float, each: float, target: float) -> None:
    band = amount(SIZES, [fixed + each * size for size in SIZES], target)
    assert band.low <= fixed + each * target <= band.high
    assert band.low <= band.likely <= band.high


@given(st.lists(st.floats(0.01, 1e6), min_size=3, max_size=3), st.floats(100, 1e6))
def test_a_band_is_in_order_whatever_was_measured(values: list[float], target: float) -> None:
    band = amount(SIZES, values, target)
    assert 0 <= band.low <= band.likely * 1.0001
    assert band.likely <= band.high * 1.0001
    if target >= SIZES[-1]:
        assert band.high >= values[-1]


def test_one_fit_that_had_to_wait_does_not_raise_the_whole() -> None:
    seconds = [9.0, 1.0, 1.1, 1.0, 1.5, 1.6, 2.5]
    band = amount([1000.0, 1000.0, 1000.0, 1000.0, 2000.0, 2000.0, 4000.0], seconds, 10_000)
    assert 4.0 < band.likely < 9.0


def test_one_size_alone_is_scaled() -> None:
    assert amount([1000.0, 1000.0], [2.0, 2.0], 3000).high >= 6.0


@pytest.mark.parametrize(("floor", "slope"), [(0.0, 0.2), (0.0, 0.5), (0.1, 0.5), (0.1, 1.0), (0.2, 0.5)])
def test_an_error_that_follows_either_form_is_within_the_band(floor: float, slope: float) -> None:
    def truth(rows: float) -> float:
        return floor + 0.5 * (rows / 500.0) ** -slope

    rng = np.random.default_rng(0)
    errors = {size: [truth(size) * float(np.exp(rng.normal(0, 0.002))) for _ in range(3)] for size in SIZES}
    band, far = learning_curve(errors, [10_000, 40_000])
    assert 0.95 * band.low <= truth(10_000) <= 1.05 * band.high
    assert far.likely <= band.likely * 1.0001


def test_a_curve_that_is_nearly_flat_is_not_said_to_go_on_falling() -> None:
    """Its floor is within 3 % of the least error that was seen."""
    truth = {rows: 0.227 + 0.0254 * (rows / 700.0) ** -1.17 for rows in (700.0, 1400.0, 2800.0, 14_000.0)}
    (band,) = learning_curve({rows: [value] * 3 for rows, value in truth.items() if rows < 3000}, [14_000])
    assert band.low <= truth[14_000] <= band.high


def test_errors_that_rise_with_rows_promise_nothing() -> None:
    (band,) = learning_curve({1000.0: [0.1], 2000.0: [0.11], 4000.0: [0.13]}, [10_000])
    assert band.likely == pytest.approx(0.113, abs=0.02)


def test_a_curve_is_the_same_every_time() -> None:
    errors = {1000.0: [0.3, 0.31], 2000.0: [0.25, 0.24], 4000.0: [0.2]}
    assert learning_curve(errors, [9000]) == learning_curve(errors, [9000])
