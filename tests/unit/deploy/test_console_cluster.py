"""The console of a cluster: its releases, runs and links, and what stays when a part of it is away."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from contracts.quantities import parse
from deploy.cli.cluster.cluster_settings import Cluster, Profile
from deploy.cli.cluster_runs import lookup
from deploy.cli.console import releases as module
from deploy.cli.console.home_source import HomeSource, model_links
from deploy.cli.console.releases import Releases
from deploy.cli.console.run_source import ClusterRuns, run_links
from deploy.cli.console.stages import ClusterStages
from pipelines.cost import Prices
from pipelines.resources import STEPS


def deployment(name: str, model: str, ready: int) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": {"app.kubernetes.io/instance": name}},
        "spec": {"replicas": 1, "template": {"metadata": {"annotations": {"fairlead.io/model": model}}}},
        "status": {"readyReplicas": ready},
    }


def service(name: str, port: int) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": {"ports": [{"name": "grpc", "port": 3001}, {"name": "http", "port": port}]},
    }


class Kube:
    """What a cluster lists, by kind; None: it does not answer."""

    def __init__(self, **listed: Any) -> None:
        self.listed, self.asked = listed, []

    def items(self, kinds: str, *options: str) -> list[dict[str, Any]]:
        self.asked.append((kinds, *options))
        found = self.listed.get(kinds.partition(".")[0])
        if found is None:
            raise PlatformError("Kubernetes does not answer", code="kubernetes")
        return found


@pytest.fixture
def kube(monkeypatch: pytest.MonkeyPatch) -> Kube:
    made = Kube(
        deployments=[deployment("fraud", "fraud:3", 1), deployment("fraud-next", "fraud:4", 0), deployment("x", "", 1)],
        services=[service("fraud", 80), service("fraud-next", 8080)],
    )
    monkeypatch.setattr(module, "open_kube", lambda namespace, context: made)
    monkeypatch.setattr(module, "reach", lambda url, cluster: url.replace("fraud", "127.0.0.1"))
    return made


def source(tmp_path: Any, **more: Any) -> HomeSource:
    given = {"served": Releases(Cluster(), {}), "steer": print, **more}
    return HomeSource(Endpoints(home=str(tmp_path)), **given)


def test_releases_are_found_by_their_pods_and_reached_by_their_service(kube):
    served = Releases(Cluster(), {"other": "http://other.example"})
    first, second = served.of()["fraud"]
    assert (first.name, first.version, first.ready, first.address) == ("fraud", "3", 1, "http://fraud:80")
    assert (second.name, second.ready, second.address) == ("fraud-next", 0, "http://fraud-next:8080")
    assert served.reached("fraud") == "http://127.0.0.1:80"
    assert [served.address(name) for name in ("other", "unknown")] == ["http://other.example", ""]
    assert {kinds for kinds, *_ in kube.asked} == {"deployments.apps", "services"}
    assert all("app.kubernetes.io/component" in options[1] and "server" in options[1] for _, *options in kube.asked)


def test_a_release_whose_versions_share_traffic_is_one_with_what_its_keeper_tells(kube, tmp_path):
    slots = [deployment(f"fraud-{slot}", "fraud", ready) for slot, ready in (("a", 2), ("b", 1))]
    for one in slots:
        one["metadata"]["labels"]["app.kubernetes.io/instance"] = "fraud"
    kube.listed["deployments"] = [*slots, deployment("news", "news:7", 1)]
    served = Releases(Cluster(), {})
    (alone,) = served.of()["fraud"]
    assert (alone.name, alone.version, alone.ready, alone.wanted, alone.address) == (
        "fraud",
        "",
        3,
        2,
        "http://fraud:80",
    )

    rollout = {
        "phase": "running", "strategy": "canary", "champion": "3", "candidate": "4", "began": 1e9, "reasons": ["<b>"],
        "transitions": [{"at": 1e9, "action": "start", "weight": 5}],
    }  # fmt: skip

    def ask(model: str) -> bytes | None:
        if model == "news":
            raise PlatformError("it does not answer")
        return json.dumps({"model": model, "version": "3", "rollout": rollout}).encode()

    made = source(tmp_path, served=served, stages=ClusterStages(ask, served.of))
    fraud, news = made.models()
    assert (fraud.releases[0].version, news.releases[0].version, news.rollout) == ("3", "7", None)
    assert fraud.rollout is not None
    assert (fraud.rollout.phase, fraud.rollout.weights, fraud.rollout.reason) == (
        "running",
        {"3": 0.95, "4": 0.05},
        "<b>",
    )
    assert [stage.model for stage in made.rollouts()] == ["fraud"]
    kube.listed["deployments"] = None
    away = source(tmp_path, served=Releases(Cluster(), {}), stages=ClusterStages(ask, Releases(Cluster(), {}).of))
    assert away.rollouts() == []


def test_a_model_that_is_only_served_is_shown_with_its_release(kube, tmp_path):
    made = source(tmp_path)
    (one,) = made.models()
    assert (one.name, one.version, one.live.up, len(one.releases)) == ("fraud", "", True, 2)
    page = made.model("fraud")
    assert page is not None
    assert (page.endpoint, page.key_known, page.versions) == ("http://fraud:80", False, ())
    page = source(tmp_path, key=lambda model: "k").model("fraud")
    assert page is not None
    assert page.key_known is True
    answer = made.predict("unknown", {}, False, "")
    assert (answer.status, answer.fix) == (0, "fairlead deploy unknown")


def test_a_cluster_that_does_not_answer_leaves_what_the_registry_has(kube, tmp_path):
    kube.listed["deployments"] = None
    made = source(tmp_path)
    assert made.models() == []
    assert made.model("fraud") is None
    assert made.predict("fraud", {}, False, "").status == 0


RECORD = {
    "run_id": "fraud-1", "kfp_run": "abc", "status": "succeeded", "task": "fraud", "recipe": "logistic", "by": "mara",
    "started": "2026-11-29T11:00:00+00:00", "seconds": 61.0, "result": {"name": "fraud", "version": "3"},
    "steps": {"ingest": {"status": "finished", "seconds": 1.0, "result": {"rows": 1000}}},
}  # fmt: skip


def test_runs_of_kubeflow_with_their_steps_and_a_link_to_each(monkeypatch, tmp_path):
    asked: list[str] = []

    def find(access: object, text: str) -> Any:
        asked.append(text)
        if text == "fraud-2":
            raise PlatformError("no run", code="unknown_run")
        return SimpleNamespace(run_id="fraud-1", kfp_run="abc")

    monkeypatch.setattr(lookup, "list_runs", lambda access, limit: [RECORD])
    monkeypatch.setattr(lookup, "find_run", find)
    monkeypatch.setattr(lookup, "look_at", lambda access, found: {k: v for k, v in RECORD.items() if k != "kfp_run"})
    runs = ClusterRuns(Profile(home=str(tmp_path), cluster=Cluster(), prices=Prices(core_hour=3600)))
    (one,) = runs.latest(10)
    assert (one.run_id, one.result, one.by) == ("fraud-1", "fraud:3", "mara")
    page = runs.page("fraud-1", {"Kubeflow": "http://kubeflow.example", "MLflow": "http://m"})
    assert page is not None
    assert page.steps[0].facts == [("rows", "1,000")]
    asks = float(parse(STEPS["ingest"].cpu))
    assert page.cost is not None
    assert (page.cost.money, page.cost.currency) == (pytest.approx(asks), "EUR"), "one second of what the pod asked for"
    assert [link.url for link in page.links] == ["http://kubeflow.example/#/runs/details/abc", "http://m"]
    assert runs.page("fraud-1", {}) is not None
    assert asked == ["fraud-1"], "a run that has ended is asked for once"
    assert runs.page("fraud-2", {}) is None
    assert runs.page("fraud", {}) is None, "the start of an id is none"


def test_links_go_to_the_model_where_a_tool_has_a_page_of_it():
    links = {"MLflow": "http://m:5000", "Grafana": "http://g"}
    assert [link.url for link in model_links(links, "fraud")] == ["http://m:5000/#/models/fraud", "http://g"]
    assert [link.url for link in run_links(links, "")] == ["http://m:5000", "http://g"]
