"""Rules that no list breaks, whatever else is asked of it; providers' exposure, sponsored places and own mixes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts import reranking
from contracts.engines import load_engine
from contracts.engines.recommend import write_model
from contracts.providers import Exposure, inserted
from tests.problem_bundles import lists, small_recommender

SOME = st.lists(st.sampled_from("abcdefg"), max_size=6)


@settings(max_examples=60, deadline=None)
@given(
    st.fixed_dictionaries({
        "deny": SOME, "allow": SOME, "sponsored": SOME, "sponsored_places": st.lists(st.integers(1, 7), max_size=3),
        "rerank": st.sampled_from(["dpp", "mmr", "calibrated"]), "explore": st.sampled_from(["none", "epsilon"]),
        "exposure": st.floats(0, 1), "new_share": st.floats(0, 1), "penalty": st.floats(0, 1),
    }),
    st.lists(st.integers(0, 5), max_size=6), SOME, st.integers(0, 8), st.floats(0, 1), st.integers(0, 20),
)  # fmt: skip
def test_no_rule_is_broken_whatever_is_asked(
    spec: dict[str, Any], history: list[int], excluded: list[str], k: int, diversity: float, age: int
) -> None:
    model = small_recommender(**{**spec, "sponsored_places": sorted(spec["sponsored_places"])})
    taken, blocked = model.history(history)
    ages = np.array([0, 18, 0, 12, 0, 0])
    blocked |= ages > age
    blocked[[model.items.index(item) for item in excluded if item in model.items]] = True
    exposure = Exposure(np.array([0, 0, 1, 1, 2, -1]))
    found = model.ranked(taken, blocked, k, diversity, None, np.random.default_rng(1), exposure)
    allowed = set(spec["allow"]) or set(model.items)
    forbidden = {*spec["deny"], *excluded} | {model.items[at] for at in history} | (set(model.items) - allowed)
    forbidden |= {model.items[at] for at in np.flatnonzero(ages > age)}
    assert not forbidden & set(found.items)
    assert len(set(found.items)) == len(found.items) == min(k, len(set(model.items) - forbidden))
    marked = {item for item, why in zip(found.items, found.why, strict=True) if why == "sponsored"}
    assert marked <= set(spec["sponsored"])
    assert len(marked) <= sum(place <= k for place in spec["sponsored_places"])


def test_sponsored_items_stand_at_their_places_and_are_marked() -> None:
    model = small_recommender(sponsored=["f", "b", "c"], sponsored_places=[2, 4])
    found = model.ranked(np.array([0]), np.zeros(6, bool), 4, 0.0)
    assert [(found.items[at], found.why[at]) for at in (1, 3)] == [("c", "sponsored"), ("b", "sponsored")]
    assert "sponsored" not in (found.why[0], found.why[2])
    assert model.ranked(np.array([0, 1, 2, 5]), np.zeros(6, bool), 4, 0.0).why.count("sponsored") == 0
    assert inserted(["x"], ["p", "q"], [1, 9]) == ["p", "x", "q"]


def aged(tmp_path: Path, **spec: Any) -> Any:
    """An engine whose items c and d are for grown-ups."""
    bundle = lists(tmp_path, **spec)
    model = small_recommender(**spec)
    arrays = {**model.arrays, "age": np.array([0, 0, 18, 18, 0, 0], np.float32)}
    arrays["provider"] = np.array([0, 0, 0, 0, 1, 1])
    write_model(bundle.path / "model", replace(model, arrays=arrays), ["ann", "bob"], [[0], [3, ~4]])
    return load_engine(bundle)


def asked(**given: Any) -> dict[str, Any]:
    row = {"user": "", "items": "", "k": 5.0, "diversity": 0.0, "exclude": "", "attributes": "", "explore": 0.0}
    return {name: np.array([value]) for name, value in {**row, "age": 0.0, **given}.items()}


@pytest.mark.parametrize(("age", "shown"), [(0.0, False), (17.9, False), (np.nan, False), (18.0, True)])
def test_who_is_too_young_or_does_not_say_is_not_shown_what_is_for_grown_ups(
    tmp_path: Path, age: float, shown: bool
) -> None:
    engine = aged(tmp_path)
    for user in ("", "ann"):
        found = set(engine.predict(asked(user=user, age=age))[0].items)
        assert bool(found & {"c", "d"}) == shown


def test_over_many_lists_providers_get_what_they_earn(tmp_path: Path) -> None:
    plain, even = aged(tmp_path / "1"), aged(tmp_path / "2", exposure=1.0)
    assert plain.exposure is None
    for engine in (plain, even):
        engine.shown = [engine.predict(asked(items="a", k=1.0, age=30.0, explore=1.0))[0].items[0] for _ in range(60)]
    assert set(plain.shown) == {"c"}, "the best one, always"
    gap = np.abs(even.exposure.given - even.exposure.earned).max()
    assert gap < 0.03 * len(even.shown) + 1, "who is owed gets it"
    before = even.exposure.given.copy()
    even.predict(asked(items="a", k=1.0))
    assert (even.exposure.given == before).all(), "golden examples leave no trace"


def test_an_exposure_is_raised_for_who_was_given_less() -> None:
    one = Exposure(np.array([0, 1, -1]))
    one.shown(np.array([0, 1]), np.array([1.0, 1.0]), [0])
    raised = one.raised(np.array([0, 1, 2]), np.array([0.5, 0.5, 0.5]), 1.0)
    assert raised[1] > raised[2] == 0.5 > raised[0]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 14), st.floats(0, 1))
def test_a_calibrated_choice_is_complete_and_nearer_to_the_own_mix(seed: int, k: int, level: float) -> None:
    rng = np.random.default_rng(seed)
    kinds = reranking.shares(rng.integers(0, 2, (12, 3)))
    relevance, wanted = np.sort(rng.random(12))[::-1], np.array([0.5, 0.3, 0.2])
    found = reranking.calibrated(relevance, kinds, wanted, k, level)
    assert len(set(found)) == len(found) == min(k, 12)
    assert reranking.calibrated(relevance, kinds, wanted, k, 0.0) == list(range(min(k, 12)))
    if k:
        first = reranking.calibrated(relevance, kinds, wanted, 1, 1.0)[0]
        apart = [reranking.miscalibration(wanted, kinds[at]) for at in range(12)]
        assert apart[first] == pytest.approx(min(apart))
