"""Steps that a task adds: where they stand in its graph, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import PlatformError
from pipelines.evaluation import get_evaluation
from pipelines.grouping import plan
from pipelines.resources import Placement
from pipelines.steps.added import added
from pipelines.steps.calls import graph, needs_of, steps_of
from pipelines.task import AddedStep, problem_of


def nothing(*_: Any) -> dict[str, Any]:
    """The work of a step that forgets to write."""
    return {}


@pytest.fixture
def adding(toy: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The toy task with these steps."""

    def make(**steps: AddedStep) -> Any:
        monkeypatch.setattr(toy, "steps", steps, raising=False)
        return toy

    return make


def test_each_stands_behind_the_step_that_it_names_in_the_order_of_the_task(adding: Any) -> None:
    task = adding(
        align=AddedStep(after="train", work=nothing, takes=("build_dataset",)),
        second=AddedStep(after="build_dataset", work=nothing),
        first=AddedStep(after="validate", work=nothing),
        third=AddedStep(after="build_dataset", work=nothing),
    )
    order = ("validate", "first", "build_dataset", "second", "third", "train", "align", "evaluate", "gate", "register")
    assert steps_of(task) == ("ingest", *order)
    assert steps_of(task, "training") == order
    assert steps_of(task, "ingestion") == ("ingest", "validate", "first")
    needs = needs_of(graph("full", task))
    assert (needs["third"], needs["train"], needs["align"]) == (["second"], ["third"], ["third", "train"])
    assert needs["evaluate"] == ["ingest", "third", "align"]


def test_a_problem_adds_steps_to_all_its_tasks_and_a_task_may_have_its_own_in_their_place(
    adding: Any, toy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation = get_evaluation(problem_of(toy))
    monkeypatch.setattr(type(evaluation), "steps", {"prepare_rows": AddedStep(after="validate", work=nothing)})
    assert steps_of(toy, "ingestion") == ("ingest", "validate", "prepare_rows")
    task = adding(prepare_rows=AddedStep(after="train", work=nothing), more=AddedStep(after="train", work=nothing))
    assert steps_of(task)[3:6] == ("train", "prepare_rows", "more")


def test_on_a_cluster_it_shares_pod_and_needs_with_the_step_that_it_is_after(adding: Any) -> None:
    made = graph("full", adding(align=AddedStep(after="train", work=nothing)))
    where = Placement(cluster=True, train_gpus=2)
    found = {task.component: task for task in plan(made, where)}
    assert (found["train"].steps, found["train"].like) == (("train", "align"), ("train", "train"))
    alone = plan(made, Placement(cluster=True, tasks="each"))
    assert [(task.component, task.like) for task in alone if "align" in task.steps] == [("added", ("train",))]


@pytest.mark.parametrize(
    ("name", "step", "said"),
    [
        ("train", AddedStep(after="validate", work=nothing), "are not taken"),
        ("run", AddedStep(after="validate", work=nothing), "are not taken"),
        ("../x", AddedStep(after="validate", work=nothing), "lower-case letters"),
        ("more", AddedStep(after="gate", work=nothing), "it names 'gate'"),
        ("more", AddedStep(after="build_dataset", work=nothing, takes=("train",)), "what train makes"),
    ],
)
def test_what_cannot_be_a_step_is_refused_before_the_first(name: str, step: AddedStep, said: str, adding: Any) -> None:
    with pytest.raises(PlatformError, match="cannot be") as caught:
        steps_of(adding(**{name: step}))
    assert said in caught.value.detail


def test_a_step_that_writes_nothing_is_an_error(adding: Any, toy_config: Callable[..., str], tmp_path: Path) -> None:
    adding(more=AddedStep(after="validate", work=nothing))
    given = {"validate": str(tmp_path)}
    with pytest.raises(PlatformError, match="step 'more' cannot be") as caught:
        added("more", "toy", toy_config(), given, str(tmp_path / "checkpoints"), str(tmp_path / "out"))
    assert caught.value.detail == "it wrote nothing"
