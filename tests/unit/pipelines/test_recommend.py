"""Recommending: splits without a leak, methods that are what their papers say, and a data set that becomes a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from contracts.engines.recommend import read_model
from contracts.errors import PlatformError
from pipelines.evaluation.list_measures import Exposure, ranks
from pipelines.recipes.recommend.settings import ItemsConfig, ListConfig, SplitConfig
from pipelines.task import DataConfig
from pipelines.tasks import get_task, recipe_config
from pipelines.tasks.recommend.bubble import _drift, bubble, without_reranking
from pipelines.tasks.recommend.simulator import SimulatorConfig, World, simulate
from pipelines.training.recommend import candidates, train_recommender
from pipelines.training.recommenders import AlsModel, EaseModel, GraphModel, ItemKnnModel, PopularModel, Taken, fit

TASK = get_task("recommend")
CONFIG: Any = recipe_config(TASK)
SMALL = SimulatorConfig(people=60, items=50, days=20)
RNG = np.random.default_rng(2)


def clicks(rows: list[tuple[str, str, int]], **more: Any) -> pd.DataFrame:
    """Interactions of (user, item, day)."""
    frame = pd.DataFrame(rows, columns=["user", "item", "day"])
    moment = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(frame.pop("day"), unit="D")
    given = {"rating": np.nan, "attributes": None, "part": None, **more}
    return frame.assign(id=[str(at) for at in range(len(frame))], time=moment, **given)


def simulated() -> pd.DataFrame:
    return next(simulate(SMALL, 3)).to_pandas()


def split(frame: pd.DataFrame, **settings: Any) -> dict[str, pd.DataFrame]:
    return TASK.split(frame, replace(CONFIG, split=SplitConfig(**settings)))


def people(frame: pd.DataFrame) -> list[Any]:
    """Rows with their columns as attributes."""
    return list(frame.itertuples())


def test_nothing_is_learned_from_the_future() -> None:
    frame = simulated()
    parts = split(frame.sample(frac=1, random_state=1))
    assert parts["train"]["seconds"].max() < parts["valid"]["seconds"].min()
    cut = parts["valid"]["seconds"].max()
    later = frame[frame["time"].dt.as_unit("us").astype("int64") / 1e6 > cut]
    assert len(later) == pytest.approx(0.2 * len(frame), abs=2)
    taken = {(row.who, item) for row in people(parts["test"]) for item in row.label.split("|")}
    assert taken <= set(zip(later["user"], later["item"], strict=True))
    known = pd.concat([parts["train"], parts["valid"]]).groupby("user")["label"].agg(set)
    for row in people(parts["test"]):
        assert set(filter(None, row.items.split("|"))) == known.get(row.who, set())
        assert not known.get(row.who, set()) & set(row.label.split("|"))
        assert row.user == "", "the list must follow from the history alone"


def test_each_person_s_newest_are_the_test() -> None:
    frame = clicks([("a", f"i{day}", day) for day in range(10)] + [("b", f"i{day}", day - 50) for day in range(5)])
    parts = split(frame, by="user")
    assert dict(zip(parts["test"]["who"], parts["test"]["label"], strict=True)) == {"a": "i8|i9", "b": "i4"}
    assert set(parts["valid"]["label"]) == {"i7"}
    last = split(frame, by="leave_one_out")
    assert dict(zip(last["test"]["who"], last["test"]["label"], strict=True)) == {"a": "i9", "b": "i4"}
    assert sorted(last["valid"]["label"]) == ["i3", "i8"]


def test_a_benchmark_s_own_parts_are_kept() -> None:
    parts = ["train"] * 60 + ["test"] * 20
    frame = clicks([(f"u{at % 7}", f"i{at}", 0) for at in range(80)], part=parts)
    frame["time"] = pd.NaT
    found = split(frame, by="part")
    assert sum(label.count("|") + 1 for label in found["test"]["label"]) == 20
    assert len(found["train"]) + len(found["valid"]) == 60
    assert 0 < len(found["valid"]) < 30
    with pytest.raises(PlatformError, match="needs the moment of each interaction"):
        split(frame)
    with pytest.raises(PlatformError, match="must name the part of each interaction") as caught:
        split(frame.assign(part="training"), by="part")
    assert "row 0 is in none" in str(caught.value.detail)


def test_what_is_left_out_is_counted_by_its_reason() -> None:
    ahead = (pd.Timestamp.now(tz="UTC") - pd.Timestamp("2026-01-01", tz="UTC")).days + 3
    rows = [(user, item, day) for day, user in enumerate("abcd") for item in ("i1", "i2", "i3")]
    frame = clicks([*rows, ("a", "i1", 9), ("b", "i9", 9), ("c", "i2", ahead)])
    config = replace(CONFIG, split=SplitConfig(by="time", test_share=0.3, min_people=2))
    masks = TASK.left_out(frame, {}, config)  # type: ignore[attr-defined]
    assert [np.flatnonzero(mask).tolist() for mask in masks.values()] == [[14], [12], [13]]
    parts = TASK.split(frame, config)
    kept = len(parts["train"]) + len(parts["valid"]) + sum(text.count("|") + 1 for text in parts["test"]["label"])
    assert kept == len(rows)


def test_low_ratings_are_not_learned_from_and_their_items_are_not_listed_again(tmp_path: Path) -> None:
    frame = simulated()
    frame["rating"] = np.where(np.arange(len(frame)) % 4 == 0, 1.0, 5.0)
    parts = split(frame, likes_from=3)
    assert set(parts["train"]["liked"]) == {True, False}
    row = next(row for row in people(parts["test"]) if row.exclude)
    assert not set(row.exclude.split("|")) & set(row.items.split("|"))
    for name, part in parts.items():
        part.to_parquet(tmp_path / f"{name}.parquet")
    train_recommender(tmp_path, PopularModel(), ListConfig(), 1, tmp_path / "model", lambda *a, **k: None)
    model, users, (ends, codes) = read_model(tmp_path / "model")
    mine = codes[ends[users.index(row.who)] : ends[users.index(row.who) + 1]]
    assert set(row.exclude.split("|")) <= {model.items[~code] for code in mine if code < 0}


def test_names_with_the_separator_are_refused() -> None:
    with pytest.raises(PlatformError, match="column 'item' has a name with") as caught:
        split(clicks([("a", "x|y", 1), ("b", "z", 2)]))
    assert "row 0, one of 1" in str(caught.value.detail)


def test_attributes_come_from_the_table_of_items(tmp_path: Path) -> None:
    file = tmp_path / "movies.csv"
    file.write_text("movieId,title,genres\ni1,One,Crime| Drama\ni2,Two,\n")
    columns = {"item": "movieId", "attributes": "genres"}
    config = replace(CONFIG, items=ItemsConfig(source=str(file), data=DataConfig(columns=columns)))
    rows = TASK.split(clicks([(user, item, day) for day, user in enumerate("abcdef") for item in ("i1", "i2")]), config)
    assert dict(zip(rows["train"]["label"], rows["train"]["item_attributes"], strict=True)) == {
        "i1": "Crime|Drama",
        "i2": "",
    }
    wrong = replace(config, items=replace(config.items, data=DataConfig(columns={**columns, "attributes": "kind"})))
    with pytest.raises(PlatformError, match="the table of items has no column 'kind'"):
        TASK.split(clicks([("a", "i1", 1)]), wrong)


def taken() -> Taken:
    matrix = csr_matrix((RNG.random((25, 12)) < 0.3).astype(float))
    item_of = matrix.nonzero()[1].astype(np.int64)
    return Taken(matrix, RNG.random(len(item_of)) * 30, item_of, 1)


def dense(arrays: dict[str, Any], count: int) -> Any:
    made = np.zeros((count, count))
    rows = np.repeat(np.arange(count), np.diff(arrays["similar.indptr"]))
    made[rows, arrays["similar.indices"]] = arrays["similar.weights"]
    return made


def test_graph_filter_is_a_walk_scaled_by_degrees() -> None:
    data = taken()
    r, people, users = data.matrix.toarray(), data.people, data.matrix.toarray().sum(axis=1)
    chosen = {"method": "graph_filter", "from_item": 1.0, "person": 1.0, "to_item": 0.25, "neighbours": 12}
    expected = r.T @ (r / np.maximum(users, 1)[:, None]) / people[:, None] / people**0.25
    np.fill_diagonal(expected, 0)
    assert dense(fit(data, chosen), 12) == pytest.approx(expected, rel=1e-5)
    few = dense(fit(data, {**chosen, "neighbours": 3}), 12)
    assert (few > 0).sum(axis=1).max() == 3
    assert np.sort(few, axis=1)[:, -3:] == pytest.approx(np.sort(expected, axis=1)[:, -3:], rel=1e-5)


def test_item_knn_is_a_cosine_that_is_shrunk() -> None:
    data = taken()
    r = data.matrix.toarray()
    expected = r.T @ r / (np.sqrt(np.outer(data.people, data.people)) + 10)
    np.fill_diagonal(expected, 0)
    found = fit(data, {"method": "item_knn", "shrink": 10.0, "neighbours": 12})
    assert dense(found, 12) == pytest.approx(expected, rel=1e-5)


def test_ease_solves_each_item_by_all_others() -> None:
    data = taken()
    r = data.matrix.toarray()
    found = dense(fit(data, {"method": "ease", "l2": 5.0, "neighbours": 0}), 12)
    inverse = np.linalg.inv(r.T @ r + 5 * np.eye(12))
    expected = np.eye(12) - inverse / np.diag(inverse)
    np.fill_diagonal(expected, 0)
    assert found == pytest.approx(expected, abs=1e-6)


def test_ease_refuses_what_does_not_fit_into_memory() -> None:
    wide = Taken(csr_matrix((2, 15_001)), np.zeros(0), np.zeros(0, np.int64))
    with pytest.raises(PlatformError, match="ease compares all pairs of 15,001 items") as caught:
        fit(wide, {"method": "ease", "l2": 5.0, "neighbours": 0})
    assert "--recipe graph_filter" in str(caught.value.fix)


def test_factors_lower_the_weighted_loss_with_every_round() -> None:
    data = taken()
    r = data.matrix.toarray()

    def loss(rounds: int) -> float:
        chosen = {"method": "als", "factors": 4, "l2": 1.0, "confidence": 5.0, "rounds": rounds}
        items = fit(data, chosen)["factors"].astype(float)
        sure = 1 + 5 * r
        people = np.array(
            [
                np.linalg.solve(items.T @ (c[:, None] * items) + np.eye(4), items.T @ (c * row))
                for c, row in zip(sure, r, strict=True)
            ]
        )
        return float((sure * (r - people @ items.T) ** 2).sum() + (items**2).sum() + (people**2).sum())

    losses = [loss(rounds) for rounds in (1, 3, 8)]
    assert losses == sorted(losses, reverse=True)


def test_what_is_popular_lately_counts_more() -> None:
    data = Taken(csr_matrix(np.ones((2, 2))), np.array([0.0, 0, 20, 20, 20]), np.array([0, 0, 1, 1, 1]))
    assert data.trend(0.0).tolist() == pytest.approx([2 / 3, 1])
    assert data.trend(10.0).tolist() == pytest.approx([1, 3 / 8])


@pytest.mark.parametrize(
    "model", [PopularModel(), ItemKnnModel(), EaseModel(l2=(50.0,)), AlsModel(rounds=2), GraphModel()]
)
def test_every_method_beats_chance_and_its_settings_are_chosen_by_validation(model: Any, tmp_path: Path) -> None:
    parts = split(simulated())
    for name, part in parts.items():
        part.to_parquet(tmp_path / f"{name}.parquet")
    quick = replace(model, recency=(0.0,)) if hasattr(model, "recency") else model
    out = train_recommender(tmp_path, quick, ListConfig(k=5), 1, tmp_path / "model", lambda *a, **k: None)
    assert out["engine"] == "recommend"
    assert len(out["history"]) == len(candidates(quick))
    best = max(out["history"], key=lambda one: one["ndcg"])
    assert {name: out["parameters"][name] for name in best if name in out["parameters"]} == {
        name: best[name] for name in best if name in out["parameters"]
    }
    assert best["recall"] > 1.5 * 5 / out["parameters"]["items"]
    found, users, histories = read_model(tmp_path / "model")
    assert len(users) == len(histories[0]) - 1
    assert out["output"]["catalogue"] == len(found.items)


def test_people_who_are_all_alike_get_what_is_left(tmp_path: Path) -> None:
    frame = clicks([(f"u{user}", f"i{item}", item) for user in range(6) for item in range(10)])
    for name, part in split(frame).items():
        part.to_parquet(tmp_path / f"{name}.parquet")
    out = train_recommender(tmp_path, GraphModel(), ListConfig(), 1, tmp_path / "model", lambda *a, **k: None)
    model, _, _ = read_model(tmp_path / "model")
    found = model.ranked(np.arange(3), np.zeros(len(model.items), bool), 20, 0.2)
    assert len(found.items) == out["output"]["catalogue"] - 3


def test_ranks_are_those_of_the_definitions() -> None:
    found = ranks([["a", "b", "c"], ["x"], []], [["b", "z"], ["y"], []], 3)
    ideal = 1 + 1 / np.log2(3)
    assert found[0] == pytest.approx([(1 / np.log2(3)) / ideal, 0.5, 1.0, 0.5])
    assert found[1].tolist() == [0, 0, 0, 0]
    assert np.isnan(found[2]).all()


def test_exposure() -> None:
    assert Exposure([["a"], ["a"]], 4).measure() == {"coverage": 0.25, "gini": pytest.approx(0.75)}
    assert Exposure([["a", "b"], ["c", "d"]], 4).measure() == {"coverage": 1.0, "gini": pytest.approx(0.0)}
    assert Exposure([["a"], ["b"]], 4).measure([1.0, 0.0])["coverage"] == 0.25


def test_a_bubble_is_measured_round_by_round_and_reranking_widens_it() -> None:
    config = replace(CONFIG, simulator=SMALL)
    shipped, bare = (bubble(one, rounds=3) for one in (config, without_reranking(config)))
    assert [one["round"] for one in shipped] == [1, 2, 3]
    assert shipped[0]["entropy"] > bare[0]["entropy"]
    assert all(0 <= one["tail"] <= 1 and one["clicks"] > 0 for one in shipped)
    assert bubble(config, rounds=1) == shipped[:1], "the same world every time"
    assert all(0 < one["drift"] < 1 for one in shipped)


def test_taste_drifts_by_how_far_clicks_are_from_it() -> None:
    world = World(SMALL, 1)
    world.had[:] = False
    world.had[0, 5], world.tastes[0] = True, world.kind[5]
    assert _drift(world) == pytest.approx(0), "who clicked nothing does not count"
    world.tastes[0] = (world.kind[5] == 0) / (world.kind[5] == 0).sum()
    assert _drift(world) == pytest.approx(1)


def test_a_low_pass_filter_is_added_to_the_hop() -> None:
    data = taken()
    r, users = data.matrix.toarray(), np.maximum(data.matrix.toarray().sum(axis=1), 1)
    scaled = r / np.sqrt(users)[:, None] / np.sqrt(data.people)
    _, _, turned = np.linalg.svd(scaled, full_matrices=False)
    expected = scaled.T @ scaled + 0.6 * turned[:4].T @ turned[:4]
    expected = expected / np.sqrt(data.people)[:, None] * np.sqrt(data.people)
    np.fill_diagonal(expected, 0)
    chosen = {"method": "graph_filter", "from_item": 1.0, "person": 1.0, "to_item": 0.0, "smooth": 0.6, "rank": 4}
    assert dense(fit(data, {**chosen, "neighbours": 12}), 12) == pytest.approx(expected, abs=1e-4)
    few = dense(fit(data, {**chosen, "neighbours": 3}), 12)
    assert ((few != 0).sum(axis=1) <= 3).all()
    assert few[few != 0] == pytest.approx(expected[few != 0], abs=1e-4)


def test_validation_is_a_share_of_each_person_where_a_benchmark_has_none() -> None:
    rows = [(f"u{user}", f"i{at}", 0) for user in range(6) for at in range(4 * user + 2)]
    frame = clicks([*rows, ("alone", "i0", 0), ("alone", "i1", 0)], part=["train"] * (len(rows) + 1) + ["test"])
    frame["time"] = pd.NaT
    found = split(frame, by="part", valid_share=0.2)["valid"].groupby("user").size()
    assert found.to_dict() == {f"u{user}": int(np.ceil((4 * user + 2) * 0.2)) for user in range(6)}
