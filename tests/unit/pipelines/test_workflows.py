"""The workflows compile from one definition, with what a cluster needs only for a cluster."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from contracts.errors import PlatformError
from pipelines import components
from pipelines.resources import IMAGE, STEPS, Placement
from pipelines.steps.calls import CALLS, ORDER, contexts, graph, steps_of
from pipelines.tasks import get_task
from pipelines.workflows import compile_workflows, workflow


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return _compiled(tmp_path_factory.mktemp("local"), Placement(tasks="each"))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    placement = Placement(cluster=True, tasks="each", image="registry/fairlead-python@sha256:1", train_gpus=2)
    return _compiled(tmp_path_factory.mktemp("cluster"), placement)


def _compiled(folder: Path, placement: Placement) -> dict[str, Any]:
    files = compile_workflows(folder, placement)
    return {file.stem: next(yaml.load_all(file.read_text(), yaml.CSafeLoader)) for file in files}


def container(spec: dict[str, Any], step: str) -> dict[str, Any]:
    name = f"exec-{step.replace('_', '-')}"
    return spec["deploymentSpec"]["executors"][name]["container"]


def test_every_workflow_has_its_steps_in_order(local: dict[str, Any]) -> None:
    assert set(local) == set(ORDER)
    for name, spec in local.items():
        tasks = spec["root"]["dag"]["tasks"]
        assert set(tasks) == {step.replace("_", "-") for step in ORDER[name]}
        done: set[str] = set()
        for step in ORDER[name]:
            task = tasks[step.replace("_", "-")]
            assert set(task.get("dependentTasks", [])) <= done
            done.add(step.replace("_", "-"))


@pytest.mark.parametrize("where", [Placement(tasks="each"), Placement(cluster=True, tasks="each")])
def test_a_task_without_features_has_nothing_to_materialise(where: Placement, tmp_path: Path) -> None:
    (file,) = compile_workflows(tmp_path, where, ["full"], get_task("news"))
    tasks = next(yaml.load_all(file.read_text(), yaml.CSafeLoader))["root"]["dag"]["tasks"]
    assert set(tasks) == {step.replace("_", "-") for step in ORDER["full"] if step != "materialise"}
    assert "features" not in tasks["build-dataset"]["inputs"]["artifacts"]
    assert (
        "features" in _compiled(tmp_path, where)["full"]["root"]["dag"]["tasks"]["build-dataset"]["inputs"]["artifacts"]
    )


def test_the_graph_of_a_task_has_the_steps_that_it_needs() -> None:
    assert steps_of(get_task("fraud")) == steps_of(None) == ORDER["full"]
    assert steps_of(get_task("news"), "ingestion") == ("ingest", "validate")
    assert steps_of(get_task("news"), "training") == ("validate", "build_dataset", *ORDER["full"][4:])
    assert steps_of(None, "batch_scoring") == ("batch_score",)


def test_only_steps_that_look_at_the_world_are_not_cached(local: dict[str, Any]) -> None:
    tasks = local["full"]["root"]["dag"]["tasks"]
    cached = {name for name, task in tasks.items() if task["cachingOptions"].get("enableCache")}
    assert set(tasks) - cached == {"ingest", "gate", "register"}


def test_every_cached_step_has_the_code_version_in_its_key(local: dict[str, Any]) -> None:
    for name, task in local["full"]["root"]["dag"]["tasks"].items():
        step = name.replace("-", "_")
        assert task["inputs"]["parameters"]["context"]["componentInputParameter"] == f"{step}_context"
        if task["cachingOptions"].get("enableCache"):
            assert {"code_version", "nonce"} <= set(CALLS[step].told), name


def test_data_steps_do_not_see_the_models_settings() -> None:
    seen = {step: call.told["config"] for step, call in graph("full").items()}
    data = {step for step, value in seen.items() if value == "data_config"}
    assert data == {"ingest", "validate", "materialise", "build_dataset"}
    assert [step for step, value in seen.items() if value == "train_config"] == ["train"]


def test_a_step_is_told_what_it_uses_and_no_more() -> None:
    values = {value: value for call in CALLS.values() for value in call.told.values()}
    told = {step: set(json.loads(text)) for step, text in contexts(graph("full"), values).items()}
    assert told["validate"] == {"task", "config", "code_version", "nonce"}
    assert {step for step, names in told.items() if "source" in names} == {"ingest", "evaluate"}
    assert {step for step, names in told.items() if "distributed_job" in names} == {"train"}
    # What reads tables beside the version must know whose rows are left out, and not take others' from a cache.
    reading = {"materialise", "build_dataset", "evaluate"}
    assert {step for step, names in told.items() if "forgotten" in names} == reading
    assert all("endpoints" in told[step] for step in reading)
    assert not any("run" in names for names in told.values())


@pytest.mark.parametrize("tasks", ["few", "groups"])
def test_parameters_of_a_published_pipeline_keep_their_names(tasks: Any, tmp_path: Path) -> None:
    """Kubeflow's page shows them, and clients of others name them."""
    files = compile_workflows(tmp_path, Placement(cluster=True, tasks=tasks))
    found = {}
    for file in files:
        inputs = next(yaml.load_all(file.read_text(), yaml.CSafeLoader))["root"]["inputDefinitions"]["parameters"]
        found[file.stem] = {name: not spec.get("isOptional", False) for name, spec in inputs.items()}
    same = dict.fromkeys(("recipe", "settings", "config", "endpoints", "code_version", "nonce"), False)
    learn = dict.fromkeys(("promote", "run", "spread"), False)
    assert found == {
        "ingestion": {"task": True, "source": False, **same},
        "training": {"task": True, "dataset": False, **same, **learn},
        "full": {"task": True, "source": False, **same, **learn},
        "batch_scoring": {"model": True, "source": True, "endpoints": False, "settings": False, "to": False},
    }


def test_the_local_form_has_no_resources(local: dict[str, Any]) -> None:
    for step in ORDER["full"]:
        assert "resources" not in container(local["full"], step)
        assert container(local["full"], step)["image"] == IMAGE
        assert "retryPolicy" not in local["full"]["root"]["dag"]["tasks"][step.replace("_", "-")]


def test_the_cluster_form_has_image_limits_retries_and_gpus(cluster: dict[str, Any]) -> None:
    for step in ORDER["full"]:
        made = container(cluster["full"], step)
        assert made["image"] == "registry/fairlead-python@sha256:1"
        assert made["resources"]["resourceMemoryLimit"] == made["resources"]["resourceMemoryRequest"]
        assert made["resources"]["resourceMemoryLimit"] == STEPS[step].memory
        assert made["resources"]["resourceCpuRequest"] == STEPS[step].cpu
        assert "resourceCpuLimit" not in made["resources"]
        assert cluster["full"]["root"]["dag"]["tasks"][step.replace("_", "-")]["retryPolicy"]["maxRetryCount"] >= 1
    accelerators = [step for step in ORDER["full"] if "accelerator" in container(cluster["full"], step)["resources"]]
    assert accelerators == ["train"]
    assert container(cluster["full"], "train")["resources"]["accelerator"]["resourceCount"] == "2"


def test_steps_ship_no_code_but_the_call(local: dict[str, Any]) -> None:
    for step in ORDER["full"]:
        source = container(local["full"], step)["command"][-1]
        assert "from pipelines.steps.calls import run_step" in source
        assert "pip install" not in " ".join(container(local["full"], step)["command"])


def test_resources_are_given_for_exactly_the_components() -> None:
    made = {n for n, c in vars(components).items() if type(c).__name__ == "PythonComponent"}
    assert made == {*STEPS, "added"}
    assert all("python" in image for image in (IMAGE,))
    assert "annotations" not in vars(inspect.getmodule(workflow))  # KFP cannot read annotations that are text


def test_an_unknown_workflow_is_an_error_with_the_known_ones() -> None:
    with pytest.raises(PlatformError, match="unknown workflow 'fulll'") as caught:
        workflow("fulll")
    assert "batch_scoring" in caught.value.fix
