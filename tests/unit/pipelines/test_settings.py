"""Settings: what people write, what is meant, and what is printed for them to paste."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from contracts.bundle import Input
from contracts.errors import PlatformError
from pipelines.settings import apply, changes, parse_setting, setting
from pipelines.task import TaskConfig, dump_config
from pipelines.tasks import changed_config, get_task, recipe_config, task_names

_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
_SCALAR = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXT
_VALUE = _SCALAR | st.lists(_SCALAR, max_size=4) | st.dictionaries(_TEXT, _SCALAR, max_size=3)


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ("model.rounds=50", ("model.rounds", 50)),
        ("data.header=false", ("data.header", False)),
        ("data.drop=[a, b]", ("data.drop", ["a", "b"])),
        ("data.columns.amount=TX=AMOUNT", ("data.columns.amount", "TX=AMOUNT")),
        ("data.delimiter=\t", ("data.delimiter", "\t")),
    ],
)
def test_a_setting_is_yaml(item, expected) -> None:
    assert parse_setting(item) == expected


@pytest.mark.parametrize("item", ["rounds", "=5", ""])
def test_a_setting_without_key_or_value_is_refused(item) -> None:
    with pytest.raises(PlatformError, match="not a setting"):
        parse_setting(item)


@given(_VALUE)
@example({"\U00010000": None, "\x85": None})  # \x85 is a line break of YAML
@example({"'\x85": None})
def test_a_printed_setting_is_read_as_the_same_value(value: Any) -> None:
    option, word = shlex.split(setting("data.drop", value))
    assert option == "--set"
    assert parse_setting(word) == ("data.drop", value)
    assert type(parse_setting(word)[1]) is type(value)


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        ("amount", "--set k=amount"),
        ("transaction amount", "--set 'k=transaction amount'"),
        (["a", "b c"], "--set 'k=[a, b c]'"),
        (["no", "1"], """--set 'k=["no", "1"]'"""),
        (" x", """--set 'k=" x"'"""),
        ("12", """--set 'k="12"'"""),
        (0.06, "--set k=0.06"),
        (False, "--set k=false"),
    ],
)
def test_a_setting_is_printed_as_people_would_write_it(value, printed) -> None:
    assert setting("k", value) == printed


@pytest.mark.parametrize("table", ["data", "items.data", "impressions.data"])
def test_columns_of_any_table_are_named_one_by_one(table: str) -> None:
    """As the errors about a missing column say."""
    config = recipe_config(get_task("recommend"), None, {f"{table}.columns.item": "article"})
    found = json.loads(dump_config(config))
    for part in table.split("."):
        found = found[part]
    assert found["columns"] == {"item": "article"}


def test_what_two_configurations_differ_in_turns_one_into_the_other() -> None:
    for name in task_names():
        task = get_task(name)
        documents = [json.loads(dump_config(recipe)) for recipe in task.recipes.values()]
        column = task.columns[0].name
        given = {"seed": 11, f"data.columns.{column}": "a.b", "data.drop": ["x"], "gate.thresholds": []}
        documents.append(json.loads(dump_config(recipe_config(task, None, given))))
        for before in documents:
            for after in documents:
                changed = json.loads(json.dumps(before))
                kinds = [(one.keys(), one.get("model", {}).keys()) for one in (before, after)]
                if kinds[0] != kinds[1]:
                    continue  # of another kind of model: a recipe, not settings
                for key, value in changes(before, after).items():
                    apply(changed, key, value)
                assert changed == after


def test_a_changed_configuration_is_validated_and_the_first_one_is_left_alone() -> None:
    task = get_task("fraud")
    document = json.loads(dump_config(task.recipes["lightgbm"]))
    before = json.dumps(document)
    assert changed_config(task, document, {"model.rounds": 9}).model.rounds == 9  # type: ignore[attr-defined]
    assert json.dumps(document) == before
    with pytest.raises(PlatformError, match="invalid configuration"):
        changed_config(task, document, {"model.rounds": "many"})


@pytest.mark.parametrize(
    ("key", "part"), [("nothing.rounds", "nothing"), ("model.nothing", "nothing"), ("data.colums.x", "colums")]
)
def test_an_unknown_key_is_refused_where_it_is_unknown(key, part) -> None:
    with pytest.raises(PlatformError, match=f"unknown key '{part}'") as caught:
        recipe_config(get_task("fraud"), None, {key: 1})
    assert "accepted here: " in caught.value.detail
    assert caught.value.detail != "accepted here: "


def test_a_key_below_a_value_is_refused() -> None:
    with pytest.raises(PlatformError, match="seed is a value, not a section"):
        recipe_config(get_task("fraud"), None, {"seed.more": 1})


@pytest.mark.parametrize("name", ["", "  ", "_row", "_draw", "age "])
def test_a_column_name_that_cannot_be_is_refused_when_the_task_is_loaded(
    toy: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    column = toy.columns[0]
    twin = replace(column, name=name.strip() if name == "age " else column.name)
    monkeypatch.setattr(toy, "columns", (*toy.columns, replace(column, name=name), *([twin] if name == "age " else [])))
    with pytest.raises(PlatformError) as caught:
        get_task("toy")
    assert caught.value.code == "bad_task"
    assert repr(name) in caught.value.headline


@pytest.mark.parametrize("name", ["id", "label", "row_key", ""])
def test_an_input_name_that_the_data_have_already_is_refused(
    toy: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(toy, "inputs", lambda config: [Input(name=name, dtype="float64")])
    with pytest.raises(PlatformError) as caught:
        recipe_config(toy)
    assert caught.value.code == "bad_task"
    assert repr(name) in caught.value.headline


@given(names=st.lists(st.text(min_size=1, max_size=300).map(lambda text: f"x{text}x"), unique=True, max_size=6))
def test_any_other_names_are_taken(names: list[str]) -> None:
    task = SimpleNamespace(
        name="odd",
        recipes={"r": TaskConfig(recipe="r")},
        default_recipe="r",
        classes=None,
        inputs=lambda config: [Input(name=name, dtype="float64") for name in [*names, "9", "a__b", "\u540d"]],
        request=lambda config: [],
        columns=[],
    )
    assert recipe_config(task).recipe == "r"
