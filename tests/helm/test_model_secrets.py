"""What a release of a model knows in secret: references, its own API key, and credentials only where they are used."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest

from tests.helm.chart import Object, environment, of_kind, refused, render
from tests.helm.program import CHARTS

DIGEST = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
S3 = {"model": {"source": "s3://models/fraud/2d711642b726", "digest": DIGEST}}
STORAGE = {"storage": {"endpoint": "http://s3:9000", "existingSecret": "s3"}}


def made(**values: Any) -> list[Object]:
    return render("model-service", {**S3, **STORAGE, **values}, release="fraud")


def pod(objects: list[Object]) -> Object:
    return of_kind(objects, "Deployment")[0]["spec"]["template"]


def server(objects: list[Object]) -> dict[str, Any]:
    return environment(pod(objects)["spec"]["containers"][0])


def test_secrets_reach_the_pod_by_reference_only() -> None:
    objects = render("model-service", files=(CHARTS / "model-service" / "ci" / "production-values.yaml",))
    assert server(objects)["FAIRLEAD_SERVICE_PREDICTIONS__SALT"] == {
        "secretKeyRef": {"name": "prediction-salt", "key": "salt"}
    }
    assert server(objects)["FAIRLEAD_REDIS_PASSWORD"] == {"secretKeyRef": {"name": "redis-auth", "key": "password"}}
    assert of_kind(objects, "Secret") == []


def test_an_api_key_is_made_and_its_hash_alone_reaches_the_service() -> None:
    objects = made()
    (secret,) = of_kind(objects, "Secret")
    key, lines = (base64.b64decode(secret["data"][name]).decode() for name in ("key", "keys"))
    assert len(key) == 40
    assert lines == f"client:{hashlib.sha256(key.encode()).hexdigest()}\n"
    (volume,) = [item for item in pod(objects)["spec"]["volumes"] if item["name"] == "keys"]
    name = secret["metadata"]["name"]
    assert volume["secret"] == {"secretName": name, "items": [{"key": "keys", "path": "keys"}]}
    assert server(objects)["FAIRLEAD_SERVICE_KEYS_FILE"] == '"/etc/fairlead/keys"'
    (test,) = of_kind(objects, "Pod")[0]["spec"]["containers"]
    assert environment(test)["FAIRLEAD_API_KEY"] == {"secretKeyRef": {"name": name, "key": "key"}}
    assert key not in json.dumps([item for item in objects if item["kind"] != "Secret"])


@pytest.mark.parametrize("keys", [{"name": "mine"}, {"generate": False}])
def test_no_key_is_made_beside_ones_own_or_when_none_is_wanted(keys: dict[str, Any]) -> None:
    objects = made(secrets={"keys": keys})
    assert of_kind(objects, "Secret") == []
    mounted = [item["secret"]["secretName"] for item in pod(objects)["spec"]["volumes"] if item["name"] == "keys"]
    assert mounted == [name for name in [keys.get("name")] if name]


def test_predictions_logged_in_s3_give_the_server_what_it_needs_to_write_there() -> None:
    local = {"model": {"source": "/mnt/fraud", "digest": DIGEST}}
    plain, logs = made(**local), made(**local, config={"predictions": {"folder": "s3://logs/predictions"}})
    credentials = {"AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    assert credentials <= set(server(logs))
    assert not credentials & (set(server(plain)) | set(server(made())))
    for objects, ports in ((plain, [53, 53]), (logs, [53, 53, 9000])):
        (policy,) = [each for each in of_kind(objects, "NetworkPolicy") if each["metadata"]["name"] == "fraud"]
        assert [port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]] == ports
    assert pod(logs)["metadata"]["labels"]["fairlead.io/access-s3"] == "true"


ADAPTERS = {"adapters": {"folder": "s3://personal/adapters"}}
PEERS = [{"podSelector": {"matchLabels": {"app": "redis"}}}]


def test_the_redis_of_adapters_comes_from_a_secret_and_is_off_by_default() -> None:
    assert not [name for name in server(made()) if "ADAPTERS" in name]
    secrets = {"salt": {"name": "salt"}, "adapters": {"name": "hot"}}
    objects = made(config=ADAPTERS, secrets=secrets, networkPolicy={"adapters": PEERS})
    assert server(objects)["FAIRLEAD_SERVICE_ADAPTERS__REDIS"] == {"secretKeyRef": {"name": "hot", "key": "url"}}
    assert "AWS_ACCESS_KEY_ID" in server(objects), "adapters are kept in S3"
    (config,) = [
        one["data"] for one in of_kind(objects, "ConfigMap") if "FAIRLEAD_SERVICE_ADAPTERS__FOLDER" in one["data"]
    ]
    assert config["FAIRLEAD_SERVICE_ADAPTERS__FOLDER"] == '"s3://personal/adapters"'
    ways = [rule for one in of_kind(objects, "NetworkPolicy") for rule in one["spec"].get("egress", [])]
    assert {"to": PEERS, "ports": [{"protocol": "TCP", "port": 6379}]} in ways


@pytest.mark.parametrize("part", ["drawing", "budgets"])
def test_replicas_share_jobs_and_budgets_by_a_redis_whose_address_may_be_a_secret(part: str) -> None:
    assert not [name for name in server(made()) if part.upper() in name]
    objects = made(secrets={part: {"name": "jobs"}}, networkPolicy={part: PEERS})
    assert server(objects)[f"FAIRLEAD_SERVICE_{part.upper()}__REDIS"] == {
        "secretKeyRef": {"name": "jobs", "key": "url"}
    }
    plain = made(config={part: {"redis": "redis://shared.stores:6380/2"}})
    for made_of, to, port in (
        (objects, PEERS, 6379),
        (plain, [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "stores"}}}], 6380),
    ):
        ways = [rule for one in of_kind(made_of, "NetworkPolicy") for rule in one["spec"].get("egress", [])]
        assert {"to": to, "ports": [{"protocol": "TCP", "port": port}]} in ways
        assert pod(made_of)["metadata"]["labels"]["fairlead.io/access-redis"] == "true"


@pytest.mark.parametrize(
    ("values", "fix"),
    [
        ({"config": {"drawing": {"redis": "redis://:word@redis:6379"}}}, "secrets.drawing.name"),
        ({"secrets": {"drawing": {"name": "jobs"}}}, "networkPolicy.drawing"),
        ({"config": ADAPTERS}, "secrets.salt.name"),
        ({"config": ADAPTERS, "secrets": {"salt": {"name": "salt"}}}, "secrets.adapters.name"),
        ({"config": {"adapters": {"redis": "redis://:word@redis:6379"}}}, "secrets.adapters.name"),
        ({"secrets": {"adapters": {"name": "hot"}}}, "networkPolicy.adapters"),
    ],
)
def test_what_a_redis_lacks_is_said_before_anything_is_installed(values: dict[str, Any], fix: str) -> None:
    assert fix in refused("model-service", {**S3, **STORAGE, **values})
