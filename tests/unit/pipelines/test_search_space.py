"""Before and below a search: the space that is searched, and the storage that its trials outlive processes in."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import PlatformError
from pipelines.io.record import RUN
from pipelines.search import study
from pipelines.search.space import checked_space
from pipelines.search_space import SEARCH_PODS, Dimension, declared_space
from pipelines.task import dump_config
from pipelines.tasks import get_task, load_config, recipe_config
from pipelines.values import chosen_config


def toy_space(toy: Any, **space: Any) -> dict[str, Dimension]:
    document = json.loads(dump_config(toy.recipes["tree"]))
    document["search"] = {"trials": 3, "space": space or {}}
    return checked_space(toy, load_config(toy, json.dumps(document)))


@pytest.mark.parametrize(
    ("task", "recipe"),
    [("credit", "lightgbm"), ("credit", "logistic"), ("credit", "scorecard"), ("fraud", "lightgbm")]
    + [("news", name) for name in ("linear", "embedding_lstm", "transformer")]
    + [("images", "resnet")],
)
def test_recipes_declare_a_space_that_holds_their_own_values(task: str, recipe: str) -> None:
    config = recipe_config(get_task(task), recipe, {"search.trials": 5})
    space = checked_space(get_task(task), config)
    document = json.loads(dump_config(config))
    assert len(space) >= 3
    for key, one in space.items():
        section, name = key.split(".")
        own = document[section][name]
        assert own in one.choices if one.choices else one.low <= own <= one.high


def test_conditions_are_of_the_section_that_declares_them() -> None:
    space = declared_space(recipe_config(get_task("news"), "linear")).dimensions
    assert list(space["model.ratio_smoothing"].when) == ["model.ratio_powers"]


def test_a_space_is_widened_to_the_recipes_own_value(toy: Any) -> None:
    found = toy_space(toy, **{"model.rounds": {"low": 20, "high": 30}})
    assert (found["model.rounds"].low, found["model.rounds"].high) == (15, 30)
    found = toy_space(toy, **{"model.rounds": {"choices": [20, 30]}})
    assert found["model.rounds"].choices == (20, 30, 15)


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({}, "declares nothing to search"),
        ({"model.rounds": {"low": 9, "high": 9}}, "model.rounds has one value"),
        ({"model.rounds": {"choices": [9]}}, "model.rounds has one value"),
        ({"model.round": {"low": 1, "high": 9}}, "names 'model.round', which recipe tree of task toy does not have"),
        ({"model": {"low": 1, "high": 9}}, "model is a section"),
        ({"seed": {"low": 1, "high": 9}}, "seed cannot be searched"),
        ({"gate.primary": {"choices": ["a", "b"]}}, "gate.primary cannot be searched"),
        ({"model.pause": {"low": 0.1, "high": 9.0, "log": True}}, "model.pause is 0.0, which is not on a logarithmic"),
        ({"model.rounds": {"choices": ["many", 3]}}, "invalid configuration"),
        ({"model.rounds": {"low": 9, "high": 1}}, "invalid configuration"),
        ({"model.rounds": {"low": 0, "high": 9, "log": True}}, "invalid configuration"),
        ({"model.rounds": {"low": 1, "high": 9, "choices": [1]}}, "invalid configuration"),
        ({"model.rounds": {"low": 1, "high": 9, "when": {"model.x": [1]}}}, "the condition of model.rounds names"),
    ],
)
def test_a_space_that_cannot_be_searched_says_why(toy: Any, space: Any, said: str) -> None:
    with pytest.raises(PlatformError, match=said) as caught:
        toy_space(toy, **space)
    assert caught.value.fix


def test_a_run_with_a_wrong_space_or_metric_is_refused_before_it_starts() -> None:
    credit = get_task("credit")
    space = {"model.c": {"low": 1.0, "high": 1.0}}
    with pytest.raises(PlatformError, match="c has one value"):
        chosen_config(credit, "logistic", {}, {"search.trials": 5, "search.space": space})
    with pytest.raises(PlatformError, match="'roc_auk' is not measured") as caught:
        chosen_config(credit, "logistic", {}, {"search.trials": 5, "search.metrics": ["roc_auk"]})
    assert "--metric roc_auc" in str(caught.value.fix)


def test_a_storage_that_is_away_is_waited_for_and_then_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "_SHORTEST", 0.001)
    calls: list[int] = []

    def away(times: int) -> Callable[[], str]:
        def call() -> str:
            calls.append(1)
            if len(calls) <= times:
                raise UnboundLocalError("updated_state")  # as Optuna 5.0 does
            return "here"

        return call

    assert study.patiently(away(3), 5.0, "looking") == "here"
    with pytest.raises(PlatformError, match="the storage of the search is away: looking") as caught:
        study.patiently(away(10**9), 0.02, "looking")
    assert caught.value.code == "no_storage"
    assert "what was tried is kept" in str(caught.value.fix)


def test_a_password_is_read_from_the_environment_and_never_from_the_configuration(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, toy: Any
) -> None:
    search = toy.recipes["tree"].search
    with pytest.raises(PlatformError, match="without a password") as caught:
        study.address(replace(search, storage="mysql+pymysql://me:hidden@host/db"), tmp_path)
    assert "hidden" not in str(caught.value)
    monkeypatch.setenv(study.PASSWORD, "p@ss")
    found = study.address(replace(search, storage="mysql+pymysql://me@host/db"), tmp_path)
    assert found == "mysql+pymysql://me:p%40ss@host/db"


def test_a_trial_whose_process_is_gone_is_given_away_again_with_its_values(tmp_path: Path) -> None:
    storage = study.open_storage(str(tmp_path / "s.journal"))
    made = study.make_study(storage, "s", ["maximize"], {"x": 3}, "signed", 1.0)
    for tries in range(1, 4):
        lost = made.ask()
        lost.suggest_int("x", 1, 5)
        lost.set_user_attr(study.WORKER, f"{socket.gethostname()}:{2**22 - 1}:0")  # no process has this number
        assert lost.params == {"x": 3}
        assert study.reclaim(made) == 1
        assert study.counted(made.trials) == (1 if tries == 3 else 0)  # waiting: not counted, so it is asked for
    assert study.reclaim(made) == 0
    assert "killed 3 times" in made.trials[-1].user_attrs[study.ERROR]


def test_a_trial_of_a_process_that_lives_or_of_another_machine_is_left_alone(tmp_path: Path) -> None:
    made = study.make_study(study.open_storage(str(tmp_path / "s.journal")), "s", ["maximize"], {}, "signed", 1.0)
    for owner in (study.token(0), "elsewhere:1:0"):
        made.ask().set_user_attr(study.WORKER, owner)
    made.ask()  # nobody's, and just made
    assert study.reclaim(made) == 0
    assert study.counted(made.trials) == 3
    assert study.reclaim(made, study.token(0)) == 1  # it works on nothing: it could not be told that it began


def test_a_trial_of_a_pod_that_is_gone_is_given_to_its_successor_or_to_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = study.make_study(study.open_storage(str(tmp_path / "s.journal")), "s", ["maximize"], {}, "signed", 1.0)
    monkeypatch.setenv(SEARCH_PODS, "2")
    monkeypatch.setenv(RUN, "this-run")
    for owner in ("this-run/one:7:0", "this-run/two:7:1", "other-run/one:7:0", "one:7:0"):
        made.ask().set_user_attr(study.WORKER, owner)
    here = study.token(0)
    assert here == f"this-run/{socket.gethostname()}:{os.getpid()}:0"
    assert study.reclaim(made) == 0
    assert study.reclaim(made, here) == 1, "of its own number, and of its run"
    assert study.reclaim(made, here) == 0
    assert study.reclaim(made, ended=True) == 1, "not those of another run, or of who knows whom"
    assert study.counted(made.trials) == 2
