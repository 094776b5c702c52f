"""Settings of a run: read, checked, split off, and what they make of the steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import PlatformError
from contracts.quantities import parse
from pipelines.resources import STEPS, Placement, Resources, joined
from pipelines.run_settings import needs, split
from pipelines.settings import parse_setting
from pipelines.steps.calls import ORDER
from pipelines.workflows import compile_workflows


def given_by(*items: str) -> dict[str, Any]:
    of_task, of_run = split(dict(parse_setting(item) for item in items))
    assert of_task == {}
    return of_run


def test_they_are_split_off_before_the_task_sees_its_own() -> None:
    of_task, of_run = split({"model.rounds": 5, "resources.train.memory": "8Gi", "workflow.tasks": "each", "seed": 3})
    assert of_task == {"model.rounds": 5, "seed": 3}
    assert of_run == {"resources.train.memory": "8Gi", "workflow.tasks": "each"}


def test_the_narrower_setting_is_the_last_word() -> None:
    found = needs(given_by("resources.all.memory=4Gi", "resources.train.memory=8Gi", "resources.train.cpu=2"))
    assert (found["train"].memory, found["train"].cpu, found["ingest"].memory) == ("8Gi", "2", "4Gi")
    task: dict[str, dict[str, Any]] = {"train": {"memory": "3Gi", "gpus": 1}, "all": {"cpu": "1"}}
    found = needs(given_by("resources.train.memory=8Gi"), task)
    assert (found["train"].memory, found["train"].gpus, found["train"].cpu) == ("8Gi", 1, "1")
    assert needs({}, task)["train"].memory == "3Gi"


def test_memory_known_from_before_raises_and_never_lowers() -> None:
    known = {"train": 5 * 2**30 + 1, "gate": 2**20}
    found = needs({}, None, known)
    assert (found["train"].memory, found["gate"].memory) == ("5121Mi", STEPS["gate"].memory)
    asked = needs(given_by("resources.all.memory=1Gi"), None, known)
    assert asked["train"].memory == "1Gi"


@pytest.mark.parametrize(
    ("item", "spelled"),
    [
        ("resources.train.memory=8589934592", "8Gi"),
        ("resources.train.memory=1.5Gi", "1536Mi"),
        ("resources.train.memory=1G", "954Mi"),
        ("resources.train.cpu=0.5", "500m"),
        ("resources.train.cpu=2", "2"),
        ("resources.train.gpus=2", 2),
        ("resources.train.accelerator=amd.com/gpu", "amd.com/gpu"),
        ("resources.train.node_selector.kubernetes.io/arch=amd64", "amd64"),
        ("resources.train.node_selector.gpu=true", "true"),
    ],
)
def test_values_have_one_spelling(item: str, spelled: Any) -> None:
    (value,) = given_by(item).values()
    assert value == spelled
    assert given_by(f"{item.partition('=')[0]}={value}") == given_by(item)


@pytest.mark.parametrize(
    ("item", "tolerations"),
    [
        ("gpu=yes:NoSchedule", [{"effect": "NoSchedule", "key": "gpu", "operator": "Equal", "value": "yes"}]),
        ("gpu:NoExecute", [{"effect": "NoExecute", "key": "gpu", "operator": "Exists"}]),
        ("[nvidia.com/gpu, spot=1]", [
            {"key": "nvidia.com/gpu", "operator": "Exists"}, {"key": "spot", "operator": "Equal", "value": "1"},
        ]),
        ('[{"operator": "Exists"}]', [{"operator": "Exists"}]),
        ('{"key": "a", "value": "b"}', [{"key": "a", "operator": "Equal", "value": "b"}]),
    ],
)  # fmt: skip
def test_tolerations_are_written_like_taints_or_like_a_pods(item: str, tolerations: list[dict[str, str]]) -> None:
    assert given_by(f"resources.train.tolerations={item}")["resources.train.tolerations"] == tolerations


@pytest.mark.parametrize(
    ("item", "says"),
    [
        ("resources.train.memory=8GB", "not a quantity"),
        ("resources.train.memory=8", "that is 8 bytes"),
        ("resources.train.memory=-1Gi", "32Mi"),
        ("resources.train.memory=", "not a quantity"),
        ("resources.train.cpu=0", "above 0"),
        ("resources.train.cpu=two", "not a quantity"),
        ("resources.train.gpus=1.5", "whole number"),
        ("resources.train.gpus=-1", "whole number"),
        ("resources.train.accelerator=a100", "nvidia.com/gpu"),
        ("resources.train.priority_class=High Priority", "PriorityClass"),
        ("resources.train.ram=8Gi", "memory"),
        ("resources.training.memory=8Gi", "build_dataset"),
        ("resources.memory=8Gi", "resources.STEP.KEY"),
        ("resources=8Gi", "resources.STEP.KEY"),
        ("resources.train.memory.max=8Gi", "accepted"),
        ("resources.train.node_selector=amd64", "LABEL=VALUE"),
        ("resources.train.node_selector.a b=c", "no label"),
        ("resources.train.tolerations=a=b:Never", "NoSchedule"),
        ("resources.train.tolerations=3", "NoSchedule"),
        ('resources.train.tolerations=[{"key": "a", "operator": "Exists", "value": "x"}]', "NoSchedule"),
        ("workflow.tasks=many", "few, groups, each"),
        ("workflow.nodes=many", "fixed, growing"),
        ("workflow.cache=1", "workflow.tasks"),
    ],
)
def test_what_is_none_is_refused_by_its_key(item: str, says: str) -> None:
    with pytest.raises(PlatformError) as caught:
        given_by(item)
    assert item.partition("=")[0] in caught.value.headline
    assert says in caught.value.detail
    assert caught.value.code == "bad_config"


def test_what_may_share_a_pod() -> None:
    usual = needs({})
    assert len({usual[step].place() for step in ORDER["full"]}) == 1
    one = needs(given_by("resources.train.memory=8Gi"))
    assert one["train"].place() != one["evaluate"].place()
    everywhere = needs(given_by("resources.all.memory=8Gi"))
    assert len({everywhere[step].place() for step in ORDER["full"]}) == 1
    known = needs({}, None, {"train": 9 * 2**30})
    assert len({known[step].place() for step in ORDER["full"]}) == 1
    assert needs(given_by("resources.train.gpus=1"))["train"].place() != usual["train"].place()


@given(
    st.lists(
        st.builds(Resources, memory=st.sampled_from(["512Mi", "2Gi", "1G"]), cpu=st.sampled_from(["1", "500m"])),
        min_size=1,
    )
)
def test_steps_that_share_a_pod_have_room_for_the_largest(each: list[Resources]) -> None:
    whole = joined(each)
    assert all(parse(whole.memory) >= parse(item.memory) and parse(whole.cpu) >= parse(item.cpu) for item in each)
    assert whole.memory in {item.memory for item in each}


def test_they_are_in_the_compiled_step(tmp_path: Path) -> None:
    asked = given_by(
        "resources.train.memory=8Gi", "resources.train.cpu=2", "resources.train.gpus=1",
        "resources.train.accelerator=amd.com/gpu", "resources.train.node_selector.pool=big",
        "resources.train.tolerations=gpu=yes:NoSchedule",
    )  # fmt: skip
    where = Placement(cluster=True, tasks="each", needs=needs(asked))
    (file,) = compile_workflows(tmp_path, where, ["full"])
    spec, platform = yaml.safe_load_all(file.read_text())
    resources = spec["deploymentSpec"]["executors"]["exec-train"]["container"]["resources"]
    assert (resources["resourceMemoryRequest"], resources["resourceMemoryLimit"]) == ("8Gi", "8Gi")
    assert (resources["resourceCpuRequest"], resources["accelerator"]["resourceType"]) == ("2", "amd.com/gpu")
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert executors["exec-train"]["nodeSelector"]["labels"] == {"pool": "big"}
    assert executors["exec-train"]["tolerations"] == [
        {"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoSchedule"}
    ]
    assert "tolerations" not in executors["exec-evaluate"]


def test_a_priority_that_kubeflow_cannot_give_is_refused(tmp_path: Path) -> None:
    where = Placement(cluster=True, tasks="each", needs=needs(given_by("resources.train.priority_class=high")))
    with pytest.raises(PlatformError, match="train asks for class high"):
        compile_workflows(tmp_path, where, ["full"])
