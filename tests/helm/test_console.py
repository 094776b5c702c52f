"""The console's pod: who gets in, what it lists, and where it finds everything."""

from __future__ import annotations

import base64
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner

from services.server.auth import KeyRing
from tests.helm.chart import Object, containers, named, of_kind, refused, render

NAME = "fairlead-console"
BARE = {"pipelines": {"enabled": False}, "monitoring": {"enabled": False}, "demo": {"enabled": False}}


@lru_cache
def default() -> list[Object]:
    return render("platform")


def pod(objects: list[Object]) -> Any:
    return named(objects, "Deployment", NAME)["spec"]["template"]


def profile(objects: list[Object]) -> Any:
    return yaml.safe_load(named(objects, "ConfigMap", NAME)["data"]["profile.yaml"])


def test_it_lists_releases_and_runs_and_nothing_else() -> None:
    for objects, more in ((default(), {("", "pods"), ("argoproj.io", "workflows")}), (render("platform", BARE), set())):
        rules = named(objects, "Role", NAME)["rules"]
        assert {verb for rule in rules for verb in rule["verbs"]} == {"list"}
        listed = {(group, what) for rule in rules for group in rule["apiGroups"] for what in rule["resources"]}
        assert listed == {("apps", "deployments"), ("", "services"), *more}


def test_its_profile_is_that_of_the_platform_without_what_is_not_installed() -> None:
    whole, bare = profile(default()), profile(render("platform", BARE))
    assert whole == yaml.safe_load(named(default(), "ConfigMap", "fairlead-keeper")["data"]["profile.yaml"]) | {
        "cluster": whole["cluster"]
    }
    assert (whole["cluster"]["kfp"], whole["cluster"]["prometheus"]) == (
        "http://ml-pipeline:8888",
        "http://fairlead-prometheus:9090",
    )
    assert (bare["cluster"]["kfp"], bare["cluster"]["prometheus"]) == ("", "")


def test_its_command_is_one_of_the_command_line() -> None:
    from deploy.cli.app import app

    values = {"links": {"Grafana": "https://g.example.com"}, "prometheus": "http://prometheus.example.com"}
    (container,) = containers(pod(render("platform", {"console": values})))
    assert container["command"][:4] == ["python", "-m", "deploy.cli", "console"]
    assert container["command"][-2:] == ["--link", "Grafana=https://g.example.com"]
    assert CliRunner().invoke(app, [*container["command"][3:], "--help"]).exit_code == 0


def test_the_generated_keys_let_a_reader_look_and_an_operator_act(tmp_path: Path) -> None:
    (secret,) = [one for one in of_kind(default(), "Secret") if one["metadata"]["name"] == f"{NAME}-keys"]
    found = {key: base64.b64decode(value) for key, value in secret["data"].items()}
    (tmp_path / "keys").write_bytes(found["keys"])
    ring = KeyRing(str(tmp_path / "keys"))
    for key, operator in (("key", False), ("operator-key", True)):
        assert ring.check({b"x-api-key": found[key]}).operator is operator
    assert len(found["session"]) >= 32
    (volume,) = [one for one in pod(default())["spec"]["volumes"] if one["name"] == "keys"]
    assert volume["secret"] == {
        "secretName": f"{NAME}-keys",
        "items": [{"key": "keys", "path": "keys"}, {"key": "session", "path": "session"}],
    }, "the keys themselves are not in the pod"


def test_keys_of_ones_own_and_of_models() -> None:
    given = {"existingSecret": "mine", "modelKeys": [{"model": "news", "secret": "news-keys", "key": "key"}]}
    objects = render("platform", {"console": given, "global": {"networkPolicy": {"enabled": True}}})
    volumes = {one["name"]: one for one in pod(objects)["spec"]["volumes"]}
    assert volumes["keys"]["secret"]["secretName"] == "mine"
    assert not [one for one in of_kind(objects, "Secret") if "console" in one["metadata"]["name"]]
    sources = [one["secret"] for one in volumes["models"]["projected"]["sources"]]
    assert [(one["name"], one["items"][0]["path"]) for one in sources] == [
        ("news-keys", "news"),
        ("fairlead-demo-keys", "fraud"),
    ]
    assert pod(render("platform", BARE))["spec"]["volumes"][2]["projected"] == {"sources": []}


def test_two_of_them_share_their_sessions_and_survive_a_node() -> None:
    objects = render("platform", {"console": {"replicas": 2}})
    (container,) = containers(pod(objects))
    assert container["command"][container["command"].index("--session-secret") + 1] == "/etc/fairlead-keys/session"
    assert named(objects, "PodDisruptionBudget", NAME)
    assert len(pod(objects)["spec"]["topologySpreadConstraints"]) == 2


def test_its_name_is_its_own() -> None:
    ingress = {"enabled": True, "hosts": ["c.example.com"], "namespaces": ["ingress-nginx"]}
    objects = render("platform", {"console": {"ingress": ingress}})
    (rule,) = named(objects, "Ingress", NAME)["spec"]["rules"]
    assert rule["http"]["paths"][0]["backend"]["service"] == {"name": NAME, "port": {"number": 8600}}
    assert "console.ingress.path is /c" in refused("platform", {"console": {"ingress": {**ingress, "path": "/c"}}})
    assert not of_kind(default(), "Ingress", "HTTPRoute")
