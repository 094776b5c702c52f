"""The table of people beside the interactions: what is read of it, what is refused, and what is popular in groups."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts.engines.recommend import RecommendEngine
from contracts.errors import PlatformError
from pipelines.data.sensitive import Sensitive
from pipelines.recipes.recommend.settings import ListConfig, SplitConfig, UsersConfig
from pipelines.task import DataConfig
from pipelines.tasks import get_task, recipe_config
from pipelines.tasks.recommend.simulator import REGIONS, SimulatorConfig, simulate, users
from pipelines.training.recommend import train_recommender
from pipelines.training.recommenders import GraphModel, PopularModel
from tests.unit.pipelines.test_recommend_bad_input import asked, clicks, served

TASK = get_task("recommend")
CONFIG: Any = recipe_config(TASK)
ROWS = [(f"u{person}", f"i{(person % 2) * 10 + at}") for at in range(10) for person in range(40) if (person + at) % 3]
EVERYBODY = clicks(*zip(*ROWS, strict=True))
PEOPLE = [(f"u{person}", "north" if person % 2 else "south") for person in range(37)]
FEW = [(f"u{person}", "islands") for person in range(37, 40)]


def config(source: str, **settings: Any) -> Any:
    given = UsersConfig(source=source, **{"groups": ("region",), "least": 5, **settings})
    return replace(CONFIG, split=SplitConfig(by="user"), users=given)


def table(folder: Path, rows: Any, columns: tuple[str, ...] = ("user", "region")) -> str:
    file = folder / "people.csv"
    pd.DataFrame(rows, columns=list(columns)).to_csv(file, index=False)
    return str(file)


def trained(folder: Path, config: Any, model: Any, frame: pd.DataFrame = EVERYBODY) -> tuple[RecommendEngine, Any]:
    frames = TASK.split(frame, config)
    for name, part in frames.items():
        part.to_parquet(folder / f"{name}.parquet")
    made = (folder, model, ListConfig(diversity=0.0), 1, folder / "model", lambda *a, **k: None)
    out = train_recommender(*made, people=config.users)
    return served(folder / "model"), out["parameters"] | {"test": frames["test"]}


def of_group(engine: RecommendEngine, said: str, user: str = "", k: float = 5) -> Any:
    return engine.predict({**asked(user, k=k), "group": np.array([said], object)})[0]


@pytest.mark.parametrize("model", [PopularModel(half_life=(0.0,)), GraphModel(recency=(0.0,))])
def test_a_new_person_gets_what_is_popular_in_the_group(model: Any, tmp_path: Path) -> None:
    """cold_with_a_group: of a known group by the table or by the request; of three people there is no group."""
    newcomer = [("new", "north"), ("lost", None)]
    engine, said = trained(tmp_path, config(table(tmp_path, PEOPLE + FEW + newcomer)), model)
    north = {f"i{at}" for at in range(10, 20)}
    for found in (of_group(engine, "region=north"), of_group(engine, "", "new")):
        assert set(found.items) <= north
        assert (set(found.why), found.group) == ({"near"}, "region=north")
    assert not set(of_group(engine, "region=south").items) & north
    overall = of_group(engine, "")
    assert set(overall.why) == {"popular"}
    for user, text, flags in (
        ("u39", "", ["small_group"]),
        ("lost", "", []),
        ("", "region=islands", ["unknown_group"]),
        ("", "region=NORTH", ["unknown_group"]),
    ):
        assert engine.group_of(user, text) == (-1, flags)
    assert of_group(engine, "region=islands").items == overall.items
    assert "islands" not in (tmp_path / "model" / "ids.json").read_text(), "a few people leave no name in a model"
    assert (engine.knows("new"), engine.knows("u1"), said["groups"]) == (False, True, 2.0)
    assert dict(zip(said["test"]["who"], said["test"]["group"], strict=True))["u1"] == "region=north"


def test_the_less_is_known_of_somebody_the_more_the_group_counts(tmp_path: Path) -> None:
    where = config(table(tmp_path, PEOPLE + FEW), weight=(3.0,))
    engine, said = trained(tmp_path, where, GraphModel(recency=(0.0,)))
    assert said["group_weight"] == 3.0
    row = {**asked("", "i0"), "group": np.array(["region=north"], object)}
    found = engine.predict(row)[0]
    assert {why for item, why in zip(found.items, found.why, strict=True) if int(item[1:]) >= 10} == {"near"}
    assert "similar" in found.why
    longer = engine.predict({**row, "items": np.array(["i0|i1|i2|i3"], object)})[0]
    assert sum(why == "near" for why in longer.why[:5]) < sum(why == "near" for why in found.why[:5])


def test_attributes_that_no_setting_names_are_not_read(tmp_path: Path) -> None:
    rows = [(*one, "f", 34) for one in PEOPLE]
    file = table(tmp_path, rows, ("user", "region", "sex", "age"))
    assert list(TASK.split(EVERYBODY, config(file))["users"].columns) == ["user", "region"]


@pytest.mark.parametrize(
    ("rows", "columns", "said", "detail"),
    [
        ([*PEOPLE, ("u1", "south")], ("user", "region"), "in the table twice", "u1"),
        ([*PEOPLE, ("", "south")], ("user", "region"), "column 'user' must be a name", "one of 1"),
        ([*PEOPLE, ("x", "a|b")], ("user", "region"), "column 'region' must be a name", "'a|b'"),
        (PEOPLE, ("person", "region"), "the table of users has no column 'user'", "person, region"),
        (PEOPLE, ("user", "country"), "the table of users has no column 'region'", "user, country"),
        ([("somebody", "north")], ("user", "region"), "none of the users of the interactions", "somebody"),
    ],
    ids=["twice", "nobody", "separator", "no user", "no region", "others"],
)
def test_a_table_that_cannot_be_is_named(
    tmp_path: Path, rows: Any, columns: tuple[str, ...], said: str, detail: str
) -> None:
    with pytest.raises(PlatformError, match=said) as caught:
        TASK.split(EVERYBODY, config(table(tmp_path, rows, columns)))
    assert detail in str(caught.value.detail)
    assert caught.value.fix


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([1, 2], ["1", "2"]),
        ([True, False], ["True", "False"]),
        ([1.0, None], ["1", ""]),
        ([" north ", None], ["north", ""]),
        ([34.5, 1.0], None),
        ([["north"], ["south"]], None),
        ([pd.Timestamp("2026-01-01"), None], None),
        (["x" * 300, "y"], None),
    ],
)
def test_values_that_are_no_text_are_names_or_refused(tmp_path: Path, values: Any, found: list[str] | None) -> None:
    file = tmp_path / "people.parquet"
    pd.DataFrame({"user": ["u1", "u2"], "region": values}).to_parquet(file)
    if found is None:
        with pytest.raises(PlatformError, match="column 'region' must be a name") as caught:
            TASK.split(EVERYBODY, config(str(file)))
        assert "u1" in str(caught.value.detail)
    else:
        assert TASK.split(EVERYBODY, config(str(file)))["users"]["region"].tolist() == found


def test_rows_that_say_the_same_count_once(tmp_path: Path) -> None:
    assert len(TASK.split(EVERYBODY, config(table(tmp_path, PEOPLE + PEOPLE)))["users"]) == len(PEOPLE)


@pytest.mark.parametrize("name", ["age", "attributes", "user", "a=b", "sex"])
def test_what_is_sensitive_or_means_something_else_is_no_group(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TASK, "sensitive", (Sensitive(name="sex"),), raising=False)
    with pytest.raises(PlatformError, match=r"users\.groups has"):
        TASK.split(EVERYBODY, config(table(tmp_path, PEOPLE), groups=(name,)))


def test_a_table_without_groups_says_which_setting_names_them(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="names no attribute") as caught:
        TASK.split(EVERYBODY, config(table(tmp_path, PEOPLE), groups=()))
    assert "users.groups" in str(caught.value.fix)


def test_people_have_a_table_of_their_own_by_mapping(tmp_path: Path) -> None:
    file = table(tmp_path, PEOPLE, ("visitor", "country"))
    given = config(file, data=DataConfig(columns={"user": "visitor", "region": "country"}))
    assert len(TASK.split(EVERYBODY, given)["users"]) == len(PEOPLE)


def test_the_built_in_people_are_those_of_the_built_in_clicks_alone() -> None:
    small = SimulatorConfig(people=60, items=50, days=20, local=1.0)
    built_in = replace(CONFIG, simulator=small, users=UsersConfig(source="built-in", groups=("region",)))
    frame = next(simulate(small, CONFIG.seed)).to_pandas()
    found = TASK.split(frame, built_in)
    assert set(found["users"]["region"]) - {""} == set(REGIONS)
    pd.testing.assert_frame_equal(users(small, 7), users(small, 7))
    other = frame.assign(item=frame["item"].to_numpy()[::-1])
    assert "users" not in TASK.split(other, built_in), "names alone do not make somebody one of them"
    assert set(TASK.split(other, built_in)["test"]["group"]) == {""}
