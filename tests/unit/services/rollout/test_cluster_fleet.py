"""The versions of a release as its keeper sees and arranges them, on a cluster in memory."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from contracts.bundle import DOCUMENT
from contracts.rollout_policy import RolloutPolicy
from services.rollout.bootstrap import TELLS
from services.rollout.champion import Champion
from services.rollout.cluster_fleet import ClusterFleet, Envoys
from services.rollout.envoy import Address
from services.rollout.observation import Counts, Labelled
from services.rollout.slots import Slots
from services.rollout.state import new_rollout
from services.rollout.store import Place, Served
from tests.kubernetes_stand_in import KubernetesStandIn


class Release:
    """A keeper's view: what pods and routers answer is in `texts`, by URL; names have the addresses in `names`."""

    def __init__(self, folder: Path) -> None:
        for version in ("1", "2"):
            (folder / version).mkdir()
            (folder / version / DOCUMENT).write_text("{}")
        places = {version: Place(source=str(folder / version), digest="1f") for version in ("1", "2")}
        self.served = Served(model="toy", version="1", places=places)
        self.kubernetes, self.now = KubernetesStandIn("toy"), 0.0
        self.texts: dict[str, str] = {}
        self.names: dict[str, list[str]] = {"toy-a": ["1.1.1.1"], "toy-b": ["2.2.2.2"], "toy-router": ["9.9.9.9"]}
        self.start()
        self.router({"1": True})
        self.pods({"1.1.1.1": ("1", 100)})

    def start(self, grpc_port: int = 0) -> None:
        slots = Slots(self.kubernetes, ("toy-a", "toy-b"), 1, False, lambda: self.now)
        envoys = Envoys("toy-router", self.resolve, self.fetch)
        told = (slots, envoys, Champion("", "toy"), lambda: self.served, lambda: {"2": Labelled(10.0, 1.0, {}, {})})
        self.fleet = ClusterFleet(*told, self.resolve, self.fetch, grpc_port)

    def resolve(self, name: str) -> list[str]:
        return self.names.get(name, [])

    def fetch(self, urls: Iterable[str]) -> dict[str, str]:
        found = {url: self.texts.get(url.partition("?")[0]) for url in urls}
        return {url: text for url, text in found.items() if text is not None}

    def router(self, healthy: dict[str, bool], refused: int = 0) -> None:
        lines = []
        for version, good in healthy.items():
            tag = f'{{envoy_cluster_name="version-{version}"}}'
            lines += [f"envoy_cluster_membership_healthy{tag} {int(good)}"]
            lines += [f"envoy_cluster_upstream_cx_connect_fail{tag} {refused}"]
        self.texts[f"http://9.9.9.9:{TELLS}/stats/prometheus"] = "\n".join(lines)

    def pods(self, counted: dict[str, tuple[str, int]]) -> None:
        for address, (version, requests) in counted.items():
            tags = f'model="toy",version="{version}",route="/predict",code="200"'
            self.texts[f"http://{address}:3000/metrics"] = f"fairlead_requests_total{{{tags}}} {requests}"

    def arrange(self, *arranged: Any, looks: int = 3) -> None:
        for _ in range(looks):
            self.now += 1
            self.fleet.arrange(*arranged)


@pytest.fixture
def release(tmp_path: Path) -> Release:
    made = Release(tmp_path)
    made.arrange("1", "", 0, False)
    return made


def test_versions_that_take_grpc_have_an_address_for_it_each(release: Release) -> None:
    assert release.fleet.routing is not None
    assert release.fleet.routing.grpc == {}
    release.start(grpc_port=3001)
    release.arrange("1", "", 0, False)
    assert release.fleet.routing is not None
    assert release.fleet.routing.grpc == {"1": Address("toy-a", 3001)}


def test_a_version_that_takes_no_grpc_is_not_healthy(release: Release) -> None:
    lost = 'envoy_cluster_membership_healthy{envoy_cluster_name="grpc-version-1"} 0'
    release.texts[f"http://9.9.9.9:{TELLS}/stats/prometheus"] += "\n" + lost
    assert not release.fleet.observe("1", "").champion.ready


def test_routers_are_told_of_the_first_version_once_it_has_a_slot(release: Release) -> None:
    routing = release.fleet.routing
    assert routing is not None
    assert routing.versions == {"1": Address("toy-a", 3000)}
    seen = release.fleet.observe("1", "").champion
    assert seen.ready
    assert seen.counts == Counts(requests=100)


def test_a_candidate_is_seen_when_its_pods_are_ready_and_routers_take_it_for_healthy(release: Release) -> None:
    assert release.fleet.observe("1", "2").candidate.note == "it waits for a free slot"  # type: ignore[union-attr]
    release.kubernetes.starts = False
    release.arrange("1", "2", 0, False)
    assert release.fleet.observe("1", "2").candidate.note == "0 of 1 pods are ready"  # type: ignore[union-attr]
    release.kubernetes.starts = True
    release.arrange("1", "2", 0, False)
    release.router({"1": True, "2": False})
    seen = release.fleet.observe("1", "2").candidate
    assert seen is not None
    assert (seen.ready, seen.note) == (False, "the router does not take it for healthy")
    release.router({"1": True, "2": True})
    release.pods({"2.2.2.2": ("2", 0)})
    seen = release.fleet.observe("1", "2").candidate
    assert seen is not None
    assert seen.counts == Counts(labelled=10, wrong=1)
    release.router({"1": True, "2": True}, refused=3)
    seen = release.fleet.observe("1", "2").candidate
    assert seen is not None
    assert seen.counts is not None
    assert seen.counts.unreached == 3


def test_without_routers_or_metrics_nothing_can_be_judged(release: Release) -> None:
    release.names["toy-router"] = []
    assert release.fleet.observe("1", "").champion.note == "the router does not answer"
    release.names["toy-router"] = ["9.9.9.9"]
    release.names["toy-a"] = []
    seen = release.fleet.observe("1", "").champion
    assert (seen.ready, seen.counts, seen.note) == (True, None, "the metrics of its pods cannot be read")


def test_a_version_that_leaves_can_be_reached_until_routers_have_heard_of_it(release: Release) -> None:
    release.arrange("1", "2", 5, False)
    release.arrange("1", "", 0, False, looks=1)
    routing = release.fleet.routing
    assert routing is not None
    assert sorted(routing.versions) == ["1", "2"]
    assert routing.candidate == ""
    release.arrange("1", "", 0, False, looks=7)
    assert release.fleet.routing is not None
    assert sorted(release.fleet.routing.versions) == ["1"]


def test_a_keeper_that_goes_on_counts_nothing_twice_and_changes_no_route_at_first(release: Release) -> None:
    release.arrange("1", "2", 50, False)
    rollout = new_rollout("r", "toy", "1", "2", "canary", RolloutPolicy(), 0.0)
    last = (Counts(requests=900), Counts(requests=400))
    state = rollout.model_copy(update={"phase": "running", "last": last})
    release.served = release.served.model_copy(update={"rollout": state})
    release.start()
    assert release.fleet.routing is None
    release.router({"1": True, "2": True})
    release.pods({"1.1.1.1": ("1", 300), "2.2.2.2": ("2", 50)})
    seen = release.fleet.observe("1", "2")
    assert seen.champion.counts is not None
    assert seen.champion.counts.requests == 900
    release.pods({"2.2.2.2": ("2", 55)})
    seen = release.fleet.observe("1", "2")
    assert seen.candidate is not None
    assert seen.candidate.counts is not None
    assert seen.candidate.counts.requests == 405


def test_a_champion_whose_bundle_is_gone_is_told(release: Release) -> None:
    assert release.fleet.observe("1", "").gone == ""
    (Path(release.served.places["1"].source) / DOCUMENT).unlink()
    release.start()
    assert "is not there any more" in release.fleet.observe("1", "").gone
