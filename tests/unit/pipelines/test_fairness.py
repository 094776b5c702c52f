"""Groups: measured with intervals, judged where they are large enough, out of reach of models, and weighed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.bundle import Input
from contracts.errors import PlatformError
from contracts.fairness import NOT_STATED, Outcome, measure
from pipelines.checks.base import Candidate
from pipelines.checks.fairness import CHECK
from pipelines.data.sensitive import Sensitive, check_sensitive, read_groups, write_groups
from pipelines.recipes.tabular.base import TabularRecipe
from pipelines.task import Column, FairnessConfig, GateConfig
from pipelines.training.exponentiated_gradient import gains
from pipelines.training.mitigation import Mitigation, reweighed, with_parity
from pipelines.training.scorecard import ScorecardConfig
from pipelines.training.tabular import CostConfig
from pipelines.training.tradeoff import chosen_strength


def groups(*counts: tuple[str, int, int, int, int]) -> tuple[pd.DataFrame, Outcome]:
    """Rows of groups by name: selected and deserving, selected and not, refused and deserving, refused and not."""
    rows = [
        (name, selected, deserved)
        for name, *four in counts
        for (selected, deserved), count in zip([(1, 1), (1, 0), (0, 1), (0, 0)], four, strict=True)
        for _ in range(count)
    ]
    frame = pd.DataFrame(rows, columns=["sex", "selected", "deserved"])
    chance = np.full(len(frame), 0.5)
    outcome = Outcome(
        good="repaid",
        selected=frame["selected"].to_numpy(dtype=bool),
        deserved=frame["deserved"].to_numpy(dtype=bool),
        chance=chance,
    )
    return frame[["sex"]], outcome


def found(*counts: tuple[str, int, int, int, int], least: int = 50) -> dict[str, Any]:
    column: dict[str, Any] = measure(*groups(*counts), least)["columns"]["sex"]
    return column


def judge(evaluation: dict[str, Any], **limits: Any) -> Any:
    settings = GateConfig(fairness=FairnessConfig(**limits))
    about: dict[str, Any] = {"folder": Path(), "dataset": Path(), "endpoints": None}
    return CHECK.find(Candidate(task="credit", evaluation=evaluation, settings=settings, **about))


EVEN = ("m", 40, 10, 10, 40)


def test_rates_and_gaps_are_those_of_the_table() -> None:
    one = found(EVEN, ("w", 20, 5, 30, 45))
    assert (one["lowest"], one["highest"]) == ("w", "m")
    assert one["selection_ratio"] == pytest.approx(0.25 / 0.5)
    assert one["interval"][0] < 0.5 < one["interval"][1]
    assert one["tpr_gap"] == pytest.approx(0.8 - 0.4)
    assert one["fpr_gap"] == pytest.approx(0.2 - 0.1)
    assert one["groups"][0]["selection"]["low"] == pytest.approx(0.4038, abs=1e-4)  # Wilson, 50 of 100
    assert one["calibration_gap"] == pytest.approx(0.0)


def test_a_group_of_three_is_named_and_not_judged() -> None:
    evaluation = {"fairness": measure(*groups(EVEN, ("w", 38, 12, 12, 38), ("x", 0, 0, 3, 0)), 50)}
    column = evaluation["fairness"]["columns"]["sex"]
    assert [(one["name"], one["judged"]) for one in column["groups"]] == [("m", True), ("w", True), ("x", False)]
    assert column["selection_ratio"] == pytest.approx(1.0)
    decided = judge(evaluation, selection_ratio=0.8)
    assert [check.passed for check in decided.checks] == [True]
    assert decided.notes == ["sex: not judged, as too few or not stated: x (3)"]


@pytest.mark.parametrize(
    ("counts", "note"),
    [
        ([EVEN], "only one group: m"),
        ([(NOT_STATED, 40, 10, 10, 40)], "no row says its group"),
        ([EVEN, ("w", 2, 1, 1, 2)], "fewer than two groups have 50 rows"),
        ([("m", 0, 0, 50, 50), ("w", 0, 0, 50, 50)], "nobody is selected"),
    ],
)
def test_what_cannot_be_compared_is_said_and_does_not_pass(counts: list[Any], note: str) -> None:
    evaluation = {"fairness": measure(*groups(*counts), 50)}
    assert evaluation["fairness"]["columns"]["sex"]["note"] == note
    decided = judge(evaluation, selection_ratio=0.8)
    assert [(check.value, check.passed) for check in decided.checks] == [(None, False)]
    assert f"sex: {note}" in decided.notes


def test_a_group_of_one_class_has_one_rate_less() -> None:
    one = found(EVEN, ("w", 60, 0, 40, 0), ("x", 30, 20, 20, 30))
    assert one["groups"][1]["fpr"]["value"] is None
    assert one["note"] == "of one class only, so without one of the rates: w"
    assert one["fpr_gap"] == pytest.approx(0.2)


def test_two_columns_have_their_intersection() -> None:
    frame, outcome = groups(EVEN, ("w", 20, 5, 30, 45))
    frame["origin"] = ["here", "there"] * 100
    measured = measure(frame, outcome, 10)["columns"]
    assert list(measured) == ["sex", "origin", "sex and origin"]
    assert sum(one["rows"] for one in measured["sex and origin"]["groups"]) == 200
    evaluation = {"fairness": measure(frame, outcome, 10)}
    assert [one.metric for one in judge(evaluation, tpr_gap=0.5).checks] == ["sex:tpr_gap", "origin:tpr_gap"]
    assert len(judge(evaluation, tpr_gap=0.5, intersections=True).checks) == 3
    assert [one.metric for one in judge(evaluation, fpr_gap=0.5, columns=("sex",)).checks] == ["sex:fpr_gap"]


def test_a_limit_that_is_not_kept_refuses_and_an_unknown_column_is_named() -> None:
    evaluation = {"fairness": measure(*groups(EVEN, ("w", 20, 5, 30, 45)), 50)}
    refused = judge(evaluation, selection_ratio=0.8, calibration_gap=0.05)
    assert [(one.metric, one.passed) for one in refused.checks] == [
        ("sex:selection_ratio", False),
        ("sex:calibration_gap", True),
    ]
    with pytest.raises(PlatformError, match="names 'gender'"):
        judge(evaluation, columns=("gender",))
    assert judge({}).checks == []
    assert not judge({}, selection_ratio=0.8).checks[0].passed


class _Task:
    name, id, label, entities = "loans", "id", "outcome", ()
    columns = tuple(Column(name=name, dtype="string") for name in ("id", "outcome", "sex", "age"))
    sensitive: Any = (Sensitive(name="sex"), Sensitive(name="age", edges=(25, 40)))


def test_groups_are_kept_beside_the_data_set(tmp_path: Path) -> None:
    raw = pd.DataFrame({"id": ["a", "b", "c"], "sex": ["w", None, " "], "age": [24.0, 25.0, np.nan]})
    write_groups(_Task(), {"test": pd.DataFrame({"id": ["c", "a"]})}, raw, tmp_path)
    known = read_groups(tmp_path, "test", ["a", "c", "new"])
    assert known is not None
    assert known.to_dict("list") == {
        "sex": ["w", NOT_STATED, NOT_STATED],
        "age": ["below 25", NOT_STATED, NOT_STATED],
    }
    assert read_groups(tmp_path, "train", ["a"]) is None
    with pytest.raises(PlatformError, match="rows share the id 'a'"):
        write_groups(_Task(), {}, pd.concat([raw, raw]), tmp_path)


def test_a_column_that_the_source_lacks_is_not_stated(tmp_path: Path) -> None:
    write_groups(_Task(), {"test": pd.DataFrame({"id": ["a"]})}, pd.DataFrame({"id": ["a"], "sex": ["w"]}), tmp_path)
    known = read_groups(tmp_path, "test", ["a"])
    assert known is not None
    assert known["age"].tolist() == [NOT_STATED]


@pytest.mark.parametrize(("name", "inputs"), [("sex", ["sex"]), ("colour", []), ("outcome", [])])
def test_a_sensitive_column_is_no_input(name: str, inputs: list[str]) -> None:
    task = _Task()
    task.sensitive = (Sensitive(name=name),)
    with pytest.raises(PlatformError, match=f"sensitive column '{name}'"):
        check_sensitive(task, inputs)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["a", "b", NOT_STATED]), st.integers(0, 1)), min_size=8, max_size=200))
def test_reweighing_makes_group_and_class_independent(rows: list[tuple[str, int]]) -> None:
    rows = [*rows, *((name, y) for name in "ab" for y in (0, 1))]
    group, y = np.array([g for g, _ in rows], dtype=object), np.array([y for _, y in rows])
    label, weight = reweighed(group, y, 1.0)
    stated = group != NOT_STATED
    shares = [np.average(y[group == name], weights=weight[group == name]) for name in "ab"]
    assert label is y
    assert shares == pytest.approx([y[stated].mean()] * 2)
    assert (weight[~stated] == 1).all()
    assert (reweighed(group, y, 0.0)[1] == 1).all()


def test_parity_gives_the_poorer_group_more_and_nothing_at_strength_zero() -> None:
    group, y = np.array(["a"] * 50 + ["b"] * 50, dtype=object), np.array([1] * 30 + [0] * 20 + [1] * 10 + [0] * 40)
    label, weight = with_parity(group, y, 0.0)
    assert label.tolist() == y.tolist()
    assert (weight == 1).all()
    label, weight = with_parity(group, y, 0.1)
    assert weight[50] > 1 > weight[0]
    assert (with_parity(group, y, 1.0)[0][50:] == 1).all()
    label, weight = with_parity(group, y, 0.0, (1.0, 3.0))
    assert set(weight[label == 1]) == {1.5}
    assert set(weight[label == 0]) == {0.5}


def test_the_least_strength_that_reaches_the_target_is_taken() -> None:
    points = [{"strength": at, "selection_ratio": ratio} for at, ratio in ((0.0, None), (0.5, 0.85), (1.0, 0.95))]
    assert chosen_strength(Mitigation(method="reweighing", target=0.8), points) == 0.5
    assert chosen_strength(Mitigation(method="reweighing"), points) == 1.0
    with pytest.raises(PlatformError, match=r"reaches mitigation\.target 0\.99"):
        chosen_strength(Mitigation(method="reweighing", target=0.99), points)


class _Loans(_Task):
    problem, modality, classes, favourable = "classification", "tabular", ("repaid", "default"), "repaid"
    sensitive = (Sensitive(name="sex"),)

    def inputs(self, config: Any) -> list[Input]:
        return [Input(name="income", dtype="float64"), Input(name="town", dtype="string", categories=["a", "b"])]


LOANS: Any = _Loans()


def loans(rows: int, seed: int) -> pd.DataFrame:
    """Women earn less, so that they are refused more often, and live in town b more often."""
    rng = np.random.default_rng(seed)
    woman = rng.random(rows) < 0.5
    income = rng.normal(0, 1, rows) - 0.8 * woman
    label = np.where(rng.logistic(size=rows) > 0.5 + 1.2 * income, "default", "repaid")
    town = np.where(rng.random(rows) < np.where(woman, 0.8, 0.2), "b", "a")
    ids = [f"{seed}-{at}" for at in range(rows)]
    return pd.DataFrame({"id": ids, "income": income, "town": town, "label": label, "sex": np.where(woman, "w", "m")})


def test_each_strength_is_trained_once_and_the_one_that_is_fair_enough_is_served(tmp_path: Path) -> None:
    parts = {name: loans(4000, seed) for seed, name in enumerate(("train", "valid"))}
    for name, frame in parts.items():
        frame.drop(columns="sex").to_parquet(tmp_path / f"{name}.parquet")
    write_groups(LOANS, parts, pd.concat(parts.values()), tmp_path)
    recipe = TabularRecipe(
        recipe="fair",
        model=ScorecardConfig(),
        cost=CostConfig(false_negative=1.0),
        mitigation=Mitigation(
            method="parity", column="sex", strengths=(0.0, 0.1, 0.2, 0.3, 0.4), strength=0.0, target=0.8
        ),
    )

    def train(out: str) -> dict[str, Any]:
        (tmp_path / out).mkdir()
        return recipe.train(LOANS, tmp_path, tmp_path / out, tmp_path / "checkpoints", lambda *_, **__: None)

    found = train("first")
    ratios = {one["strength"]: one["selection_ratio"] for one in found["tradeoff"]["points"]}
    taken = found["tradeoff"]["taken"]
    assert ratios[0.0] < 0.7
    assert ratios[taken] >= 0.8
    assert all(ratio < 0.8 for strength, ratio in ratios.items() if strength < taken)
    card = (tmp_path / "first" / "scorecard.json").read_text()
    assert card == (tmp_path / "checkpoints" / f"parity-{taken:g}" / "model" / "scorecard.json").read_text()
    (tmp_path / "train.parquet").unlink()
    with pytest.raises(FileNotFoundError):
        replace(recipe, mitigation=Mitigation()).train(
            LOANS,
            tmp_path,
            tmp_path / "x",
            tmp_path / "y",
            lambda *_, **__: None,
        )
    assert train("second") == found  # nothing is trained again


def weighed(on: Mitigation, folder: Path, ids: list[str], label: list[int], x: Any = None) -> Any:
    given = np.zeros((len(ids), 1)) if x is None else x
    return on.apply(folder, [("train", ids, np.array(label))], given, (1.0, 1.0))


def test_a_mitigation_needs_groups(tmp_path: Path) -> None:
    on = Mitigation(method="reweighing", column="sex")
    with pytest.raises(PlatformError, match="is no sensitive column"):
        weighed(on, tmp_path, ["a"], [1])
    pd.DataFrame({"id": ["a", "b"], "sex": ["w", "w"]}).to_parquet(tmp_path / "groups_train.parquet")
    with pytest.raises(PlatformError, match="fewer than two groups"):
        weighed(on, tmp_path, ["a", "b"], [1, 0])


def prepared(folder: Path, rows: int = 3000) -> None:
    parts = {name: loans(rows, seed) for seed, name in enumerate(("train", "valid"))}
    for name, frame in parts.items():
        frame.drop(columns="sex").to_parquet(folder / f"{name}.parquet")
    write_groups(LOANS, parts, pd.concat(parts.values()), folder)


def trained(folder: Path, model: Any = None, **asked: Any) -> dict[str, Any]:
    recipe = TabularRecipe(
        recipe="fair",
        model=model or ScorecardConfig(),
        cost=CostConfig(false_negative=1.0),
        mitigation=Mitigation(column="sex", **asked),
    )
    (folder / "out").mkdir(exist_ok=True)
    found: dict[str, Any] = recipe.train(LOANS, folder, folder / "out", folder / "checkpoints", lambda *_, **__: None)
    return found


def test_the_gradient_finds_a_model_within_the_bound_and_others_are_shown_beside_it(tmp_path: Path) -> None:
    prepared(tmp_path, 1500)
    asked: dict[str, Any] = {"method": "exponentiated_gradient", "strengths": (0.0, 0.9), "strength": 0.0}
    found = trained(tmp_path, **asked, target=0.8, compare=("parity",))["tradeoff"]
    assert {one["method"] for one in found["points"]} == {"exponentiated_gradient", "parity"}
    ratios = {one["strength"]: one for one in found["points"] if one["method"] == found["method"]}
    assert ratios[0.0]["selection_ratio"] < 0.7 < 0.8 <= ratios[found["taken"]]["selection_ratio"]
    assert ratios[0.9]["accuracy"] > 0.6  # it has a price, and is no lottery


def given_to_gradient(only: str = "") -> tuple[Any, Any, Any]:
    frame = loans(600, 3)
    label = (frame["label"] == "default").to_numpy().astype(np.int64)
    sex = frame["sex"].to_numpy(dtype=object)
    label = np.where(sex == only, 0, label)
    return np.stack([frame["income"], frame["town"] == "b"], axis=1).astype(float), sex, label


def test_equal_errors_are_another_constraint_than_equal_selection() -> None:
    equal = gains(*given_to_gradient(), 1.0, "demographic_parity", (1.0, 1.0), "sex")
    assert equal["w", 0] == equal["w", 1] < 0 < equal["m", 0] == equal["m", 1]
    errors = gains(*given_to_gradient(), 1.0, "equalized_odds", (1.0, 1.0), "sex")
    assert errors["w", 0] != errors["w", 1]


def test_a_group_of_one_class_has_no_errors_to_make_equal() -> None:
    with pytest.raises(PlatformError, match="group 'w' of 'sex' are of one class") as err:
        gains(*given_to_gradient("w"), 1.0, "equalized_odds", (1.0, 1.0), "sex")
    assert err.value.fix.endswith("--set mitigation.constraint=demographic_parity")
    found = gains(*given_to_gradient("w"), 1.0, "demographic_parity", (1.0, 1.0), "sex")
    assert found["w", 0] == found["w", 1] > 0 > found["m", 0]


def test_more_than_the_whole_gap_cannot_be_taken_away() -> None:
    with pytest.raises(PlatformError, match="takes away more than there is"):
        gains(*given_to_gradient(), 1.5, "demographic_parity", (1.0, 1.0), "sex")


def test_rows_that_do_not_say_their_group_gain_and_lose_nothing(tmp_path: Path) -> None:
    x, sex, label = given_to_gradient()
    sex[::5] = NOT_STATED
    ids = [str(at) for at in range(len(sex))]
    pd.DataFrame({"id": ids, "sex": sex}).to_parquet(tmp_path / "groups_train.parquet")
    ((found, weight),) = weighed(
        Mitigation(method="exponentiated_gradient", column="sex", strength=0.9), tmp_path, ids, label.tolist(), x
    )
    assert (found[::5] == label[::5]).all()
    assert (weight[::5] == 1).all()
    assert (weight[sex != NOT_STATED] != 1).all()
