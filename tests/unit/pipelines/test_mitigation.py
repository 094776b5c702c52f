"""Ways to treat groups alike: what each does to rows and answers, and that its price is measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.bundle import Input
from contracts.errors import PlatformError
from contracts.fairness import NOT_STATED
from contracts.problems import get_problem
from contracts.problems.classification import ByGroup, ClassificationOutput, Decision
from pipelines.data.sensitive import Sensitive, write_groups
from pipelines.evaluation.group_cuts import moved
from pipelines.recipes.tabular.base import TabularRecipe
from pipelines.steps.batch_groups import GroupCuts, parted
from pipelines.task import Column
from pipelines.training.exponentiated_gradient import gains
from pipelines.training.group_thresholds import thresholds
from pipelines.training.mitigation import Mitigation, resampled, reweighed, with_parity
from pipelines.training.scorecard import ScorecardConfig
from pipelines.training.tabular import CostConfig, LogisticConfig
from pipelines.training.tradeoff import chosen_strength


class Loan:
    name, id, label, entities = "loans", "id", "outcome", ()
    columns = tuple(Column(name=name, dtype="string") for name in ("id", "outcome", "sex", "age"))
    sensitive: Any = (Sensitive(name="sex"), Sensitive(name="age", edges=(25, 40)))


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


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.tuples(st.sampled_from(["a", "b", NOT_STATED]), st.integers(0, 1)), min_size=20, max_size=300),
    over=st.booleans(),
    by_group=st.booleans(),
)
def test_rows_are_drawn_until_group_and_class_are_independent_and_none_is_lost_or_made_up(
    rows: list[tuple[str, int]], over: bool, by_group: bool
) -> None:
    rows = [*rows, *((name, y) for name in "ab" for y in (0, 1))] * 4
    group, y = np.array([g if by_group else "all" for g, _ in rows], dtype=object), np.array([y for _, y in rows])
    drawn = resampled(group, y, 1.0, over, by_group)
    assert (drawn == drawn.round()).all()
    assert (drawn >= 1).all() if over else (drawn <= 1).all()
    assert (drawn[group == NOT_STATED] == 1).all()
    assert (resampled(group, y, 0.0, over, by_group) == 1).all()
    names = "ab" if by_group else ["all"]
    shares = [np.average(y[group == name], weights=drawn[group == name]) for name in names]
    wanted = y[group != NOT_STATED].mean() if by_group else 0.5
    least = min(drawn[group == name].sum() for name in names)
    assert shares == pytest.approx([wanted] * len(names), abs=1.5 / least)


def test_classes_are_made_as_many_without_groups_in_the_training_rows_alone(tmp_path: Path) -> None:
    asked = Mitigation(method="oversampling")
    parts = [("train", list("abcd"), np.array([0, 0, 0, 1])), ("valid", list("ef"), np.array([0, 1]))]
    (_, train), (_, valid) = asked.apply(tmp_path, parts, np.zeros((4, 1)), (1.0, 1.0))
    assert train is not None
    assert train.tolist() == [1, 1, 1, 3]
    assert valid is not None
    assert valid.tolist() == [1, 1]


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


class _Loans(Loan):
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
    frame = loans(2400, 3)  # of 600 the gap is as large as chance, and machines decide
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


def test_rows_that_do_not_say_their_group_or_are_of_a_new_one_gain_and_lose_nothing(tmp_path: Path) -> None:
    x, sex, label = given_to_gradient()
    sex[::5] = NOT_STATED
    ids = [str(at) for at in range(len(sex))]
    pd.DataFrame({"id": ids, "sex": sex}).to_parquet(tmp_path / "groups_train.parquet")
    pd.DataFrame({"id": ["new", "old"], "sex": ["x", "w"]}).to_parquet(tmp_path / "groups_valid.parquet")
    on = Mitigation(method="exponentiated_gradient", column="sex", strength=0.9)
    parts = [("train", ids, label), ("valid", ["new", "old"], np.array([1, 1]))]
    (found, weight), (_, others) = on.apply(tmp_path, parts, x, (1.0, 1.0))
    assert weight is not None
    assert others is not None
    assert (found[::5] == label[::5]).all()
    assert (weight[::5] == 1).all()
    assert (weight[sex != NOT_STATED] != 1).all()
    assert others[0] == 1 != others[1]


REASON = "allowed by the board of credit, 12 May, for a study of offers"


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 40), st.sampled_from(["a", "b", NOT_STATED])), min_size=120, max_size=300),
    strength=st.floats(0, 1),
    common=st.floats(0.05, 0.95),
)
def test_answers_that_are_moved_are_parted_by_the_common_threshold_as_by_their_own(
    rows: list[tuple[int, str]], strength: float, common: float
) -> None:
    probability = np.array([one / 40 for one, _ in rows])
    group = np.array([name for _, name in rows], dtype=object)
    own = thresholds(probability, group, common, strength)
    decision = Decision(
        positive="yes",
        threshold=common,
        false_positive_cost=1.0,
        false_negative_cost=1.0,
        by_group=ByGroup(column="sex", thresholds=own, reason=REASON),
    )
    found = moved(np.stack([1 - probability, probability], axis=1), group.tolist(), 1, decision)
    cut = np.array([own.get(name, common) for name in group])
    assert ((found[:, 1] >= common) == (probability >= cut)).all()
    assert ((found >= 0) & (found <= 1)).all()
    for name in own:
        mine = group == name
        order = np.argsort(probability[mine], kind="stable")
        assert (np.diff(found[mine, 1][order]) >= -1e-12).all()


def test_a_small_group_keeps_the_common_threshold_and_the_whole_strength_selects_alike() -> None:
    rng = np.random.default_rng(1)
    group = np.array(["a"] * 500 + ["b"] * 400 + ["c"] * 3, dtype=object)
    probability = np.concatenate([rng.random(500), rng.random(400) ** 3, [0.1, 0.2, 0.9]])
    found = thresholds(probability, group, 0.5, 1.0)
    assert set(found) == {"a", "b"}
    rates = [float((probability[group == name] >= found[name]).mean()) for name in ("a", "b")]
    assert rates[0] == pytest.approx(rates[1], abs=0.005)
    unmoved = thresholds(probability, group, 0.5, 0.0)
    for name, at in unmoved.items():
        mine = probability[group == name]
        assert ((mine >= at) == (mine >= 0.5)).all()


def test_thresholds_by_group_need_a_reason_are_in_the_bundle_and_change_no_request(tmp_path: Path) -> None:
    prepared(tmp_path, 1500)
    with pytest.raises(PlatformError, match="need a reason") as err:
        trained(tmp_path, method="thresholds", strengths=(0.0, 1.0))
    assert "mitigation.reason=" in err.value.fix
    found = trained(tmp_path, LogisticConfig(), method="thresholds", strengths=(0.0, 1.0), reason=REASON)
    plain, alike = found["tradeoff"]["points"]
    assert plain["selection_ratio"] < 0.7
    assert alike["selection_ratio"] > 0.97
    by = found["decision"]["by_group"]
    assert (by["column"], by["reason"], set(by["thresholds"])) == ("sex", REASON, {"w", "m"})
    kept = Decision.model_validate(found["decision"])
    sure = np.array([[0.5, 0.5]])
    output = ClassificationOutput(classes=["repaid", "default"])
    assert get_problem("classification").decide(output, kept, sure) == get_problem("classification").decide(
        output, kept.model_copy(update={"by_group": None}), sure
    )


def test_a_batch_takes_thresholds_by_group_from_a_table_and_says_so(tmp_path: Path) -> None:
    by = ByGroup(column="sex", thresholds={"w": 0.3, "m": 0.7}, reason=REASON)
    cost = {"false_positive_cost": 1.0, "false_negative_cost": 1.0}
    decision = Decision(positive="yes", threshold=0.5, by_group=by, **cost)
    output = SimpleNamespace(classes=["no", "yes"])
    document: Any = SimpleNamespace(name="loans", decision=decision, signature=SimpleNamespace(output=output))
    file = tmp_path / "people.csv"
    file.write_text("person,sex\n1,w\n2,m\n3,\n")
    reading, grouping = parted({"data.delimiter": ";", "groups.table": str(file), "groups.key": "person"})
    assert reading == {"data.delimiter": ";"}
    cuts, answers = GroupCuts(document, grouping), np.array([[0.6, 0.4]] * 4)
    found = cuts.apply(pa.table({"person": [1, 2, 3, 4]}), answers)
    assert (found[:, 1] >= 0.5).tolist() == [True, False, False, False]
    told = cuts.document()["thresholds_by_group"]
    assert told == {"column": "sex", "reason": REASON, "rows": {"w": 1, "m": 1, NOT_STATED: 2}}
    silent = GroupCuts(document, {})
    assert silent.apply(pa.table({"person": [1]}), answers[:1]) is not None
    assert "answered by the common one" in silent.warnings[0]
    with pytest.raises(PlatformError, match="no column person"):
        cuts.apply(pa.table({"id": [1]}), answers[:1])
    plain: Any = SimpleNamespace(name="loans", decision=Decision(positive="yes", threshold=0.5, **cost))
    plain.signature = document.signature
    with pytest.raises(PlatformError, match="has no thresholds by group"):
        GroupCuts(plain, grouping)
    for text, said in (("person,age\n1,3\n", "has no column sex"), ("person,sex\n1,w\n1,m\n", "'1' twice")):
        file.write_text(text)
        with pytest.raises(PlatformError, match=said):
            GroupCuts(document, grouping)
    with pytest.raises(PlatformError, match="are said by"):
        parted({"groups.key": "person"})
