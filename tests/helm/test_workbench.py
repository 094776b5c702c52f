"""Workbenches: none by default; for each person a pod, a volume, a token, and the right to go to sleep."""

from __future__ import annotations

import base64
import json
from functools import lru_cache
from typing import Any

import pytest
import yaml

from deploy.cli.cluster.cluster_settings import Profile
from tests.helm.chart import Object, containers, environment, named, of_kind, refused, render

USERS = ["ada", "grace"]
NAME = "fairlead-workbench"


@lru_cache
def two() -> list[Object]:
    return render("platform", {"workbench": {"users": USERS}})


def pod(objects: list[Object], user: str = "ada") -> Any:
    return named(objects, "StatefulSet", f"{NAME}-{user}")["spec"]["template"]


def test_there_is_none_by_default() -> None:
    assert "workbench" not in json.dumps(render("platform"))


def test_each_person_has_a_pod_a_volume_and_a_token_of_their_own() -> None:
    objects = two()
    (secret,) = [one for one in of_kind(objects, "Secret") if one["metadata"]["name"] == f"{NAME}-tokens"]
    tokens = {user: base64.b64decode(value).decode() for user, value in secret["data"].items()}
    assert set(tokens) == set(USERS)
    assert len(set(tokens.values())) == 2
    assert min(map(len, tokens.values())) >= 32
    for user in USERS:
        (container,) = containers(pod(objects, user))
        source = environment(container)["JUPYTER_TOKEN"]["secretKeyRef"]
        assert source == {"name": f"{NAME}-tokens", "key": user}
        volumes = {one["name"]: one for one in pod(objects, user)["spec"]["volumes"]}
        assert volumes["data"]["persistentVolumeClaim"] == {"claimName": f"{NAME}-{user}"}
        claim = named(objects, "PersistentVolumeClaim", f"{NAME}-{user}")
        assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
        service = named(objects, "Service", f"{NAME}-{user}")["spec"]["selector"]
        chosen = [one for one in USERS if service.items() <= pod(objects, one)["metadata"]["labels"].items()]
        assert chosen == [user]


def test_the_pod_is_closed() -> None:
    spec = pod(two())["spec"]
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert {one["mountPath"] for one in container["volumeMounts"] if not one.get("readOnly")} == {"/workbench", "/tmp"}
    assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]
    policy = named(two(), "NetworkPolicy", NAME)["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in policy, "people come by port-forward, and no pod does"
    assert policy["podSelector"]["matchLabels"].items() <= pod(two())["metadata"]["labels"].items()


def test_it_may_read_runs_and_scale_itself_and_nothing_else() -> None:
    changes = [
        rule for rule in named(two(), "Role", f"{NAME}-ada")["rules"] if not {"list", "get"} >= set(rule["verbs"])
    ]
    assert changes == [
        {
            "apiGroups": ["apps"],
            "resources": ["statefulsets/scale"],
            "resourceNames": [f"{NAME}-ada"],
            "verbs": ["patch"],
        }
    ]
    (container,) = containers(pod(two()))
    assert container["command"][-2:] == ["--statefulset", f"{NAME}-ada"]
    assert pod(two())["spec"]["serviceAccountName"] == f"{NAME}-ada"


def test_its_profile_is_that_of_the_platform_with_a_home_that_is_kept() -> None:
    found = yaml.safe_load(named(two(), "ConfigMap", NAME)["data"]["profile.yaml"])
    console = yaml.safe_load(named(two(), "ConfigMap", "fairlead-console")["data"]["profile.yaml"])
    assert found == {**console, "home": "/workbench/.fairlead"}
    assert Profile.model_validate(found).cluster is not None
    (container,) = containers(pod(two()))
    given = environment(container)
    assert given["FAIRLEAD_CLI_PROFILE"] == "/etc/fairlead/profile.yaml"
    assert given["AWS_SECRET_ACCESS_KEY"]["secretKeyRef"]["name"] == "fairlead-s3"


def test_its_image_is_the_platforms_with_jupyterlab() -> None:
    (console,) = containers(named(two(), "Deployment", "fairlead-console")["spec"]["template"])
    (container,) = containers(pod(two()))
    assert container["image"] == f"{console['image']}-workbench"
    given = {"workbench": {"users": ["ada"], "image": {"tag": "7"}}, "global": {"imageRegistry": "r.example"}}
    (own,) = containers(pod(render("platform", given)))
    assert own["image"] == "r.example/fairlead/pipelines:7"


def test_tokens_of_ones_own_and_no_feature_store() -> None:
    given = {"users": ["ada"], "existingSecret": "mine", "idleSeconds": 0, "persistence": {"enabled": False}}
    objects = render("platform", {"workbench": given, "feature-store": {"enabled": False}})
    (container,) = containers(pod(objects))
    assert environment(container)["JUPYTER_TOKEN"]["secretKeyRef"]["name"] == "mine"
    assert "FAIRLEAD_REDIS_PASSWORD" not in environment(container)
    assert container["command"][container["command"].index("--idle") + 1] == "0"
    assert not [
        one for one in of_kind(objects, "Secret", "PersistentVolumeClaim") if "workb" in one["metadata"]["name"]
    ]
    assert next(one for one in pod(objects)["spec"]["volumes"] if one["name"] == "data")["emptyDir"] == {}


SIGN_IN = {
    "enabled": True,
    "issuer": "https://id.example.com:8443/realms/company",
    "existingSecret": "oidc",
    "people": {"ada": "Ada@example.com", "grace": "grace@example.com", "left": "left@example.com"},
    "groups": ["data-science", "it ops"],
    "url": "https://{user}.workbench.example.com",
}
WAYS = {"enabled": True, "namespaces": ["ingress-nginx"], "tls": [{"secretName": "wild"}]}


@lru_cache
def signed_in() -> list[Object]:
    return render("platform", {"workbench": {"users": USERS, "oidc": SIGN_IN, "ingress": WAYS}})


def test_a_proxy_signs_each_person_in_to_their_own_pod() -> None:
    for user in USERS:
        jupyter, proxy = containers(pod(signed_in(), user))
        assert jupyter["command"][-1] == "--behind-proxy"
        assert {
            "--provider=oidc",
            f"--oidc-issuer-url={SIGN_IN['issuer']}",
            "--client-id=fairlead-workbench",
            "--oidc-email-claim=email",
            "--authenticated-emails-file=/etc/sign-in/people",
            "--allowed-group=data-science",
            "--allowed-group=it ops",
            f"--redirect-url=https://{user}.workbench.example.com/oauth2/callback",
            "--cookie-secure=true",
            "--upstream=http://127.0.0.1:8888/",
            "--pass-basic-auth=true",
            "--prefer-email-to-user=true",
        } <= set(proxy["args"])
        assert "--email-domain" not in " ".join(proxy["args"]), "whoever is in a domain would be let in"
        volumes = {one["name"]: one for one in pod(signed_in(), user)["spec"]["volumes"]}
        people = {"name": f"{NAME}-people", "items": [{"key": user, "path": "people"}]}
        assert volumes["people"]["configMap"] == people
        given = {name: one["secretKeyRef"] for name, one in environment(proxy).items()}
        assert given == {
            "OAUTH2_PROXY_CLIENT_SECRET": {"name": "oidc", "key": "client-secret"},
            "OAUTH2_PROXY_COOKIE_SECRET": {"name": "oidc", "key": user},
            "OAUTH2_PROXY_BASIC_AUTH_PASSWORD": environment(jupyter)["JUPYTER_TOKEN"]["secretKeyRef"],
        }
    assert named(signed_in(), "ConfigMap", f"{NAME}-people")["data"] == {
        user: SIGN_IN["people"][user]  # type: ignore[index]
        for user in USERS
    }


def test_people_come_by_the_proxy_alone() -> None:
    policy = named(signed_in(), "NetworkPolicy", NAME)["spec"]
    (way,) = policy["ingress"]
    assert [one["port"] for one in way["ports"]] == [4180]
    assert "ingress-nginx" in json.dumps(way["from"])
    out = [rule for rule in policy["egress"] if {"protocol": "TCP", "port": 8443} in rule["ports"]]
    assert [rule["to"] for rule in out] == [[{"ipBlock": {"cidr": "0.0.0.0/0"}}]]
    closed = render("platform", {"workbench": {"users": USERS, "oidc": {**SIGN_IN, "cidr": "203.0.113.0/24"}}})
    assert "ingress" not in named(closed, "NetworkPolicy", NAME)["spec"]
    assert "203.0.113.0/24" in json.dumps(named(closed, "NetworkPolicy", NAME)["spec"]["egress"])
    for user in USERS:
        (port,) = named(signed_in(), "Service", f"{NAME}-{user}")["spec"]["ports"]
        _, proxy = containers(pod(signed_in(), user))
        assert port["targetPort"] == proxy["ports"][0]["name"] == "sign-in"
        (rule,) = named(signed_in(), "Ingress", f"{NAME}-{user}")["spec"]["rules"]
        assert rule["host"] == f"{user}.workbench.example.com"
        assert rule["http"]["paths"][0]["backend"]["service"] == {"name": f"{NAME}-{user}", "port": {"number": 8888}}


def test_the_proxy_is_closed_and_comes_from_the_mirror() -> None:
    values = {"workbench": {"users": ["ada"], "oidc": SIGN_IN}, "global": {"imageRegistry": "r.example"}}
    _, proxy = containers(pod(render("platform", values)))
    assert proxy["image"].startswith("r.example/oauth2-proxy/oauth2-proxy:v")
    assert proxy["securityContext"]["readOnlyRootFilesystem"] is True
    assert proxy["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert proxy["resources"]["limits"]["memory"] == proxy["resources"]["requests"]["memory"]
    plain = render(
        "platform", {"workbench": {"users": ["ada"], "oidc": {**SIGN_IN, "url": "http://{user}.localhost:8888"}}}
    )
    _, proxy = containers(pod(plain))
    assert {"--cookie-secure=false", "--cookie-name=workbench"} <= set(proxy["args"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"issuer": ""}, "workbench.oidc.issuer"),
        ({"issuer": "http://id.example.com"}, "issuer"),
        ({"existingSecret": ""}, "client-secret, ada, grace"),
        ({"url": "https://workbench.example.com"}, "one address for all"),
        ({"url": "https://example.com/{user}"}, "url"),
        ({"people": {"ada": "ada@example.com"}}, "workbench.oidc.people.grace"),
        ({"people": {"ada": "a@example.com", "grace": "A@example.com"}}, "same person"),
        ({"people": {"ada": "a@example.com,b@example.com", "grace": "g"}}, "people"),
    ],
)
def test_a_sign_in_that_lets_in_nobody_or_too_many_is_refused(change: dict[str, Any], said: str) -> None:
    assert said in refused("platform", {"workbench": {"users": USERS, "oidc": {**SIGN_IN, **change}}})


def test_an_ingress_to_a_token_is_refused() -> None:
    assert "workbench.oidc.enabled=true" in refused("platform", {"workbench": {"users": ["ada"], "ingress": WAYS}})


@pytest.mark.parametrize("user", ["Ada", "a b", "-a", "a" * 31])
def test_a_name_that_cannot_be_one_is_refused(user: str) -> None:
    assert "workbench" in refused("platform", {"workbench": {"users": [user]}})
