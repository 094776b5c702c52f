"""Distances, their noise, and evidence that may be looked at at any time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.baseline import number
from services.monitor import divergence, evidence
from services.monitor.panes import Panes
from services.monitor.reference import Column, column_of
from services.monitor.rules import Rules
from services.monitor.tested import ColumnTests
from tests.bench.monitoring import false_alarms

ONE = np.array([0])
COUNTS = st.lists(st.integers(0, 5_000), min_size=4, max_size=4)


@given(st.floats(1e-3, 1e7))
def test_log_gamma_is_the_logarithm_of_gamma(value: float) -> None:
    assert divergence.log_gamma(np.array([value]))[0] == pytest.approx(math.lgamma(value), rel=1e-9, abs=1e-9)


@given(COUNTS, COUNTS)
def test_distances_are_zero_for_equal_shares_symmetric_and_never_negative(now: list[int], then: list[int]) -> None:
    here, there = np.array([now], dtype=float), np.array([then], dtype=float)
    psi = divergence.stability_index(here, there, ONE)[0, 0]
    js = divergence.jensen_shannon(here, there, ONE)[0, 0]
    assert psi >= 0
    assert 0 <= js <= 1
    assert divergence.stability_index(here, here, ONE)[0, 0] == pytest.approx(0, abs=1e-12)
    assert divergence.jensen_shannon(here, here, ONE)[0, 0] == pytest.approx(0, abs=1e-6)
    if sum(now) and sum(then):
        assert psi == pytest.approx(divergence.stability_index(there, here, ONE)[0, 0])
        assert js == pytest.approx(divergence.jensen_shannon(there, here, ONE)[0, 0], abs=1e-9)


@pytest.mark.parametrize(("rows", "reference_rows"), [(300, 8_000), (5_000, 1_000), (2_000, 2_000)])
def test_without_drift_the_index_is_what_chance_gives(rows: int, reference_rows: int) -> None:
    rng, shares = np.random.default_rng(4), np.full(10, 0.1)
    now = rng.multinomial(rows, shares, size=400).astype(float)
    then = rng.multinomial(reference_rows, shares, size=400).astype(float)
    found = np.array([divergence.stability_index(a[None], b, ONE)[0, 0] for a, b in zip(now, then, strict=True)])
    given_rows = np.array([float(rows)]), np.array([float(reference_rows)])
    assert found.mean() == pytest.approx(divergence.noise(np.array([9.0]), *given_rows)[0], rel=0.1)
    assert (found > divergence.noise_floor(np.array([9.0]), *given_rows)[0]).mean() <= 0.03


@settings(max_examples=60, deadline=None)
@given(st.floats(0.02, 0.98), st.floats(0.001, 0.2), st.floats(0.0, 1.0), st.sampled_from([-1, 1]))
def test_no_distribution_within_the_ball_expects_more_than_one(q: float, radius: float, way: float, side: int) -> None:
    """All outcomes of 60 rows, for a member of the ball between the reference and its border."""

    def apart(p: float) -> float:
        return q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))

    low, high = 0.0, (1 - 1e-9 - q) if side > 0 else q - 1e-9
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if apart(q + side * middle) <= radius else (low, middle)
    p, rows = q + side * low * way, 60
    outcomes = np.array([[k, rows - k] for k in range(rows + 1)], dtype=float)
    logs = evidence.log_evidence(outcomes, np.array([q, 1 - q]), np.array([radius]), ONE)[:, 0]
    chances = [math.comb(rows, k) * p**k * (1 - p) ** (rows - k) for k in range(rows + 1)]
    assert float(np.dot(chances, np.exp(logs))) <= 1 + 1e-9


def test_evidence_grows_with_a_change_and_does_not_without_however_long_it_lasts() -> None:
    shares, radius = np.full(10, 0.1), evidence.ball_radius(0.01, np.array([9.0]), np.array([2_000.0]))
    shifted = np.array([0.04, 0.06, 0.07, 0.08, 0.09, 0.1, 0.11, 0.12, 0.14, 0.19])
    of = [evidence.log_evidence(rows * shifted[None], shares, radius, ONE)[0, 0] for rows in (500, 2_000, 8_000)]
    assert of == sorted(of)
    assert of[-1] > 100
    # The reference is an imperfect sample: it is off by as much as 2,000 rows are.
    off = np.random.default_rng(1).multinomial(2_000, shares) / 2_000
    assert evidence.log_evidence(1e9 * shares[None], off, radius, ONE)[0, 0] < 0


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=40), st.floats(1, 1e6))
def test_inputs_are_named_only_when_the_mean_of_all_reaches_the_threshold(logs: list[float], threshold: float) -> None:
    values = np.array(logs)
    found = evidence.named(values, threshold)
    if found.any():
        assert np.exp(values).mean() >= threshold * (1 - 1e-9)
        assert values[found].min() >= values[~found].max(initial=-np.inf)
    if values.max() >= math.log(len(values) * threshold) + 1e-9:
        assert found[int(values.argmax())]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3_000), min_size=1, max_size=80))
def test_rows_are_counted_once_in_their_window_in_whatever_order_they_come(times: list[int]) -> None:
    panes, horizon = Panes(1, 2_000), 2_000
    counted = sum(panes.add(time, np.array([1])) for time in times)
    firsts, counts = panes.windows()
    newest = max(times)
    assert panes.newest == newest
    assert list(firsts) == sorted(firsts, reverse=True)
    assert len(firsts) <= 80
    assert sum(time > newest - horizon for time in times) <= counts[-1, 0] <= counted
    for first, rows in zip(firsts[:-1], counts[:-1, 0], strict=True):
        assert rows <= sum(time >= first for time in times)
    again = Panes.from_json(1, horizon, newest, panes.to_json())
    assert again.windows()[1].tolist() == counts.tolist()


def test_a_day_of_panes_takes_little_room_and_no_row_is_lost() -> None:
    panes = Panes(2, 8_640)
    for pane in range(8_640):
        panes.add(pane, np.array([1, 2]))
    firsts, counts = panes.windows()
    assert len(firsts) < 60
    assert counts[-1].tolist() == [8_640, 17_280]
    assert counts[3, 0] == 4


def test_the_time_of_day_is_no_change_and_its_loss_is() -> None:
    hours, rules = np.random.default_rng(5).uniform(0, 24, 6_000), Rules()
    described = {**number(hours), "varies": {"hour": 6.0, "day": 0.0}}
    column = column_of("hour", described)
    assert isinstance(column, Column)
    tester = ColumnTests([column], 6_000, rules)
    panes = Panes(tester.bins, rules.panes)
    for pane in range(6):
        panes.add(pane, np.bincount(column.place([3.0 + pane / 360] * 100), minlength=tester.bins))
    assert not tester.test(panes).changed.any()
    for pane in range(6, 12):
        panes.add(pane, np.bincount(column.place([None] * 100), minlength=tester.bins))
    verdict = tester.test(panes)
    assert verdict.changed.tolist() == [True]
    assert verdict.since.tolist() == [6]


@pytest.mark.parametrize("shift", [0.0, 0.25])
def test_looks_that_the_benchmark_leaves_out_would_say_nothing(shift: float) -> None:
    """A stretch of the simulated year, with all looks and with those that could see a change."""
    rules = Rules(horizon_seconds=400.0)
    screened, all_looks = (false_alarms(0.006, 2_000, 5, rules, shift, each) for each in (True, False))
    assert screened == all_looks
    assert (all_looks > 0) == (shift > 0)
