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


@pytest.mark.parametrize("user", ["Ada", "a b", "-a", "a" * 31])
def test_a_name_that_cannot_be_one_is_refused(user: str) -> None:
    assert "workbench" in refused("platform", {"workbench": {"users": [user]}})
