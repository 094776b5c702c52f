"""The keeper of runs of nobody: what its pod may do is what it calls, and it can be left out."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from deploy.cli.cluster.in_cluster import _SERVED
from tests.helm.chart import Object, containers, named, render

Right = tuple[str, str, str]
NAME = "fairlead-keeper"


def rights(objects: list[Object], kind: str, name: str) -> set[Right]:
    """(API group, resource, verb)."""
    return {
        (group, what, verb)
        for rule in named(objects, kind, name)["rules"]
        for group in rule["apiGroups"]
        for what in rule["resources"]
        for verb in rule["verbs"]
    }


def test_it_may_list_what_it_looks_at_and_change_nothing() -> None:
    objects = render("platform")
    of_namespace = rights(objects, "Role", NAME)
    assert of_namespace == {("argoproj.io", "workflows", "list"), ("", "pods", "list"), ("", "pods/log", "get")}
    served = {path.rpartition("/")[2] for path in _SERVED.values()}
    # Nodes are of no namespace: to look at them is tried, and it goes on without.
    listed = of_namespace | rights(objects, "Role", "fairlead-console")
    assert served - {"nodes"} == {what for _, what, verb in listed if verb == "list"}


def test_its_profile_is_that_of_the_platform_and_its_command_is_one_of_the_command_line() -> None:
    from typer.testing import CliRunner

    from deploy.cli.app import app

    objects = render("platform")
    pod = named(objects, "Deployment", NAME)["spec"]["template"]["spec"]
    (container,) = containers(named(objects, "Deployment", NAME)["spec"]["template"])
    assert container["command"][:3] == ["python", "-m", "deploy.cli"]
    assert CliRunner().invoke(app, [*container["command"][3:5], "--help"]).exit_code == 0
    assert container["command"][5:] == ["--json", "--profile", "/etc/fairlead/profile.yaml", "--every", "30"]
    assert pod["automountServiceAccountToken"] is True
    secrets = {
        each["name"]: each["valueFrom"]["secretKeyRef"] for each in container["env"] if "secretKeyRef" in str(each)
    }
    assert set(secrets) == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    profiles = [
        named(objects, "ConfigMap", f"fairlead-{part}")["data"]["profile.yaml"] for part in ("keeper", "publish")
    ]
    assert yaml.safe_load(profiles[0]) == yaml.safe_load(profiles[1])


@pytest.mark.parametrize("values", [{"keeper": {"enabled": False}}, {"replicas": 0}, {"enabled": False}])
def test_it_can_be_left_out(values: dict[str, Any]) -> None:
    assert not [each for each in render("platform", {"pipelines": values}) if NAME in str(each["metadata"]["name"])]
