"""Which pod has which key of S3."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helm.chart import Object, containers, environment, named, of_kind, pods, refused, render
from tests.helm.program import CHARTS

FULL = CHARTS / "platform" / "ci" / "full-values.yaml"
THEIRS = {"endpoint": "https://s3.example", "existingSecret": "all"}
WATCHERS = {
    "Deployment/fairlead-monitor",
    "Deployment/fairlead-loop",
    "Deployment/fairlead-console",
    "CronJob/fairlead-skew",
}
EVERYTHING = (
    "fairlead-mlflow",
    "fairlead-demo-training",
    "fairlead-check",
    "fairlead-keeper",
    "fairlead-workbench",
    "fairlead-federation",  # which trains and publishes, as steps do
)


def keys(made: list[Object]) -> dict[str, set[str]]:
    """By pod the Secrets that its S3 keys are from."""
    found: dict[str, set[str]] = {}
    for name, pod in pods(made):
        for container in containers(pod):
            given = environment(container).get("AWS_SECRET_ACCESS_KEY")
            if given:
                found.setdefault(name, set()).add(given["secretKeyRef"]["name"])
    return found


def test_models_and_what_watches_them_have_keys_that_open_less() -> None:
    found = keys(render("platform", files=(FULL,)))
    assert {name for name, secrets in found.items() if secrets == {"fairlead-s3-watchers"}} == WATCHERS
    models = {name for name, secrets in found.items() if secrets == {"fairlead-s3-models"}}
    assert models == {"Deployment/fairlead-demo", "Pod/fairlead-demo-test"} & set(found)
    rest = {name.partition("/")[2] for name in set(found) - WATCHERS - models}
    assert [name for name in rest if not name.startswith(EVERYTHING)] == []


def test_the_embedded_server_reads_the_accounts_whose_keys_pods_have() -> None:
    made = render("platform")
    server = dict(pods(made))["StatefulSet/fairlead-s3"]
    (folder,) = [m["mountPath"] for m in containers(server)[-1]["volumeMounts"] if m["name"] == "accounts"]
    assert environment(containers(server)[-1])["VGW_IAM_DIR"] == folder
    (volume,) = [each["secret"] for each in server["spec"]["volumes"] if each["name"] == "accounts"]
    assert "users.json" in named(made, "Secret", volume["secretName"])["data"]
    assert [item["path"] for item in volume["items"]] == ["users.json"]


def test_the_policy_is_of_the_bucket_and_of_the_demo_that_are_set() -> None:
    values = {"global": {"s3": {"bucket": "ours"}}, "demo": {"model": {"source": "s3://ours/shown/here"}}}
    first = containers(dict(pods(render("platform", values)))["Deployment/fairlead-mlflow"])[0]
    policy = json.loads(environment(first)["POLICY"])
    resources = {each for statement in policy["Statement"] for each in statement["Resource"]}
    assert {each.partition("/")[0] for each in resources} == {"arn:aws:s3:::ours"}
    assert "arn:aws:s3:::ours/shown/here/*" in resources


@pytest.mark.parametrize(
    ("values", "models", "watchers"),
    [
        ({"global": {"s3": THEIRS}}, "all", "all"),
        ({"global": {"s3": {**THEIRS, "keys": {"models": "m", "watchers": "w"}}}}, "m", "w"),
        ({"global": {"s3": {**THEIRS, "keys": {"models": "m"}}}}, "m", "all"),
        ({"global": {"s3": {"keys": {"generate": False}}}}, "fairlead-s3", "fairlead-s3"),
    ],
)
def test_where_none_are_made_pods_have_the_keys_that_are_named_or_the_platforms(
    values: dict[str, Any], models: str, watchers: str
) -> None:
    made = render("platform", values)
    found = keys(made)
    assert found["Deployment/fairlead-demo"] == {models}
    assert {frozenset(found[name]) for name in WATCHERS} == {frozenset({watchers})}
    assert "initContainers" not in dict(pods(made))["Deployment/fairlead-mlflow"]["spec"]
    assert not [each for each in of_kind(made, "Secret") if "-s3-" in each["metadata"]["name"]]


def test_keys_that_the_embedded_server_does_not_know_are_refused() -> None:
    said = refused("platform", {"global": {"s3": {"keys": {"models": "mine"}}}})
    assert "global.s3.keys.models is set, but the S3 of this release knows the keys only that it makes. Fix:" in said


def test_a_keeper_of_rollouts_may_have_another_key_than_the_pods_that_answer(tmp_path: Path) -> None:
    values = {
        "model": {"source": "s3://models/fraud/1f", "digest": "2d" * 32, "version": "3"},
        "storage": {"endpoint": "http://fairlead-s3:9000", "existingSecret": "models"},
        "config": {"predictions": {"folder": "s3://models/log"}},
        "rollouts": {"enabled": True, "storageSecret": "watchers"},
    }
    found = keys(render("model-service", values, release="toy"))
    assert found["Deployment/toy-rollouts"] == {"watchers"}
    assert found["Deployment/toy-a"] == found["Deployment/toy-b"] == {"models"}
    values["rollouts"] = {"enabled": True}
    assert keys(render("model-service", values, release="toy"))["Deployment/toy-rollouts"] == {"models"}
