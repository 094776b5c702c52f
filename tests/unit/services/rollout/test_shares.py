"""Evidence about shares: a process of evidence must not expect to grow while its hypothesis holds."""

from __future__ import annotations

from itertools import product
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.rollout import shares

rates = st.floats(0, 1)


def chance(hits: int, requests: int, rate: float) -> float:
    return comb(requests, hits) * rate**hits * (1 - rate) ** (requests - hits)


@settings(deadline=None, max_examples=60)
@given(
    block=st.tuples(st.integers(1, 6), st.integers(1, 4)),
    champion=rates,
    candidate=rates,
    limit=st.sampled_from([0.0, 0.01, 0.2]),
    expected=st.floats(0, 100),
    before=st.floats(-20, 8),
    informed=st.floats(0, 1e6),
)
def test_evidence_does_not_grow_on_average_where_its_hypothesis_holds(
    block: tuple[int, int],
    champion: float,
    candidate: float,
    limit: float,
    expected: float,
    before: float,
    informed: float,
) -> None:
    """Over all outcomes of a block, whatever was expected of the champion, and whatever came before."""
    is_worse = candidate - champion > limit
    aim = shares.Aim(limit, limit + 0.01, 0.005)
    mean = np.zeros(len(shares.SMALLER) if is_worse else len(shares.PRIOR))
    seen, start = (100.0, np.array([expected])), np.full((1, len(mean)), before)
    for hits in product(range(block[0] + 1), range(block[1] + 1)):
        weight = chance(hits[0], block[0], champion) * chance(hits[1], block[1], candidate)
        arrays = (block[0], np.array([hits[0]]), block[1], np.array([hits[1]]))
        logs = (
            shares.within(start, limit, arrays, seen)
            if is_worse
            else shares.worse(start, np.array([informed]), aim, arrays, seen)[0]
        )
        mean += weight * np.exp(logs[0] - before)
    assert (mean <= 1 + 1e-6).all()


@settings(deadline=None, max_examples=40)
@given(
    requests=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    champion=rates,
    candidate=rates,
    limit=st.sampled_from([0.0, 0.05, 0.2]),
)
def test_evidence_of_all_counts_does_not_expect_to_grow_where_its_hypothesis_holds(
    requests: tuple[int, int], champion: float, candidate: float, limit: float
) -> None:
    side = -1.0 if candidate - champion > limit else 1.0
    outcomes = list(product(range(requests[0] + 1), range(requests[1] + 1)))
    hits0, hits1 = (np.array(hits) for hits in zip(*outcomes, strict=True))
    logs = shares.at_once(
        limit, (np.full(len(hits0), requests[0]), hits0, np.full(len(hits1), requests[1]), hits1), side
    )
    weights = [chance(one, requests[0], champion) * chance(two, requests[1], candidate) for one, two in outcomes]
    assert np.dot(weights, np.exp(logs)) <= 1 + 1e-6


@settings(deadline=None, max_examples=60)
@given(
    requests=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    first=st.floats(0.001, 0.9),
    second=st.floats(0.001, 0.999),
    difference=st.sampled_from([0.0, 0.01, 0.3]),
)
def test_the_nearest_pair_is_the_nearest(
    requests: tuple[int, int], first: float, second: float, difference: float
) -> None:
    def distance(at: np.ndarray) -> np.ndarray:
        found = np.zeros_like(at)
        for count, rate, other in ((requests[0], first, at), (requests[1], second, at + difference)):
            found += count * (rate * np.log(rate / other) + (1 - rate) * np.log((1 - rate) / (1 - other)))
        return found

    given_rates = (np.array([float(requests[0])]), np.array([first]), np.array([float(requests[1])]))
    found = shares.nearest(*given_rates, np.array([second]), difference)
    grid = np.linspace(1e-6, 1 - difference - 1e-6, 2001)
    assert distance(found)[0] <= distance(grid).min() + 1e-6


@pytest.mark.parametrize(("hits", "requests"), [(0, 0), (0, 50), (3, 50), (50, 50)])
def test_an_interval_holds_what_was_measured_and_narrows(hits: int, requests: int) -> None:
    low, high = shares.interval(hits, requests)
    assert low <= (hits / requests if requests else 0.5) <= high
    more = shares.interval(hits * 10, requests * 10)
    assert more[1] - more[0] <= high - low


def test_an_interval_misses_the_rate_at_any_time_as_rarely_as_it_says() -> None:
    random, missed = np.random.default_rng(3), 0
    for _ in range(200):
        hits = np.cumsum(random.random(400) < 0.05)
        bounds = [shares.interval(int(hits[at]), at + 1) for at in range(9, 400, 30)]
        missed += any(not low <= 0.05 <= high for low, high in bounds)
    assert missed <= 10


def test_what_is_aimed_at_is_reached_about_where_the_test_of_fixed_size_would() -> None:
    """A difference as large as the margin, in blocks of ten and ten requests, two hundred times."""
    random, aim, count = np.random.default_rng(5), shares.Aim(0.0, 0.05, 0.01), 200
    logs, informed = np.zeros((count, len(shares.PRIOR))), np.zeros(count)
    requests, hits, reached = 200.0, np.full(count, 20.0), np.full(count, np.inf)
    for block in range(300):
        first, second = random.binomial(10, 0.1, count), random.binomial(10, 0.15, count)
        logs, informed = shares.worse(logs, informed, aim, (10.0, first, 10.0, second), (requests, hits))
        requests, hits = requests + 10, hits + first
        now = (shares.mixed(logs, shares.PRIOR) >= np.log(100)) & np.isinf(reached)
        reached[now] = block
    fixed = (2.33 + 1.28) ** 2 * (0.1 * 0.9 + 0.15 * 0.85) / 0.05**2 / 10  # blocks, for a power of 0.9
    assert np.isfinite(reached).mean() >= 0.85
    assert np.median(reached) < fixed
