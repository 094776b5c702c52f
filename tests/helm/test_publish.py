"""The Job that uploads the workflows: what it is told, what it may, and when there is one."""

from __future__ import annotations

from typing import Any

import yaml

from deploy.cli.cluster.cluster_settings import Profile
from tests.helm.chart import Object, named, of_kind, pods, render
from tests.helm.program import CHARTS

SHIPPED = CHARTS.parent / "deploy" / "env" / "cluster" / "profile.yaml"


def publisher(objects: list[Object]) -> tuple[str, Any]:
    """Name and pod of the Job."""
    (found,) = [(name, pod) for name, pod in pods(objects) if name.startswith("Job/fairlead-publish-")]
    return found


def profile(objects: list[Object]) -> Profile:
    return Profile.model_validate(
        yaml.safe_load(named(objects, "ConfigMap", "fairlead-publish")["data"]["profile.yaml"])
    )


def test_its_profile_is_the_one_that_people_use_for_the_same_release() -> None:
    theirs = Profile.model_validate(yaml.safe_load(SHIPPED.read_text(encoding="utf-8")))
    ours = profile(render("platform"))
    assert ours.cluster is not None
    assert theirs.cluster is not None
    assert ours.cluster.image == "ghcr.io/fairlead/pipelines:0.1.0"
    assert ours.cluster.namespace == "spaces"
    different = {"namespace": "", "image": ""}
    assert ours.cluster.model_copy(update=different) == theirs.cluster.model_copy(update=different)
    assert ours.model_copy(update={"cluster": None, "home": ""}) == theirs.model_copy(
        update={"cluster": None, "home": ""}
    )


def test_its_profile_follows_external_stores() -> None:
    ours = profile(render("platform", files=(CHARTS / "platform" / "values-production.yaml",)))
    assert ours.cluster is not None
    assert ours.cluster.storage.endpoint == "https://s3.eu-central-1.amazonaws.com:443"
    assert (ours.cluster.storage.region, ours.cluster.storage.secret.name) == ("eu-central-1", "fairlead-s3")
    assert (ours.online, ours.cluster.redis.name) == ("redis://redis.example.internal:6379/0", "fairlead-redis")
    assert ours.data == "s3://example-fairlead/data"


def test_more_of_the_profile_is_said_by_value() -> None:
    more = {"online": "", "cluster": {"storage": {"region": "eu"}}}
    ours = profile(render("platform", {"pipelines": {"publish": {"profile": more}}}))
    assert ours.cluster is not None
    assert (ours.online, ours.cluster.storage.region) == ("", "eu")
    assert ours.cluster.storage.secret.name == "fairlead-s3"


def test_it_runs_the_command_with_that_profile_and_without_any_right() -> None:
    _, pod = publisher(render("platform"))
    (container,) = pod["spec"]["containers"]
    *_, option, file = container["command"]
    (mount,) = [each for each in container["volumeMounts"] if each["name"] == "profile"]
    assert (option, file) == ("--profile", f"{mount['mountPath']}/profile.yaml")
    assert container["command"][:5] == ["python", "-m", "deploy.cli", "pipelines", "publish"]
    assert pod["spec"]["automountServiceAccountToken"] is False
    labels = pod["metadata"]["labels"]
    assert [key for key in labels if key.startswith("fairlead.io/access-")] == ["fairlead.io/access-pipelines"]


def test_it_is_no_hook_so_that_a_failure_does_not_fail_the_release() -> None:
    (job,) = [each for each in of_kind(render("platform"), "Job") if "publish" in each["metadata"]["name"]]
    assert "annotations" not in job["metadata"]
    assert job["spec"]["backoffLimit"] > 0


def test_a_job_is_a_new_one_when_what_it_uploads_changes() -> None:
    name, _ = publisher(render("platform"))
    assert name == publisher(render("platform"))[0]
    for values in ({"image": {"tag": "0.2.0"}}, {"profile": {"online": ""}}):
        assert publisher(render("platform", {"pipelines": {"publish": values}}))[0] != name


def test_there_is_none_where_nothing_listens_or_nobody_wants_it() -> None:
    for values in ({"replicas": 0}, {"publish": {"enabled": False}}, {"enabled": False}):
        objects = render("platform", {"pipelines": values})
        assert not [each for each in objects if "publish" in each["metadata"]["name"]]
