"""What is said of a run before it starts, from nodes and pods as Kubernetes describes them."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import PlatformError
from contracts.quantities import parse
from deploy.cli.cluster.capacity import Ask, asks_of, check, fits, read_nodes
from deploy.cli.cluster.kube import Kube
from pipelines import run_settings
from pipelines.resources import Placement, Resources
from pipelines.steps.calls import graph


def node(name: str = "n1", cpu: str = "2", memory: str = "7800Mi", **more: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": more.get("labels", {})},
        "spec": {"taints": more.get("taints", []), "unschedulable": more.get("cordoned", False)},
        "status": {
            "allocatable": {"cpu": cpu, "memory": memory, "pods": "110", **more.get("others", {})},
            "conditions": [{"type": "Ready", "status": more.get("ready", "True")}],
        },
    }


def pod(cpu: str = "0", memory: str = "0", on: str = "n1", phase: str = "Running", **spec: Any) -> dict[str, Any]:
    container = {"resources": {"requests": {"cpu": cpu, "memory": memory}}}
    return {"spec": {"nodeName": on, "containers": [container], **spec}, "status": {"phase": phase}}


def said(needs: Resources, nodes: list[dict[str, Any]], *pods: dict[str, Any], count: int = 1) -> tuple[str, str]:
    (fit,) = fits([Ask(name="train", step="train", needs=needs, pods=count)], read_nodes(nodes, pods))
    return fit.verdict, fit.says


def test_what_fits_says_nothing() -> None:
    assert said(Resources(), [node()], pod("500m", "1Gi")) == ("fits", "")


@pytest.mark.parametrize(
    ("needs", "says"),
    [
        (Resources(memory="16Gi"), "train asks for 16Gi; the largest node has 7.6Gi"),
        (Resources(memory="7800Mi"), "train asks for 7800Mi; the largest node has 7736Mi"),
        (Resources(cpu="4"), "train asks for 4 cores; the largest node has 1.99 cores"),
        (Resources(gpus=1), "train asks for 1 nvidia.com/gpu; no node that may take it has any"),
        (Resources(node_selector={"pool": "big"}), "train asks for a node with pool=big; none of 1 nodes has it"),
    ],
)
def test_what_fits_no_node_however_empty(needs: Resources, says: str) -> None:
    assert said(needs, [node()]) == ("never", says)


def test_what_has_to_wait_says_for_what() -> None:
    verdict, says = said(Resources(cpu="1500m"), [node()], pod("400m"), pod("200m"))
    assert (verdict, says) == ("waits", "train waits: asks 1.5 cores, the freest node has 1.39 cores free")
    verdict, says = said(Resources(memory="4Gi"), [node()], pod(memory="6Gi"))
    assert (verdict, says) == ("waits", "train waits: asks 4Gi, the freest node has 1.6Gi free")
    both = said(Resources(cpu="1", memory="4Gi"), [node(), node("n2")], pod("1900m"), pod(memory="7Gi", on="n2"))
    assert both == ("waits", "train waits: asks 1 core and 4Gi; no node has all of it free at once")


def test_pods_that_have_ended_or_are_nowhere_take_nothing() -> None:
    ended = [pod("2", phase="Succeeded"), pod("2", phase="Failed"), pod("2", on="")]
    assert said(Resources(cpu="1900m"), [node()], *ended)[0] == "fits"


def test_what_the_scheduler_counts_of_a_pod() -> None:
    one = {"resources": {"requests": {"cpu": "1"}}}
    limits_only = {"resources": {"limits": {"cpu": "300m"}}}
    spec = {
        "initContainers": [{**limits_only, "restartPolicy": "Always"}, one],
        "containers": [limits_only, {"resources": {}}],
        "overhead": {"cpu": "100m"},
    }
    (found,) = read_nodes([node()], [{"spec": {"nodeName": "n1", **spec}, "status": {"phase": "Running"}}])
    assert found.taken["cpu"] == parse("1400m")  # sidecar and the large init container, and overhead


def test_taints_keep_out_whom_they_should() -> None:
    gpu = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}
    kept_out = said(Resources(), [node(taints=[gpu])])
    assert kept_out == ("never", "train may run on none of 1 nodes; taints: gpu=yes:NoSchedule")
    for toleration in (
        {"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoSchedule"},
        {"key": "gpu", "operator": "Exists"},
        {"operator": "Exists"},
    ):
        assert said(Resources(tolerations=(toleration,)), [node(taints=[gpu])])[0] == "fits"
    for toleration in (
        {"key": "gpu", "operator": "Equal", "value": "no"},
        {"key": "gpu", "operator": "Exists", "effect": "NoExecute"},
        {"key": "other", "operator": "Exists"},
    ):
        assert said(Resources(tolerations=(toleration,)), [node(taints=[gpu])])[0] == "never"
    assert said(Resources(), [node(taints=[{**gpu, "effect": "PreferNoSchedule"}])])[0] == "fits"


def test_nodes_that_are_cordoned_or_not_ready_take_nothing() -> None:
    assert said(Resources(), [node(cordoned=True), node("n2", ready="False")]) == (
        "never",
        "train may run on none of 2 nodes; they take no new pods",
    )


def test_several_pods_at_once_need_room_for_all() -> None:
    needs = Resources(memory="3Gi")
    assert said(needs, [node()], count=2)[0] == "fits"
    assert said(needs, [node()], count=3) == (
        "never",
        "train asks for 3 pods with 0.25 cores and 3Gi; the nodes have room for 2 of 3",
    )
    assert said(needs, [node(), node("n2")], count=3)[0] == "fits"
    busy = said(needs, [node(), node("n2")], pod(memory="5Gi"), count=3)
    assert busy == ("waits", "train waits: asks 3 pods with 0.25 cores and 3Gi; 2 of 3 pods fit now")


amounts = st.integers(1, 64).map(lambda n: f"{n * 256}Mi")
cores = st.integers(1, 80).map(lambda n: f"{n * 100}m")


@given(cores, amounts, st.lists(st.tuples(cores, amounts, cores, amounts), max_size=4), st.integers(1, 4))
def test_the_verdict_is_what_placing_the_pods_one_by_one_gives(
    cpu: str, memory: str, machines: list[tuple[str, str, str, str]], pods: int
) -> None:
    nodes = [node(f"n{at}", cpu=c, memory=m) for at, (c, m, _, _) in enumerate(machines)]
    used = [pod(c, m, on=f"n{at}") for at, (_, _, c, m) in enumerate(machines)]
    verdict, says = said(Resources(cpu=cpu, memory=memory), nodes, *used, count=pods)

    def placed(taken: bool) -> bool:
        left = [
            [parse(c) - (parse(tc) if taken else 0), parse(m) - (parse(tm) if taken else 0)]
            for c, m, tc, tm in machines
        ]
        wanted = (parse(cpu) + Decimal("0.01"), parse(memory) + 64 * 2**20)
        for _ in range(pods):
            room = [here for here in left if here[0] >= wanted[0] and here[1] >= wanted[1]]
            if not room:
                return False
            room[0][0] -= wanted[0]
            room[0][1] -= wanted[1]
        return True

    assert verdict == ("fits" if placed(taken=True) else "waits" if placed(taken=False) else "never")
    assert bool(says) == (verdict != "fits")


def test_each_task_of_a_run_is_asked_for() -> None:
    usual = asks_of(graph("full"), Placement(cluster=True))
    assert [(ask.step, ask.needs.memory, ask.needs.cpu) for ask in usual] == [("all", "2Gi", "500m")]
    needs = run_settings.needs({"resources.train.gpus": 1, "resources.train.memory": "9Gi"})
    three = asks_of(graph("full"), Placement(cluster=True, needs=needs))
    assert [(ask.name, ask.step, ask.needs.memory, ask.needs.gpus) for ask in three] == [
        ("prepare", "all", "2Gi", 0),
        ("train", "train", "9Gi", 1),
        ("judge", "all", "2Gi", 0),
    ]


def kubectl(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Kube:
    program = folder / "kubectl"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return Kube("fairlead")


def test_who_may_not_list_nodes_is_told_that_nobody_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    why = 'Error from server (Forbidden): nodes is forbidden: User "ann" cannot list resource "nodes"'
    kube = kubectl(tmp_path, monkeypatch, f"echo '{why}' >&2; exit 1")
    (note,) = check(kube, [Ask(name="train", step="train", needs=Resources())])
    assert note.startswith("not checked whether the nodes are large enough: Error from server (Forbidden)")
    monkeypatch.setenv("PATH", "/nowhere")
    (note,) = check(kube, [])
    assert "kubectl" in note


def test_a_run_that_can_never_start_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    (tmp_path / "nodes.json").write_text(json.dumps({"items": [node()]}))
    (tmp_path / "pods.json").write_text(json.dumps({"items": [pod("1")]}))
    kube = kubectl(
        tmp_path, monkeypatch, f'case "$*" in *pods*) cat {tmp_path}/pods.json;; *) cat {tmp_path}/nodes.json;; esac'
    )
    asks = [
        Ask(name="prepare", step="ingest", needs=Resources()),
        Ask(name="t", step="train", needs=Resources(memory="9Gi")),
    ]
    with pytest.raises(PlatformError) as caught:
        check(kube, asks)
    assert caught.value.detail == "t asks for 9Gi; the largest node has 7.6Gi"
    assert "--set resources.train.memory=7Gi; " in caught.value.fix
    assert check(kube, [Ask(name="t", step="train", needs=Resources(cpu="1500m"))]) == [
        "t waits: asks 1.5 cores, the freest node has 0.99 cores free"
    ]
    assert check(kube, asks, growing=True) == ["t asks for 9Gi; the largest node has 7.6Gi"]
