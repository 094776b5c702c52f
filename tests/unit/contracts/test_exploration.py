"""What is left to chance: propensities are exact, rules hold, and nothing is, where nobody asks for it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.exploration import explored, propensities
from contracts.ranker import Ranker, RankerSpec
from contracts.ranking_features import FEATURES
from tests.problem_bundles import small_recommender


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(0, 3), st.floats(0.01, 0.99))
def test_chances_of_a_place_add_up_to_one(count: int, more: int, share: float) -> None:
    base, pool = list(range(count)), count + more
    for place in range(count):
        total = 0.0
        for item in range(pool):
            shown = next(list(one) for one in permutations(range(pool), count) if one[place] == item)
            total += propensities(base, shown, pool, share)[place]
        assert total == pytest.approx(1)


def test_propensities_are_how_often_it_comes_so() -> None:
    lists, pool, rng = [[0, 1, 2], [1, 0, 3]], [4, 5], np.random.default_rng(3)
    seen, said, count = Counter[tuple[int, int]](), dict[tuple[int, int], float](), 20_000
    for _ in range(count):
        items, chance = explored(lists, int(rng.integers(2)), pool, 0.4, rng)
        assert len(set(items)) == 3
        seen.update(enumerate(items))
        said.update(zip(enumerate(items), chance, strict=True))
    assert len(said) == 18, "every candidate comes to every place"
    for key, told in said.items():
        error = 4 * np.sqrt(told * (1 - told) / count)
        assert seen[key] / count == pytest.approx(told, abs=error), key


def with_ranker(**spec: Any) -> Any:
    """Six items, and a ranker that is unsure about all of them."""
    model, width = small_recommender(**spec), len(FEATURES) + 2
    weights = np.zeros(width)
    weights[0] = 1.0
    arrays: dict[str, Any] = {"rank.state": np.zeros((6, 5), np.float32), "rank.mean": np.zeros(width - 2)}
    arrays |= {"rank.scale": np.ones(width - 2), "rank.weights": weights, "rank.spread": np.eye(width)}
    known = {"kind": "lambdarank", "features": list(FEATURES), "slope": 1, "intercept": 0, "looked": [1.0]}
    return replace(model, ranker=Ranker(RankerSpec.model_validate(known), lambda found, *_: found[:, 0] * 1.0, arrays))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["epsilon", "thompson"]),
    st.sets(st.integers(0, 5), max_size=5),
    st.integers(0, 6),
    st.floats(0, 1),
    st.integers(0, 10_000),
)
def test_chance_never_breaks_a_rule(explore: str, excluded: set[int], k: int, diversity: float, seed: int) -> None:
    model = with_ranker(explore=explore, epsilon=0.5, new_share=0.3, deny=["f"])
    history, blocked = model.history([0, ~3])
    blocked[list(excluded)] = True
    found = model.ranked(history, blocked, k, diversity, rng=np.random.default_rng(seed))
    forbidden = {"a", "d", "f"} | {model.items[at] for at in excluded}
    assert not forbidden & set(found.items)
    assert len(set(found.items)) == len(found.items) == len(found.propensity) == min(k, 6 - len(forbidden))
    assert all(0 < chance <= 1 for chance in found.propensity)
    assert all(np.isfinite(found.scores))


@pytest.mark.parametrize("explore", ["epsilon", "thompson"])
def test_chance_changes_lists_and_only_where_it_is_asked_for(explore: str) -> None:
    model = with_ranker(explore=explore, epsilon=0.2)
    free = np.zeros(6, bool)
    plain = model.ranked(np.array([0]), free, 3, 0.0)
    assert plain.propensity == (1.0,) * 3
    rng = np.random.default_rng(1)
    lists = {model.ranked(np.array([0]), free, 3, 0.0, rng=rng).items for _ in range(30)}
    assert len(lists) > 3
    calm = with_ranker()
    assert calm.ranked(np.array([0]), free, 3, 0.0, rng=rng) == calm.ranked(np.array([0]), free, 3, 0.0)


def test_what_comes_by_chance_says_so() -> None:
    model = with_ranker(explore="epsilon", epsilon=0.9)
    found = model.ranked(np.array([0]), np.zeros(6, bool), 1, 0.0, rng=np.random.default_rng(2))
    assert ("chance" in found.why) == (found.items != model.ranked(np.array([0]), np.zeros(6, bool), 1, 0.0).items)
