"""A release gets rollouts: what its file says then, how often it is upgraded, and how its state is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from contracts.errors import PlatformError
from contracts.rollout_policy import RolloutPolicy
from deploy.cli.cluster.kube import Kube
from deploy.cli.releases.by_rollout import apply_rollouts, front_of, has_rollouts
from deploy.cli.releases.release_values import with_rollouts
from deploy.cli.releases.status import rollouts_of
from services.rollout.config_map_store import ConfigMapStore
from services.rollout.state import new_rollout
from services.rollout.store import Place, Served
from tests.kubernetes_stand_in import KubernetesStandIn

MINE = "# mine\nreplicaCount: 2 # two\nmodel: {digest: ab}\n"


def test_rollouts_are_added_to_a_file_and_what_is_there_stays(tmp_path: Path) -> None:
    file = tmp_path / "toy.yaml"
    file.write_text(MINE)
    assert not has_rollouts(file)
    file.write_text(with_rollouts(MINE, file, "s3://models", "http://mlflow:5000", "watchers"))
    assert has_rollouts(file)
    assert file.read_text().startswith(MINE)
    told = {"enabled": True, "artifacts": "s3://models", "tracking": "http://mlflow:5000", "storageSecret": "watchers"}
    assert yaml.safe_load(file.read_text())["rollouts"] == told


def test_rollouts_that_somebody_switched_off_are_not_switched_on(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="rollouts are off in") as refused:
        with_rollouts(f"{MINE}rollouts: {{enabled: false}}\n", tmp_path / "toy.yaml", "", "", "")
    assert refused.value.code == "bad_settings"


class Cluster(Kube):
    """A release whose Service selects `front` from the upgrade number `ready` on."""

    def __init__(self, ready: int, front: str = "router") -> None:
        super().__init__("spaces")
        self.upgrades, self._ready, self._front = 0, ready, front

    def items(self, *arguments: str) -> list[dict[str, Any]]:
        selects = self._front if self.upgrades >= self._ready else "server"
        if arguments[0] == "services":
            return [{"spec": {"selector": {"app.kubernetes.io/component": selects}}}] if self.upgrades else []
        return [{}] if self.upgrades <= self._ready else []

    def upgrade(self) -> None:
        self.upgrades += 1


def test_a_release_is_upgraded_until_the_router_answers_and_nothing_else() -> None:
    cluster = Cluster(ready=2)
    assert front_of(cluster, "toy") == ""
    apply_rollouts(cluster, "toy", cluster.upgrade)
    assert (cluster.upgrades, front_of(cluster, "toy")) == (3, "router")
    behind = Cluster(ready=1, front="slot")
    apply_rollouts(behind, "toy", behind.upgrade)
    assert (behind.upgrades, front_of(behind, "toy")) == (2, "slot")
    never = Cluster(ready=9)
    with pytest.raises(PlatformError, match="does not select the router") as refused:
        apply_rollouts(never, "toy", never.upgrade)
    assert (refused.value.code, never.upgrades) == ("not_deployed", 3)


def test_the_state_of_a_release_is_read_from_what_its_keeper_wrote() -> None:
    kubernetes = KubernetesStandIn("toy")
    store = ConfigMapStore(kubernetes, "toy-rollouts")
    store.read()
    rollout = new_rollout("r", "toy", "1", "2", "canary", RolloutPolicy(), 0.0)
    places = {"1": Place(source="s3://models/1", digest="1f")}
    store.write(Served(model="toy", version="1", places=places, rollout=rollout))
    found = rollouts_of([kubernetes.get("configmaps", "toy-rollouts")])
    assert found is not None
    assert (found["version"], found["digest"]) == ("1", "1f")
    assert (found["rollout"]["candidate"], found["rollout"]["phase"]) == ("2", "starting")
    assert rollouts_of([]) is None
    assert rollouts_of([{"metadata": {}}]) is None
