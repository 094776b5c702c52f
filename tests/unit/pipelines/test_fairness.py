"""Groups: measured with intervals, judged where they are large enough, out of reach of models, and weighed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts.errors import PlatformError
from contracts.fairness import NOT_STATED, Outcome, measure
from pipelines.checks.base import Candidate
from pipelines.checks.fairness import CHECK
from pipelines.data.sensitive import Sensitive, check_sensitive, read_groups, write_groups
from pipelines.task import Column, FairnessConfig, GateConfig


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
