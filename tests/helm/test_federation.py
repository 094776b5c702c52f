"""Federated training: the coordinator in the platform's chart, off by default, and a partner's site."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helm.chart import Object, containers, named, of_kind, pods, refused, render

ON = {"federation": {"enabled": True, "sites": ["bank-a", "bank-b", "bank-c"], "existingSecret": "keys"}}
SITE = {
    "name": "bank-a",
    "server": {"host": "federation.example.org"},
    "existingSecret": "keys",
    "source": "/rows/a.csv",
}


def job(objects: list[Object], part: str) -> Object:
    (found,) = [pod for name, pod in pods(objects) if name.startswith(f"Job/fairlead-{part}-")]
    return found


def test_there_is_none_unless_it_is_asked_for() -> None:
    assert not [each for each in render("platform") if "federation" in each["metadata"]["name"]]


def test_the_coordinator_is_reached_by_sites_only_and_reaches_two_stores() -> None:
    objects = render("platform", {"federation": {**ON["federation"], "cidr": "198.51.100.0/24"}})
    policy = named(objects, "NetworkPolicy", "fairlead-federation")["spec"]
    assert policy["ingress"] == [
        {"from": [{"ipBlock": {"cidr": "198.51.100.0/24"}}], "ports": [{"port": 8443, "protocol": "TCP"}]}
    ]
    ports = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
    assert ports == {53, 9000, 5000}
    service = named(objects, "Service", "fairlead-federation")["spec"]
    assert service["type"] == "ClusterIP"
    (container,) = containers(job(objects, "federation"))
    assert container["ports"] == [{"name": service["ports"][0]["targetPort"], "containerPort": 8443}]


def test_its_command_is_one_of_ours_and_says_all_that_values_say() -> None:
    from typer.main import get_command

    from deploy.cli.app import app

    given = {**ON["federation"], "recipe": "network", "source": "s3://bank/rows", "settings": {"federation.rounds": 4}}
    (container,) = containers(job(render("platform", {"federation": given}), "federation"))
    words = container["command"][container["command"].index("federate") :]
    command: Any = get_command(app)
    told = command.commands[words[0]].make_context("federate", list(words[1:])).params
    assert told["site"] == ["bank-a", "bank-b", "bank-c"]
    assert (told["task"], told["recipe"], told["source"]) == ("credit", "network", "s3://bank/rows")
    assert told["overrides"] == ["federation.rounds=4"]
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert told["certificates"] in mounted


def test_a_job_of_other_values_has_another_name() -> None:
    names = set()
    for rounds in (4, 4, 5):
        objects = render("platform", {"federation": {**ON["federation"], "settings": {"federation.rounds": rounds}}})
        names |= {
            each["metadata"]["name"] for each in of_kind(objects, "Job") if "federation" in each["metadata"]["name"]
        }
    assert len(names) == 2


@pytest.mark.parametrize("lacks", ["sites", "existingSecret"])
def test_what_it_cannot_do_without_is_said(lacks: str) -> None:
    given = {key: value for key, value in ON["federation"].items() if key != lacks}
    assert "Fix: fairlead federation certificates" in refused("platform", {"federation": given})


def test_nothing_connects_to_a_site_and_it_connects_to_the_coordinator_only() -> None:
    objects = render("federated-site", {**SITE, "server": {"host": "192.0.2.7", "port": 443, "cidr": "192.0.2.7/32"}})
    policy = named(objects, "NetworkPolicy", "fairlead-federated-site")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in policy
    assert policy["egress"][1:] == [
        {"to": [{"ipBlock": {"cidr": "192.0.2.7/32"}}], "ports": [{"port": 443, "protocol": "TCP"}]}
    ]
    assert not of_kind(objects, "Service", "Secret")


def test_a_sites_command_is_one_of_ours_and_its_rows_cannot_be_written() -> None:
    from typer.main import get_command

    from deploy.cli.app import app

    pod = job(render("federated-site", {**SITE, "rowsClaim": "rows", "rules": {"min_rows": 9}}), "federated-site")
    (container,) = containers(pod)
    words = container["command"][container["command"].index("federation") :]
    command: Any = get_command(app)
    told = command.commands["federation"].commands["site"].make_context("site", list(words[2:])).params
    assert (told["name"], told["server"], told["source"]) == ("bank-a", "federation.example.org:8443", "/rows/a.csv")
    assert set(told["rules"]) == {"secure=true", "accept.roc_auc=0.5", "min_rows=9"}
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in container["volumeMounts"]}
    assert mounts["/rows"]
    assert mounts[str(told["certificates"])]


@pytest.mark.parametrize("lacks", ["name", "server", "existingSecret", "source"])
def test_a_site_says_what_it_lacks(lacks: str) -> None:
    said = refused("federated-site", {key: value for key, value in SITE.items() if key != lacks})
    assert f"{'server.host' if lacks == 'server' else lacks} is not set. Fix: --set" in said
