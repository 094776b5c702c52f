"""Rankers: features are those of serving, the bias of places is taken out, and a ranker has to earn its place."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts.engines.recommend import read_model
from contracts.errors import PlatformError
from contracts.ranker import last_layer, logistic
from contracts.ranking_features import FEATURES, WINDOWS, item_state
from pipelines.recipes.recommend.impressions import checked
from pipelines.recipes.recommend.settings import ImpressionsConfig, RankerConfig, SplitConfig
from pipelines.tasks import get_task, recipe_config
from pipelines.tasks.recommend.simulator import SimulatorConfig, World, impressions, looks, simulate
from pipelines.training.ranking import by_click, calibrated, gains, position_bias, posterior
from pipelines.training.recommend import read_log, recommender, train_recommender
from pipelines.training.recommenders import fit
from pipelines.training.second_stage import second_stage
from pipelines.training.shown import Shown, shown

TASK = get_task("recommend")
SMALL = SimulatorConfig(people=120, items=60, days=30, visits=1.0)
DAY = 86_400.0


def config(kind: Any = "lambdarank", **ranker: Any) -> Any:
    found: Any = recipe_config(TASK, "lambdarank")
    model = replace(found.model, from_item=(0.75,), person=(0.5,), to_item=(0.25,), recency=(0.0,))
    return replace(found, simulator=SMALL, model=model, ranker=RankerConfig(kind=kind, rounds=30, epochs=4, **ranker))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranking")
    frame = next(simulate(SMALL, config().seed)).to_pandas()
    for name, part in TASK.split(frame, config()).items():
        part.to_parquet(folder / f"{name}.parquet")
    return folder


def trained(dataset: Path, out: Path, settings: Any) -> dict[str, Any]:
    def quiet(*_: Any, **__: Any) -> None: ...

    return train_recommender(
        dataset, settings.model, settings.list, 7, out, quiet, partial(second_stage, settings=settings.ranker)
    )


def made_up(count: int, seed: int = 0) -> tuple[Shown, Any]:
    """Lists of five in an order that half follows the merit, clicked by the model of positions."""
    rng = np.random.default_rng(seed)
    found = rng.normal(0, 1, (count * 5, len(FEATURES))).astype(np.float32)
    liking = logistic(1.5 * found[:, 0] - 1)
    order = np.argsort(-(liking + rng.normal(0, 0.3, count * 5)).reshape(count, 5), axis=1)
    places = np.argsort(order, axis=1).ravel()
    clicked = rng.random(count * 5) < looks(5)[places] * liking
    lists = np.repeat(np.arange(count), 5)
    none = [np.zeros(0, np.int64)] * count
    return Shown(found, np.zeros(count * 5, np.int64), lists, places, clicked, none, np.arange(count)), liking


def test_the_state_of_items_counts_what_was_before_the_moment() -> None:
    rng = np.random.default_rng(1)
    items, seconds = rng.integers(0, 6, 80), np.sort(rng.integers(0, 60, 80)).astype(np.float64) * DAY
    asked, at = rng.integers(0, 8, 40), rng.integers(0, 70, 40).astype(np.float64) * DAY
    found = item_state(items, seconds, asked, at)
    catalogue = len(np.unique(items))
    for row, (item, moment) in enumerate(zip(asked, at, strict=True)):
        before = (items == item) & (seconds < moment)
        wanted = [np.log1p(before.sum() * catalogue / max(1, (seconds < moment).sum()))]
        for days in WINDOWS:
            late = (seconds >= moment - days * DAY) & (seconds < moment)
            wanted.append(np.log1p((late & (items == item)).sum() * catalogue / max(1, late.sum())))
        wanted.append(np.log1p((moment - seconds[before].min()) / DAY) if before.any() else 0.0)
        assert found[row] == pytest.approx(wanted)


def test_the_bias_of_places_is_recovered() -> None:
    rows, _ = made_up(4_000)
    found = position_bias(rows, 1)
    rate = np.bincount(rows.places, weights=rows.clicked) / np.bincount(rows.places)
    assert found == pytest.approx(looks(5), abs=0.09)
    assert np.abs(found - looks(5)).max() < np.abs(rate / rate[0] - looks(5)).max(), "clicks alone exaggerate it"


def test_each_click_is_compared_with_what_was_not_clicked_and_weighted_by_its_place() -> None:
    rows = made_up(3)[0]
    clicked = np.array([1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1], bool)
    chosen, sizes, weights = by_click(replace(rows, clicked=clicked), looks(5))
    assert (sizes.tolist(), chosen.tolist()) == ([4, 4], [0, 1, 2, 4, 3, 1, 2, 4])
    assert weights == pytest.approx(np.repeat(1 / looks(5)[rows.places[[0, 3]]], 4))


def test_scores_become_chances_whatever_the_place() -> None:
    rows, liking = made_up(4_000)
    scores = 1.5 * rows.found[:, 0].astype(float)
    slope, intercept = calibrated(scores, rows.clicked, looks(5)[rows.places])
    assert logistic(slope * scores + intercept) == pytest.approx(liking, abs=0.05)
    inner = last_layer(liking, rows.found, np.zeros(len(FEATURES)), np.ones(len(FEATURES)))
    weights, spread = posterior(inner, rows.clicked, looks(5)[rows.places])
    assert abs(weights[0] + weights[1] / 1.5 - 1) < 0.2, "the score tells all"
    few = posterior(inner[:500], rows.clicked[:500], looks(5)[rows.places[:500]])[1]
    assert np.trace(few @ few.T) > np.trace(spread @ spread.T), "more clicks, less doubt"


def test_a_click_counts_by_how_high_its_order_puts_it() -> None:
    rows, _ = made_up(3)
    clicked = np.zeros(15, bool)
    clicked[[2, 9]] = True
    scores = np.arange(15.0)
    found, weights, lists = gains(replace(rows, clicked=clicked), scores, looks(5))
    assert found == pytest.approx(1 / np.log2([4, 2])), "the third best of the first list, the best of the second"
    assert (lists.tolist(), weights.tolist()) == ([0, 1], (1 / looks(5)[rows.places[[2, 9]]]).tolist())


def test_features_are_those_of_serving(dataset: Path) -> None:
    parts = [pd.read_parquet(dataset / f"{name}.parquet") for name in ("train", "valid")]
    log, settings = read_log(parts), config()
    order = np.argsort(-log.ages, kind="stable")
    taken = log.taken(order, 1)
    chosen = {"method": "graph_filter", "from_item": 0.5, "person": 0.5, "to_item": 0.0, "neighbours": 50}
    model = recommender(log, taken, chosen, fit(taken, chosen), settings.list)
    at, user = float(log.seconds.max()) + 1, log.users[0]
    candidates = sorted(set(range(len(log.items))) - {code for code in log.histories(order)[0] if code >= 0})
    frame = pd.DataFrame({"list": "l", "user": user, "item": [log.items[one] for one in candidates]})
    frame = frame.assign(place=np.arange(len(frame)) + 1, clicked=False, time=at)
    rows = shown(log, model, frame, 10)
    (history,) = rows.histories
    state = item_state(log.item_of, log.seconds, np.arange(len(log.items)), np.full(len(log.items), at))
    free = np.zeros(len(log.items), bool)
    free[candidates] = True
    pool, values = model.retrieved(history, np.ones(len(history)), free, 100)
    ranker: Any = type("Fake", (), {"windows": False, "arrays": {"rank.state": state}})
    served = replace(model, ranker=ranker).features(history, pool, values)
    trained_on = rows.found[[candidates.index(one) for one in pool.tolist()]]
    place = FEATURES.index("retrieval_place")  # equal scores share a place in training
    assert np.delete(served, place, 1) == pytest.approx(np.delete(trained_on, place, 1), abs=1e-5)


@pytest.fixture(scope="module")
def decided(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """People who know what they want."""
    folder = tmp_path_factory.mktemp("decided") / "data"
    shutil.copytree(dataset, folder)
    table, world = pd.read_parquet(folder / "impressions.parquet"), World(SMALL, config().seed)
    liking = world.liking[table["user"].str[1:].astype(int), table["item"].str[1:].astype(int)]
    chance = looks(10)[table["place"] - 1] * logistic(4 * (liking - 2))
    table["clicked"] = np.random.default_rng(1).random(len(table)) < chance
    table.to_parquet(folder / "impressions.parquet")
    return folder


@pytest.mark.parametrize("kind", ["lambdarank", "dlrm"])
def test_a_ranker_that_wins_is_served_from_its_bundle_and_is_quick(decided: Path, tmp_path: Path, kind: str) -> None:
    out = trained(decided, tmp_path / "model", config(kind))
    (choice,) = out["choices"]
    assert choice["passed"], choice
    assert choice["value"] > choice["limit"]
    model, _, (ends, codes) = read_model(tmp_path / "model")
    assert model.ranker is not None
    assert (out["parameters"]["ranker"], model.ranker.spec.kind) == (kind, kind)
    times = []
    for at in range(30):
        history, blocked = model.history(codes[ends[at] : ends[at + 1]].tolist())
        start = perf_counter()
        one = model.ranked(history, blocked, 10, 0.0)
        times.append(perf_counter() - start)
        assert not {model.items[place] for place in history} & set(one.items)
        ranked = [score for score, why in zip(one.scores, one.why, strict=True) if why == "similar"]
        assert ranked == sorted(ranked, reverse=True)
        assert all(0 < score < 1 for score in ranked), "chances"
    assert np.median(times) < 0.05


def test_a_ranker_that_does_not_win_is_not_served(dataset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(dataset, folder)
    table = pd.read_parquet(folder / "impressions.parquet")
    rng = np.random.default_rng(1)
    table["clicked"] = rng.random(len(table)) < 0.1
    table.to_parquet(folder / "impressions.parquet")
    out = trained(folder, tmp_path / "model", config())
    (choice,) = out["choices"]
    assert (choice["passed"], out["parameters"]["ranker"]) == (False, "none")
    assert read_model(tmp_path / "model")[0].ranker is None
    assert not list((tmp_path / "model").glob("rank*"))


def test_without_impressions_or_clicks_a_ranker_says_what_it_needs(dataset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(dataset, folder)
    table = pd.read_parquet(folder / "impressions.parquet")
    table.assign(clicked=False).to_parquet(folder / "impressions.parquet")
    with pytest.raises(PlatformError, match="cannot learn from 0 clicks"):
        trained(folder, tmp_path / "model", config())
    (folder / "impressions.parquet").unlink()
    with pytest.raises(PlatformError, match="learns from impressions") as caught:
        trained(folder, tmp_path / "model", config())
    assert "impressions.source" in str(caught.value.fix)


def test_a_ranker_of_another_catalogue_or_release_is_refused(decided: Path, tmp_path: Path) -> None:
    trained(decided, tmp_path, config())
    spec = json.loads((tmp_path / "ranker.json").read_text())
    (tmp_path / "ranker.json").write_text(json.dumps({**spec, "features": ["luck"]}))
    with pytest.raises(PlatformError, match="recommender refused") as caught:
        read_model(tmp_path)
    assert "features" in str(caught.value.detail)
    (tmp_path / "ranker.json").write_text(json.dumps(spec))
    np.save(tmp_path / "rank.state.npy", np.zeros((3, 5)))
    with pytest.raises(PlatformError) as caught:
        read_model(tmp_path)
    assert "another catalogue" in str(caught.value.detail)


def table(**changed: Any) -> pd.DataFrame:
    rows = {"list": ["a", "a"], "user": ["u", "u"], "item": ["x", "y"], "place": [1, 2], "clicked": [1, 0]}
    return pd.DataFrame({**rows, "time": ["2026-01-01T10:00:00Z"] * 2, **changed})


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"propensity": [0.5, 0.0]}, "'propensity' must be a chance above 0"),
        ({"propensity": [0.5, 1.5]}, "'propensity' must be"),
        ({"propensity": [0.5, "much"]}, "'propensity' must be"),
        ({"place": [1, 1]}, "each place and each item once"),
        ({"item": ["x", "x"]}, "each place and each item once"),
        ({"place": [0, 1]}, "whole number from 1"),
        ({"clicked": [1, 7]}, "'clicked' must be 0 or 1"),
        ({"time": ["2026-01-01T10:00:00Z", "soon"]}, "'time' must be"),
        ({"user": ["u", None]}, "'user' must be a name"),
    ],
)
def test_impressions_that_cannot_be_are_named(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(PlatformError, match=said) as caught:
        checked(table(**changed))
    assert "list 'a', place" in str(caught.value.detail)


def test_impressions_are_read_as_written_and_split_by_their_moment(tmp_path: Path) -> None:
    frame = next(simulate(SMALL, 7)).to_pandas()
    lists = impressions(SMALL, 7)
    assert lists["clicked"].sum() == len(frame), "the same world"
    lists.assign(clicked=lists["clicked"].astype(int)).to_csv(tmp_path / "shown.csv", index=False)
    settings = replace(config(), impressions=ImpressionsConfig(source=str(tmp_path / "shown.csv")))
    parts, built_in = TASK.split(frame, settings), TASK.split(frame, config())
    pd.testing.assert_frame_equal(parts["impressions"], built_in["impressions"])
    found = built_in["impressions"]
    assert found.loc[found["part"] == "train", "time"].max() < parts["valid"]["seconds"].min()
    (tmp_path / "shown.csv").write_text("list,user\n1,2\n")
    with pytest.raises(PlatformError, match="impressions has no column 'item'"):
        TASK.split(frame, settings)
    lists.assign(user="who").to_csv(tmp_path / "shown.csv", index=False)
    with pytest.raises(PlatformError, match="no user of the impressions"):
        TASK.split(frame, settings)
    with pytest.raises(PlatformError, match="split by their moment"):
        TASK.split(
            frame.assign(part=["train", "test"] * (len(frame) // 2) + ["train"] * (len(frame) % 2)),
            replace(settings, split=SplitConfig(by="part")),
        )


def test_age_limits_and_providers_are_attributes_of_items(tmp_path: Path) -> None:
    frame = next(simulate(SMALL, 7)).to_pandas()
    frame["attributes"] = frame["attributes"] + np.where(frame["item"] < "i0030", "|by:anna", "|by:ben")
    settings = recipe_config(TASK)
    rules = replace(settings.list, ages={"crime": 16, "romance": 12}, provider="by:", exposure=0.5)  # type: ignore[attr-defined]
    for name, part in TASK.split(frame, settings).items():
        part.to_parquet(tmp_path / f"{name}.parquet")
    settings = replace(settings, list=rules)  # type: ignore[call-arg]
    settings.train(TASK, tmp_path, tmp_path / "model", tmp_path, lambda *a, **k: None)
    model = read_model(tmp_path / "model")[0]
    said = frame.drop_duplicates("item").set_index("item")["attributes"].str.split("|")
    wanted = [16.0 if "crime" in said[item] else 12.0 if "romance" in said[item] else 0.0 for item in model.items]
    assert model.arrays["age"].tolist() == wanted
    assert {item: int(at) for item, at in zip(model.items, model.arrays["provider"], strict=True)} == {
        item: int(item >= "i0030") for item in model.items
    }


@pytest.mark.parametrize(
    ("changed", "said"),
    [({"explore": "thompson"}, "draws from the last layer of a ranker"), ({"exposure": 0.5}, "no attribute says who")],
)
def test_lists_that_need_what_is_not_there_are_refused(changed: dict[str, Any], said: str, tmp_path: Path) -> None:
    settings: Any = recipe_config(TASK)
    settings = replace(settings, list=replace(settings.list, **changed))
    with pytest.raises(PlatformError, match=said):
        settings.train(TASK, tmp_path, tmp_path, tmp_path, lambda *a, **k: None)
