"""Lists of items: what is forbidden is never listed, diversity is what the papers say, and reasons add up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.bundle import read_bundle
from contracts.engines import load_engine
from contracts.engines.recommend import read_model, request_inputs
from contracts.errors import PlatformError
from contracts.recommender import Recommender, RecommendSpec
from contracts.reranking import distance, dpp, miscalibration, mmr, self_information, spread
from tests.problem_bundles import lists, small_recommender

RNG = np.random.default_rng(5)
ITEMS = 40


def any_recommender(method: str, **spec: Any) -> Recommender:
    """Of 40 items with random arrays; the last four are new."""
    kinds = (RNG.random((ITEMS, 6)) < 0.3).astype(np.float32)
    near = RNG.random((ITEMS, ITEMS)) * (RNG.random((ITEMS, ITEMS)) < 0.4)
    arrays: dict[str, Any] = {
        "people": RNG.integers(0, 50, ITEMS).astype(np.float32),
        "trend": RNG.random(ITEMS).astype(np.float32),
        "fresh": np.arange(ITEMS) >= ITEMS - 4,
        "vectors": kinds / np.maximum(np.linalg.norm(kinds, axis=1, keepdims=True), 1),
        "factors": RNG.normal(0, 1, (ITEMS, 5)).astype(np.float32),
        "similar.indptr": np.cumsum([0, *(near > 0).sum(axis=1)]),
        "similar.indices": np.nonzero(near)[1].astype(np.int32),
        "similar.weights": near[near > 0].astype(np.float32),
    }
    known = {"method": method, "k": 5, "everybody": 50, "attributed": True, "regularisation": 1.0, "confidence": 3.0}
    items = [f"i{at}" for at in range(ITEMS)]
    return Recommender(RecommendSpec.model_validate({**known, **spec}), items, list("uvwxyz"), arrays)


METHODS = {name: any_recommender(name, new_share=0.3, deny=["i7"]) for name in ("popular", "similar", "factors")}
PLACES = st.lists(st.integers(0, ITEMS - 1), max_size=30)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(METHODS)), PLACES, PLACES, PLACES, st.integers(0, 60), st.floats(0, 1))
def test_no_rule_is_ever_broken_and_lists_are_as_long_as_rules_allow(
    method: str, liked: list[int], unliked: list[int], excluded: list[int], k: int, diversity: float
) -> None:
    model = METHODS[method]
    history, blocked = model.history([*liked, *(~one for one in unliked)])
    blocked[excluded] = True
    found = model.ranked(history, blocked, k, diversity)
    forbidden = {model.items[at] for at in {*liked, *unliked, *excluded}} | {"i7"}
    assert not forbidden & set(found.items)
    assert len(set(found.items)) == len(found.items) == min(k, ITEMS - len(forbidden))
    assert all(np.isfinite(found.scores))
    assert {item for because in found.because for item in because} <= {model.items[at] for at in liked}
    assert set(found.measures) <= {"novelty", "diversity", "calibration", "tail"}


def test_items_may_come_again_where_the_recipe_says_so_but_not_those_that_were_not_liked() -> None:
    model = small_recommender(repeat=True)
    history, blocked = model.history([0, 1, 2, ~3, 0])
    assert history.tolist() == [1, 2, 0]
    found = model.ranked(history, blocked, 6, 0.0)
    assert set(found.items) == set("abcef")


def test_a_list_says_what_speaks_for_each_item() -> None:
    found = small_recommender(new_share=0.34).ranked(np.array([0]), np.zeros(6, bool), 4, 0.0)
    assert found.items == ("c", "b", "d", "e")
    assert found.why == ("similar", "similar", "popular", "new")
    assert found.because == (("a",), ("a",), (), ())
    assert found.scores[0] == pytest.approx(0.3)
    assert found.scores[2] < found.scores[1], "what fills a list has less than what is similar"


def test_who_has_no_history_gets_what_is_popular() -> None:
    for method in ("popular", "similar", "factors"):
        model = any_recommender(method)
        found = model.ranked(np.zeros(0, np.int64), np.zeros(ITEMS, bool), 3, 0.0)
        assert found.items == tuple(model.items[at] for at in np.argsort(-model.arrays["trend"])[:3])
        assert set(found.why) == {"popular"}
        assert "calibration" not in found.measures


@pytest.mark.parametrize("method", ["similar", "factors"])
def test_what_an_item_is_there_because_of_adds_up_to_its_score(method: str) -> None:
    model = any_recommender(method, recency=4.0)
    history = np.array([3, 17, 8, 30, 1])
    weights = model._weights(len(history))
    everything = np.arange(ITEMS)
    parts = model._contributions(history, weights, everything)
    assert parts.sum(axis=0) == pytest.approx(model.scores(history, weights), abs=1e-5)
    assert weights[-1] == 1.0
    assert weights[0] == pytest.approx(0.5)


def test_factors_of_a_history_solve_the_weighted_least_squares() -> None:
    model = any_recommender("factors")
    history = np.array([3, 17, 8])
    factors = model.arrays["factors"].astype(float)
    sure, wanted = np.ones(ITEMS), np.zeros(ITEMS)
    sure[history], wanted[history] = 4.0, 1.0
    left = factors.T @ (sure[:, None] * factors) + np.eye(5)
    person = np.linalg.solve(left, factors.T @ (sure * wanted))
    assert model.scores(history, np.ones(3)) == pytest.approx(factors @ person, abs=1e-5)


def test_popularity_is_held_against_an_item() -> None:
    plain = any_recommender("similar", pool=ITEMS)
    held = Recommender(plain.spec.model_copy(update={"penalty": 0.6}), plain.items, plain.attributes, plain.arrays)
    novelty = [
        [one.ranked(np.array([at]), np.zeros(ITEMS, bool), 6, 0.0).measures["novelty"] for at in range(20)]
        for one in (plain, held)
    ]
    assert np.mean(novelty[1]) > np.mean(novelty[0]) + 0.1


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 20), st.integers(1, 25), st.floats(0, 1), st.integers(0, 9))
def test_a_spread_list_is_the_greedy_of_its_sum_in_the_order_of_relevance(
    count: int, k: int, diversity: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(0, 1, (count, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    relevance = np.sort(rng.random(count))[::-1]
    found = spread(relevance, vectors, k, diversity)
    assert found == sorted(set(found)), "the most relevant first, none twice"
    assert len(found) == min(k, count)
    size, chosen = min(k, count), list[int]()
    for _ in range(size):
        gains = {
            at: (1 - diversity) * 20 / (20 + at)
            + diversity * sum(1 - vectors[at] @ vectors[other] for other in chosen) / max(1, size - 1)
            for at in range(count)
            if at not in chosen
        }
        chosen.append(max(gains, key=lambda at: (round(gains[at], 9), -at)))
    assert set(found) == set(chosen) or _tied(relevance, vectors, size, diversity, found, chosen)


def _tied(relevance: Any, vectors: Any, size: int, diversity: float, found: list[int], chosen: list[int]) -> bool:
    """Whether two lists have the same sum within rounding, so that either may be the greedy one."""
    sums = []
    for each in (found, chosen):
        apart = sum(1 - vectors[a] @ vectors[b] for a in each for b in each if a < b)
        sums.append((1 - diversity) * sum(20 / (20 + at) for at in each) + diversity * apart / max(1, size - 1))
    return abs(sums[0] - sums[1]) < 1e-6


def test_more_asked_for_spreads_a_list_more() -> None:
    vectors = RNG.normal(0, 1, (60, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    relevance = np.linspace(1, 0, 60)
    assert spread(relevance, vectors, 10, 0.0) == list(range(10))
    found = [distance(vectors[spread(relevance, vectors, 10, level)]) for level in (0.0, 0.5, 0.8, 1.0)]
    assert found == sorted(found)  # type: ignore[type-var]
    other = distance(vectors[dpp(relevance, vectors, 10, 1.0)])
    assert found[-1] is not None
    assert other is not None
    assert found[-1] > other


def test_greedy_dpp_takes_what_raises_the_determinant_most() -> None:
    vectors = RNG.normal(0, 1, (12, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    relevance = RNG.random(12)
    quality = np.exp(12 * 0.6 * (relevance - relevance.max()))
    kernel = np.outer(quality, quality) * (0.95 * vectors @ vectors.T + 0.05 * np.eye(12))
    chosen: list[int] = []
    for _ in range(6):
        rest = [at for at in range(12) if at not in chosen]
        chosen.append(max(rest, key=lambda at: np.linalg.slogdet(kernel[np.ix_([*chosen, at], [*chosen, at])])[1]))
    assert dpp(relevance, vectors, 6, 0.4) == chosen


def test_mmr_weighs_relevance_against_the_nearest_one_chosen() -> None:
    vectors = np.array([[1.0, 0], [1, 0], [0, 1], [0.6, 0.8]])
    relevance = np.array([1.0, 0.9, 0.5, 0.75])
    assert mmr(relevance, vectors, 3, 0.0) == [0, 1, 3]
    assert mmr(relevance, vectors, 3, 0.5) == [0, 2, 3]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 30), st.floats(0, 1))
def test_a_choice_is_of_different_places_and_complete(seed: int, k: int, diversity: float) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.integers(0, 2, (20, 3)).astype(float)  # many are the same, some are nothing
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1)
    relevance = np.sort(rng.random(20))[::-1]
    for choose in (mmr, dpp):
        found = choose(relevance, vectors, k, diversity)
        assert len(set(found)) == len(found) == min(k, 20)


def test_more_diversity_gives_more_distance() -> None:
    model = any_recommender("similar", pool=40)
    nothing = np.zeros(ITEMS, bool)

    def mean(level: float) -> float:
        lists = [model.ranked(np.array([at, at + 1]), nothing, 8, level) for at in range(12)]
        return float(np.mean([one.measures["diversity"] for one in lists]))

    levels = [mean(level) for level in (0.0, 0.3, 0.6, 1.0)]
    assert levels == sorted(levels)
    assert levels[-1] > levels[0] + 0.1


def test_measures_of_a_list() -> None:
    assert distance(np.eye(3)) == 1.0
    assert distance(np.array([[1.0, 0], [1, 0]])) == 0.0
    assert distance(np.eye(3)[:1]) is None
    assert self_information([8, 1], 8).tolist() == [0.0, 3.0]
    assert self_information([0], 8) == 4.0
    half = np.array([0.5, 0.5])
    assert miscalibration(half, half) == 0.0
    one_sided = 0.5 * np.log(0.5 / 0.995) + 0.5 * np.log(0.5 / 0.005)
    assert miscalibration(half, np.array([1.0, 0])) == pytest.approx(one_sided)


def asked(**given: Any) -> dict[str, Any]:
    """One row; numbers as floats, as training gives them."""
    row = {"user": "", "items": "", "k": np.nan, "diversity": np.nan, "exclude": "", "attributes": "", **given}
    return {name: np.array([value], object if isinstance(value, str) else float) for name, value in row.items()}


def test_an_engine_knows_people_sessions_and_what_is_denied(tmp_path: Path) -> None:
    engine: Any = load_engine(lists(tmp_path, new_share=0.0))

    def items(**given: Any) -> tuple[str, ...]:
        found: tuple[str, ...] = engine.predict(asked(**given))[0].items
        return found

    assert items(user="ann") == items(items="a") == ("c", "b", "d")
    assert items(user="ann", items="unknown|a") == ("c", "b", "d")
    assert set(items(user="bob", k=9)) == set("abcf"), "e was not liked"
    assert items(user="ann", exclude="c|nothing") == ("b", "d", "e")
    assert items(user="ann", attributes="quiet") == ("d", "e", "f")
    assert items(user="ann", attributes="silent") == ()
    assert items(user="ann", exclude="a|b|c|d|e|f") == ()
    assert (items(k=0), len(items(k=10_000))) == ((), 5)
    engine.deny(["c", "nothing"])
    assert items(user="ann") == ("b", "d", "e")
    engine.deny([])
    assert items(user="ann") == ("c", "b", "d")
    assert (engine.knows("ann"), engine.knows("")) == (True, False)


def test_a_history_of_any_length_is_served(tmp_path: Path) -> None:
    engine = load_engine(lists(tmp_path))
    long = "|".join(f"x{at}" for at in range(100_000))
    assert engine.predict(asked(items=f"{long}|a"))[0].items == engine.predict(asked(items="a"))[0].items


def test_inputs_have_the_defaults_of_the_lists() -> None:
    inputs = {item.name: item for item in request_inputs(small_recommender(diversity=0.4).spec)}
    assert (inputs["k"].default, inputs["k"].maximum, inputs["diversity"].default) == (3, 5, 0.4)
    assert all(item.default is not None for item in inputs.values())


@pytest.mark.parametrize(
    ("file", "changed", "said"),
    [
        ("people.npy", np.ones(5, np.float32), "people has 5 rows, not 6: it is of another catalogue"),
        ("similar.indices.npy", np.full(12, 6, np.int32), "similar names items that are not in the catalogue"),
        ("histories.indices.npy", np.full(3, -7, np.int32), "histories names items"),
        ("histories.indptr.npy", np.array([0, 3]), "1 histories of 2 people"),
        ("vectors.npy", None, "vectors"),
        ("trend.npy", np.array([{}], dtype=object), "Python objects"),
    ],
)
def test_arrays_of_another_catalogue_are_refused(tmp_path: Path, file: str, changed: Any, said: str) -> None:
    folder = lists(tmp_path).path / "model"
    (folder / file).unlink()
    if changed is not None:
        np.save(folder / file, changed, allow_pickle=True)
    with pytest.raises(PlatformError, match="recommender refused") as caught:
        read_model(folder)
    assert caught.value.code == "bad_bundle"
    assert said in str(caught.value.detail)


def test_a_model_of_another_format_is_refused(tmp_path: Path) -> None:
    bundle = lists(tmp_path)
    file = bundle.path / "model" / "recommend.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 2}))
    with pytest.raises(PlatformError, match="bundle refused"):
        read_bundle(bundle.path)
    with pytest.raises(PlatformError, match="recommender refused"):
        read_model(bundle.path / "model")
