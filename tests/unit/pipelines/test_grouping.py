"""Steps that ask for nothing of their own share a KFP task, and a person can start it with the task's name alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from contracts.errors import PlatformError
from pipelines.grouping import GROUPS, needs_of, plan
from pipelines.resources import Placement, Resources
from pipelines.run_settings import needs, split
from pipelines.steps.calls import ORDER, graph
from pipelines.workflows import compile_workflows


def cluster(**given: Any) -> Placement:
    return Placement(cluster=True, image="registry/fairlead-python@sha256:1", **given)


def asked(**settings: Any) -> Placement:
    return cluster(needs=needs(split({key.replace("__", "."): value for key, value in settings.items()})[1]))


def compiled(folder: Path, where: Placement) -> dict[str, dict[str, Any]]:
    return {
        file.stem: next(yaml.load_all(file.read_text(), yaml.CSafeLoader)) for file in compile_workflows(folder, where)
    }


def tasks(where: Placement, workflow: str = "full") -> list[str]:
    return [task.name for task in plan(graph(workflow), where)]


@pytest.mark.parametrize("where", [cluster(), Placement()])
def test_by_default_a_run_is_one_task(where: Placement, tmp_path: Path) -> None:
    made = compiled(tmp_path, where)
    counts = {name: len(spec["root"]["dag"]["tasks"]) for name, spec in made.items()}
    assert counts == {"ingestion": 1, "training": 1, "full": 1, "batch_scoring": 1}
    task = made["full"]["root"]["dag"]["tasks"]["prepare-train-judge"]
    assert task["inputs"]["parameters"]["steps"]["runtimeValue"]["constant"] == ",".join(ORDER["full"])
    assert not task["cachingOptions"].get("enableCache")


@pytest.mark.parametrize(
    "where", [cluster(train_gpus=1), cluster(tasks="groups"), asked(resources__train__memory="8Gi")]
)
def test_training_that_asks_for_more_has_a_task_of_its_own(where: Placement, tmp_path: Path) -> None:
    spec = compiled(tmp_path, where)["full"]
    found = spec["root"]["dag"]["tasks"]
    assert set(found) == {"prepare", "train", "judge"}
    cached = {name for name, task in found.items() if task["cachingOptions"].get("enableCache")}
    assert cached == {"train"}, "KFP answers the training of two runs that train the same"
    executors = spec["deploymentSpec"]["executors"]
    gpus = {name for name, made in executors.items() if "accelerator" in made["container"]["resources"]}
    assert gpus == ({"exec-train"} if where.train_gpus else set())


def test_a_search_has_pods_between_what_is_before_the_training_and_it(tmp_path: Path) -> None:
    spec = compiled(tmp_path, cluster(search_pods=3))["full"]
    found = spec["root"]["dag"]["tasks"]
    pods = {"search", "search-2", "search-3"}
    assert set(found) == {"prepare", "train", "judge", *pods}
    assert all(found[pod]["dependentTasks"] == ["prepare"] for pod in pods)
    assert {*found["train"]["dependentTasks"]} == {"prepare", *pods}
    given = [found[pod]["inputs"]["parameters"]["worker"]["runtimeValue"]["constant"] for pod in sorted(pods)]
    assert given == [0, 1, 2]
    assert not any(found[pod]["cachingOptions"].get("enableCache") for pod in pods)
    told = spec["deploymentSpec"]["executors"]
    for name in ("prepare", "train", "search"):
        assert {"name": "FAIRLEAD_SEARCH_PODS", "value": "3"} in told[f"exec-{name}"]["container"]["env"], name


def test_each_step_may_have_a_task(tmp_path: Path) -> None:
    spec = compiled(tmp_path, cluster(tasks="each"))["full"]
    assert set(spec["root"]["dag"]["tasks"]) == {step.replace("_", "-") for step in ORDER["full"]}
    assert "prepare" not in str(spec["deploymentSpec"])


def test_a_task_needs_the_most_that_one_of_its_steps_does(tmp_path: Path) -> None:
    where = asked(resources__validate__memory="6Gi", resources__build_dataset__cpu="2", resources__register__cpu="3")
    assert tasks(where) == ["prepare", "train", "judge"]
    made = compiled(tmp_path, where)["full"]["deploymentSpec"]["executors"]
    given = {name: made[f"exec-{name}"]["container"]["resources"] for name in ("prepare", "train", "judge")}
    assert {name: (item["resourceMemoryLimit"], item["resourceCpuRequest"]) for name, item in given.items()} == {
        "prepare": ("6Gi", "2"),
        "train": ("2Gi", "500m"),
        "judge": ("2Gi", "3"),
    }


def test_what_holds_for_all_steps_splits_nothing() -> None:
    where = asked(resources__all__node_selector={"pool": "fast"}, resources__all__memory="5Gi")
    assert tasks(where) == ["prepare-train-judge"]
    found = needs_of(ORDER["full"], where)
    assert (found.memory, dict(found.node_selector)) == ("5Gi", {"pool": "fast"})


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ("ingest", ["prepare", "judge"]),
        ("evaluate", ["prepare", "judge"]),
        ("train", ["prepare", "train", "judge"]),
    ],
)
def test_neighbours_that_need_the_same_are_joined(step: str, expected: list[str], tmp_path: Path) -> None:
    where = asked(**{f"resources__{step}__node_selector": {"pool": "fast"}})
    assert tasks(where) == expected
    found = compiled(tmp_path, where)["full"]["root"]["dag"]["tasks"]
    assert sorted(found) == sorted(expected)
    steps = [step for task in plan(graph("full"), where) for step in task.steps]
    assert tuple(steps) == ORDER["full"]


def test_steps_of_one_task_cannot_be_on_two_nodes() -> None:
    where = asked(resources__ingest__node_selector={"pool": "a"}, resources__validate__node_selector={"pool": "b"})
    with pytest.raises(PlatformError, match="ask for different nodes: ingest, validate") as caught:
        needs_of(GROUPS["prepare"], where)
    assert "workflow.tasks=each" in caught.value.fix


def test_groups_have_every_step_once_and_in_order() -> None:
    assert tuple(step for members in GROUPS.values() for step in members) == ORDER["full"]
    for workflow, order in ORDER.items():
        for mode in ("few", "groups", "each"):
            found = [step for task in plan(graph(workflow), cluster(tasks=mode)) for step in task.steps]
            assert tuple(found) == order, (workflow, mode)


def test_only_the_task_must_be_given(tmp_path: Path) -> None:
    for mode in ("few", "groups"):
        for name, spec in compiled(tmp_path, cluster(tasks=mode)).items():
            declared = spec["root"]["inputDefinitions"]["parameters"]
            needed = {parameter for parameter, said in declared.items() if not said.get("isOptional")}
            assert needed == ({"model", "source"} if name == "batch_scoring" else {"task"}), name
            assert all(said.get("description") for said in declared.values()), name


def test_what_kubeflows_page_shows_is_an_output_of_the_tasks(tmp_path: Path) -> None:
    shown = {
        "data_report": "system.HTML",
        "metrics": "system.Metrics",
        "classes": "system.ClassificationMetrics",
        "card": "system.HTML",
        "gate": "system.Markdown",
    }
    for where in (cluster(), cluster(tasks="groups")):
        found: dict[str, str] = {}
        for component in compiled(tmp_path, where)["full"]["components"].values():
            for name, kind in component.get("outputDefinitions", {}).get("artifacts", {}).items():
                found[name] = kind["artifactType"]["schemaTitle"]
        assert found == shown


def test_one_step_needs_what_it_needs() -> None:
    assert needs_of(("train",), cluster()) == cluster().needs_of("train")
    assert needs_of(("validate",), cluster()) == Resources()
