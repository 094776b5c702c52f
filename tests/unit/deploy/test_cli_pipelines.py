"""``fairlead pipelines``: workflows are uploaded once for each content, and anyone can run them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.cli.cluster import kfp_api
from deploy.cli.pipelines import publish
from pipelines.steps.calls import ORDER
from tests.kfp_stand_in import StandIn, kfp_stand_in
from tests.late import Late

kfp = Late("kfp")

NAMES = sorted(f"fairlead-{name.replace('_', '-')}" for name in ORDER)


@pytest.fixture
def cluster() -> Iterator[StandIn]:
    with kfp_stand_in() as made:
        yield made


@pytest.fixture
def profile(cluster: StandIn, home: Path) -> str:
    places = {name: f"s3://lake/{name}" for name in ("data", "artifacts", "features", "predictions")}
    settings = {"kfp": cluster.url, "image": "registry/pipelines:2"}
    document = {**places, "tracking": "http://127.0.0.1:1", "online": "redis://127.0.0.1:1/0", "cluster": settings}
    file = home.parent / "profile.yaml"
    file.write_text(yaml.safe_dump(document))
    return str(file)


def test_every_workflow_is_uploaded_once_with_a_version_of_release_and_content(
    cluster: StandIn, profile: str, fairlead: Any
) -> None:
    first = fairlead("pipelines", "publish", "--profile", profile, "--json")
    assert first.code == 0, first.err
    assert sorted(each["name"] for each in first.json) == NAMES
    assert all(each["uploaded"] and each["version"].startswith(f"{publish.release()}-") for each in first.json)
    again = fairlead("pipelines", "publish", "--profile", profile, "--json").json
    assert not any(each["uploaded"] for each in again)
    assert [each["version_id"] for each in again] == [each["version_id"] for each in first.json]
    assert len(cluster.api.versions) == len(NAMES)
    for each in cluster.api.versions.values():
        assert each["pipeline_spec"]["pipeline_spec"]["deploymentSpec"]["executors"]
    page = first.json[0]["page"]
    assert page == f"#/pipelines/details/{first.json[0]['pipeline_id']}/version/{first.json[0]['version_id']}"


def test_an_upgrade_adds_a_version_and_going_back_makes_the_old_one_the_newest(
    cluster: StandIn, profile: str, fairlead: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter(range(1000))
    monkeypatch.setattr(
        "tests.kfp_api._now", lambda: f"2026-01-02T03:{(now := next(seconds)) // 60:02d}:{now % 60:02d}Z"
    )

    def published(image: str) -> list[dict[str, Any]]:
        text = json.loads(json.dumps(yaml.safe_load(Path(profile).read_text())))
        text["cluster"]["image"] = f"registry/pipelines:{image}"
        Path(profile).write_text(yaml.safe_dump(text))
        found: list[dict[str, Any]] = fairlead("pipelines", "publish", "--profile", profile, "--json").json
        return found

    first, second, back = published("2"), published("3"), published("2")
    assert {each["uploaded"] for each in (*first, *second, *back)} == {True}
    assert [each["pipeline_id"] for each in second] == [each["pipeline_id"] for each in first]
    assert {each["version"] for each in first}.isdisjoint(each["version"] for each in second)
    assert [each["version"] for each in back] == [f"{each['version']}-r2" for each in first]
    assert not any(each["uploaded"] for each in published("2"))
    listed = fairlead("pipelines", "list", "--profile", profile, "--json").json
    assert all(each["current"] for each in listed)
    assert [each["version"] for each in listed] == [each["version"] for each in back]


def test_the_list_says_what_is_missing_or_older(cluster: StandIn, profile: str, fairlead: Any) -> None:
    said = fairlead("pipelines", "list", "--profile", profile)
    assert said.out.count("missing") == len(NAMES)
    assert "fairlead pipelines publish" in said.out
    fairlead("pipelines", "publish", "--profile", profile)
    Path(profile).write_text(Path(profile).read_text().replace("pipelines:2", "pipelines:3"))
    assert fairlead("pipelines", "list", "--profile", profile).out.count("older") == len(NAMES)


def test_anyone_runs_a_published_pipeline_by_kfp_client(cluster: StandIn, profile: str, fairlead: Any) -> None:
    made = {each["name"]: each for each in fairlead("pipelines", "publish", "--profile", profile, "--json").json}
    client = kfp.Client(host=cluster.url)
    full = made["fairlead-full"]
    assert client.get_pipeline_id("fairlead-full") == full["pipeline_id"]
    experiment = client.create_experiment("mine").experiment_id
    ids = {"pipeline_id": full["pipeline_id"], "version_id": full["version_id"]}
    run = client.run_pipeline(experiment, "by hand", params={"task": "news"}, **ids)
    assert cluster.api.runs[run.run_id].document["runtime_config"]["parameters"] == {"task": "news"}


def test_it_waits_for_a_server_that_comes_up_and_says_when_none_does(
    cluster: StandIn, profile: str, fairlead: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "_PAUSE", 0.1)
    dead = Path(profile).with_name("dead.yaml")
    dead.write_text(Path(profile).read_text().replace(cluster.url, "http://127.0.0.1:9"))
    assert fairlead("pipelines", "publish", "--profile", str(dead), "--json").json["error"]["code"] == "kfp"
    connect, tries = kfp_api.connect, []

    def restarting(*given: Any) -> Any:
        if not tries:
            cluster.restart(1.0)
        tries.append(given)
        return connect(*given)

    monkeypatch.setattr(kfp_api, "connect", restarting)
    said = fairlead("pipelines", "publish", "--profile", profile, "--wait", "30", "--json")
    assert len(said.json) == len(NAMES)
    assert len(tries) > 1
