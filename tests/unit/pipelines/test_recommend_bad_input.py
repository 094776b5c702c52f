"""What interactions bring along: people with far too many clicks, repeats, ratings that cannot be, items of nobody."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts.endpoints import Endpoints
from contracts.engines.recommend import RecommendEngine, write_model
from contracts.errors import PlatformError
from contracts.recommender import Recommender
from pipelines.checks.base import Candidate
from pipelines.checks.default_retriever import CHECK
from pipelines.recipes.recommend.settings import ItemsConfig, ListConfig, SplitConfig
from pipelines.settings import parse_setting
from pipelines.steps import batch_score, ingest, validate
from pipelines.task import DataConfig, dump_config
from pipelines.tasks import get_task, recipe_config
from pipelines.training.recommend import train_recommender
from pipelines.training.recommenders import AlsModel, EaseModel, GraphModel, ItemKnnModel, PopularModel
from tests.problem_bundles import lists, small_recommender

TASK = get_task("recommend")
CONFIG: Any = recipe_config(TASK)
MANY = 100_000


def clicks(users: Any, items: Any) -> pd.DataFrame:
    """Interactions, one a minute, in this order."""
    moments = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(np.arange(len(users)), unit="min")
    more = {"rating": np.nan, "attributes": None, "part": None}
    return pd.DataFrame(
        {"id": np.arange(len(users)).astype(str), "user": users, "item": items, "time": moments, **more}
    )


def trained(frame: pd.DataFrame, folder: Path, model: Any) -> RecommendEngine:
    config = replace(CONFIG, split=SplitConfig(by="user"))
    for name, part in TASK.split(frame, config).items():
        part.to_parquet(folder / f"{name}.parquet")
    train_recommender(folder, model, ListConfig(), 1, folder / "model", lambda *a, **k: None)
    return served(folder / "model")


def read(source: Path, home: Path, **settings: Any) -> tuple[dict[str, Any], pd.DataFrame]:
    """What validation says of a source, and the rows that are good."""
    config = dump_config(replace(CONFIG, **settings))
    home.mkdir(exist_ok=True)
    ingest.ingest("recommend", config, str(source), str(home / "data"), str(home / "manifest.json"))
    report = validate.validate("recommend", config, str(home / "manifest.json"), str(home / "clean"))
    return report, pd.concat(map(pd.read_parquet, sorted((home / "clean").glob("part-*.parquet"))))


def served(model: Path) -> RecommendEngine:
    bundle: Any = SimpleNamespace(model_path=model)
    return RecommendEngine(bundle)


def asked(user: str, items: str = "", k: float = 10.0) -> dict[str, Any]:
    row = {"user": user, "items": items, "k": k, "diversity": 0.2, "exclude": "", "attributes": ""}
    return {name: np.array([value], object if isinstance(value, str) else float) for name, value in row.items()}


@pytest.mark.parametrize("model", [PopularModel(), GraphModel(), ItemKnnModel(), AlsModel(factors=4, rounds=2)])
def test_who_clicks_a_hundred_thousand_times_is_one_person_like_others(model: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    others = [(f"u{user}", f"i{item}") for user in range(20) for item in rng.choice(60, 8, replace=False)]
    robot = [("robot", f"i{at % 50}") for at in range(MANY)]
    frame = clicks(*zip(*(others + robot), strict=True))
    engine = trained(frame, tmp_path, model)
    ends = engine._histories[0]
    at = engine.users.index("robot")
    assert ends[at + 1] - ends[at] <= 60, "each item once"
    mine = engine.predict(asked("robot"))[0]
    assert not set(mine.items) & {f"i{item}" for item in range(50)}
    assert len(engine.predict(asked("u3"))[0].items) == 10


def test_a_history_of_a_hundred_thousand_is_served(tmp_path: Path) -> None:
    model = small_recommender()
    write_model(tmp_path, model, ["robot"], [[at % 5 for at in range(MANY)]])
    assert served(tmp_path).predict(asked("robot", "|".join(["a", "b"] * 20_000)))[0].items == ("f",)


@pytest.mark.parametrize("rating", [-1.0, 100.5, 1e9, -np.inf])
def test_ratings_that_cannot_be_are_set_aside_by_row(tmp_path: Path, rating: float) -> None:
    rng = np.random.default_rng(2)
    pairs = [(f"u{user}", f"i{item}") for user in range(20) for item in rng.choice(40, 8, replace=False)]
    frame = clicks(*zip(*pairs, strict=True)).assign(rating=rng.uniform(0, 100, len(pairs)))
    frame.loc[17, "rating"] = rating
    source, config = tmp_path / "clicks.csv", dump_config(CONFIG)
    frame.drop(columns=["attributes", "part"]).to_csv(source, index=False)
    ingest.ingest("recommend", config, str(source), str(tmp_path / "data"), str(tmp_path / "manifest.json"))
    report = validate.validate("recommend", config, str(tmp_path / "manifest.json"), str(tmp_path / "clean"))
    assert (report["rows"], report["good"]) == (len(pairs), len(pairs) - 1)
    (line,) = (tmp_path / "clean" / "quarantine.csv").read_text().splitlines()[1:]
    assert "rating" in line
    assert "18" in line, "the row of the file, counted from 1"


def test_an_item_that_nobody_took_is_no_reason_for_another_and_comes_last(tmp_path: Path) -> None:
    model = small_recommender()
    arrays = {**model.arrays, "people": model.arrays["people"].copy(), "trend": model.arrays["trend"].copy()}
    arrays["people"][5] = arrays["trend"][5] = 0
    lonely = Recommender(model.spec, model.items, model.attributes, arrays)
    found = lonely.ranked(np.array([0]), np.zeros(6, bool), 5, 0.0)
    assert found.items[-1] == "f"
    assert np.isfinite([*found.scores, *found.measures.values()]).all()


@pytest.mark.parametrize("model", [PopularModel(), GraphModel(), ItemKnnModel(), AlsModel(factors=4, rounds=2)])
def test_people_who_are_all_alike_are_listed_what_all_take(model: Any, tmp_path: Path) -> None:
    """all_alike: everybody took the same items in the same order, and some of them several times."""
    users = np.repeat([f"u{at}" for at in range(12)], 12)
    items = np.tile([f"i{at}" for at in [3, 3, *range(10)]], 12)
    engine = trained(clicks(users, items), tmp_path, model)
    (known,) = engine.predict(asked("u3"))
    (session,) = engine.predict(asked("", "i1", 5.0))
    assert known.items == (), "all that there is was taken"
    assert len(session.items) == 5
    assert "i1" not in session.items
    assert np.isfinite([*session.scores, *session.measures.values()]).all()


def test_files_of_a_name_and_its_items_on_each_line_are_read_with_the_parts_they_are_called(tmp_path: Path) -> None:
    folder = tmp_path / "lists"
    folder.mkdir()
    (folder / "train.txt").write_bytes("007 a b  c\r\n8\nzoë\t日 a\n".encode())
    (folder / "test.txt").write_text("007 d\n8 ")
    report, rows = read(folder, tmp_path, data=DataConfig(adjacency=True), split=SplitConfig(by="part"))
    found = sorted(zip(rows["user"], rows["item"], rows["part"], strict=True))
    train = [("007", "a"), ("007", "b"), ("007", "c"), ("zoë", "a"), ("zoë", "日")]
    assert found == sorted([("007", "d", "test"), *((*pair, "train") for pair in train)])
    assert report["good"] == rows["id"].nunique() == 6


@pytest.mark.parametrize(("text", "said"), [("1,2,3\n", "line 1 has commas"), ("1\n2\n", "no line has a second name")])
def test_a_file_that_is_no_list_of_pairs_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "train.txt").write_text(text)
    with pytest.raises(PlatformError, match=said):
        read(tmp_path / "train.txt", tmp_path, data=DataConfig(adjacency=True))


def test_without_moments_the_test_is_drawn_and_nobody_gives_all(tmp_path: Path) -> None:
    users, items = np.repeat([f"u{at}" for at in range(30)], 10), np.tile([f"i{at}" for at in range(10)], 30)
    frame = clicks([*users, "lonely"], [*items, "i3"]).assign(time=pd.Series(pd.NaT, index=range(301)))
    with pytest.raises(PlatformError, match="needs the moment") as said:
        TASK.split(frame, CONFIG)
    assert "split.by=drawn" in str(said.value.fix)
    parts = TASK.split(frame, replace(CONFIG, split=SplitConfig(by="drawn")))
    assert parts["test"]["label"].str.count("[|]").add(1).tolist() == [2] * 30
    assert (len(parts["train"]), len(parts["valid"])) == (301 - 60 - 60, 60)
    assert "lonely" in set(parts["train"]["user"])


@pytest.mark.parametrize(("own", "passed"), [(0.21, True), (0.2, False)])
def test_a_trained_model_must_beat_the_default_retriever(tmp_path: Path, own: float, passed: bool) -> None:
    known: Any = {"folder": tmp_path, "dataset": tmp_path, "task": "recommend", "evaluation": {}}
    candidate = Candidate(**known, settings=CONFIG.gate, endpoints=Endpoints(home=str(tmp_path)))
    (tmp_path / "candidate.json").write_text(json.dumps({"parameters": {"validation_ndcg": own, "default_ndcg": 0.2}}))
    assert [check.passed for check in CHECK.find(candidate).checks] == [passed]
    (tmp_path / "candidate.json").write_text("{}")
    assert not CHECK.find(candidate).checks


def test_what_is_trained_is_compared_with_the_default_on_the_same_people(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    pairs = [(f"u{at}", f"i{item}") for at in range(30) for item in rng.choice(40, 10, replace=False)]
    config = replace(CONFIG, split=SplitConfig(by="user"))
    for name, part in TASK.split(clicks(*zip(*pairs, strict=True)), config).items():
        part.to_parquet(tmp_path / f"{name}.parquet")
    model, floor = EaseModel(l2=(10.0,), recency=(0.0,)), GraphModel(recency=(0.0,))
    told = train_recommender(tmp_path, model, ListConfig(), 1, tmp_path / "m", lambda *a, **k: None, floor=floor)
    alone = train_recommender(tmp_path, floor, ListConfig(), 1, tmp_path / "n", lambda *a, **k: None)
    assert told["parameters"]["default_ndcg"] == max(one["ndcg"] for one in alone["history"])
    assert told["parameters"]["validation_ndcg"] == max(one["ndcg"] for one in told["history"])
    assert "default_ndcg" not in alone["parameters"], "the default is not compared with itself"


@pytest.mark.parametrize(
    ("change", "settings", "said", "fix"),
    [
        ({"time": pd.Timestamp("1970-01-12", tz="UTC")}, {}, "all interactions are of 1970", "data.times.time=s"),
        ({"time": pd.Timestamp("2090-01-12", tz="UTC")}, {}, "leaves nothing for train", "correct the moments"),
        ({"time": pd.Timestamp("2026-01-12", tz="UTC")}, {}, "leaves nothing for test", "split.by=drawn"),
        ({}, {"min_people": 1000}, "leaves nothing for train", "split.min_people=1"),
        ({"rating": 3.0}, {"likes_from": 50.0}, "leaves nothing for test", "split.likes_from=1"),
    ],
)
def test_interactions_that_leave_nothing_say_why(change: Any, settings: Any, said: str, fix: str) -> None:
    frame = clicks(np.repeat([f"u{at}" for at in range(9)], 8), np.tile([f"i{at}" for at in range(8)], 9))
    with pytest.raises(PlatformError, match=said) as found:
        TASK.split(frame.assign(**change), replace(CONFIG, split=SplitConfig(**settings)))
    assert fix in str(found.value.fix)


def test_names_that_differ_by_spaces_alone_and_tables_of_other_items_are_refused(tmp_path: Path) -> None:
    frame = clicks(["u1", "u1 ", "u2"], ["a", "b", "c"])
    with pytest.raises(PlatformError, match="'user' has names that differ by spaces alone") as found:
        TASK.split(frame, CONFIG)
    assert "'u1', 'u1 '" in str(found.value.detail)
    (tmp_path / "items.csv").write_text("item,attributes\nA,new\nB,old\n")
    with pytest.raises(PlatformError, match="has none of the items"):
        TASK.split(frame.iloc[[0, 2]], replace(CONFIG, items=ItemsConfig(source=str(tmp_path / "items.csv"))))


def test_a_table_without_ids_is_told_how_rows_are_numbered(tmp_path: Path) -> None:
    (tmp_path / "clicks.csv").write_text("user,item,time\nu,i,2026-01-01\n")
    with pytest.raises(PlatformError) as found:
        read(tmp_path / "clicks.csv", tmp_path)
    assert "data.columns.id=" in str(found.value.fix)
    assert "#row" in str(found.value.fix)


def test_a_file_of_people_alone_is_scored_and_one_that_asks_for_nobody_is_refused(tmp_path: Path) -> None:
    bundle, where, out = lists(tmp_path), Endpoints(home=str(tmp_path)).model_dump_json(), tmp_path / "out"
    (tmp_path / "people.csv").write_text("user\nann\nnobody\n")
    (tmp_path / "wrong.csv").write_text("user_id,k\nann,2\n")
    summary = batch_score.batch_score(str(bundle.path), str(tmp_path / "people.csv"), where, str(out), "{}")
    rows = pd.concat(map(pd.read_parquet, sorted(out.glob("part-*.parquet"))))
    assert (summary["rows"], [len(items) for items in rows["items"]]) == (2, [3, 3])
    assert [list(flags) for flags in rows["flags"]] == [[], []], "what a row leaves out is the default"
    with pytest.raises(PlatformError, match="has no column 'user'"):
        batch_score.batch_score(str(bundle.path), str(tmp_path / "wrong.csv"), where, str(tmp_path / "no"), "{}")


def test_moments_as_text_under_a_recipe_of_seconds_say_how_they_are_read(tmp_path: Path) -> None:
    rows = [f"{at % 9},{at // 9},4.5,2026-01-0{1 + at % 9}T10:00:00Z" for at in range(60)]
    (tmp_path / "ratings.csv").write_text("\n".join(["userId,movieId,rating,timestamp", *rows]))
    data = recipe_config(TASK, "movielens").data
    with pytest.raises(PlatformError, match="rows are bad") as found:
        read(tmp_path / "ratings.csv", tmp_path, data=data)
    key, value = parse_setting(str(found.value.fix).split("--set ")[1].strip("'"))
    assert key == "data.times.time"
    report, _ = read(tmp_path / "ratings.csv", tmp_path / "again", data=replace(data, times={"time": value}))
    assert report["good"] == 60
