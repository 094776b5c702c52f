"""One model's release in a real cluster, from install to uninstall; the tests build on each other, in this order."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.model_release import ASK_GRPC, CHART, IMAGE, MAY_CALL, Release, make_bundles, publish
from tests.e2e.release_rollouts import DRAFTED, READER, STRICT, keeper_of, roll_out, switch_on
from tests.e2e.spaces import kubectl, need_image, space

pytestmark = pytest.mark.e2e
ENVOY = "docker.io/envoyproxy/envoy:distroless-v1.40.0"
OPERATOR = ("PodMonitor", "ServiceMonitor", "PrometheusRule")  # their definitions are not everywhere


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    with space("model") as namespace:
        need_image(IMAGE)
        assert shutil.which("helm"), "helm is not on PATH"
        made = Release(namespace, make_bundles(tmp_path_factory.mktemp("bundles")))
        publish(namespace, made.bundles)
        yield made


def back_by_itself() -> str:
    """The option by which Helm goes back when an upgrade does not become ready."""
    version = subprocess.run(["helm", "version", "--short"], capture_output=True, text=True, check=True).stdout
    return "--atomic" if version.startswith("v3") else "--rollback-on-failure"


def test_a_missing_secret_is_named_before_anything_is_made(release: Release) -> None:
    values = release.values("one") | {"secrets": {"salt": {"name": "pepper"}}}
    done = release.helm("install", "toy", str(CHART), values=values)
    assert done.returncode != 0
    assert 'secrets.salt.name names Secret "pepper"' in done.stderr
    assert release.pods() == []


def test_an_install_is_ready_and_answers_the_golden_examples(
    release: Release, record_property: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    start = time.monotonic()
    done = release.upgrade("one", "--timeout", "240s")
    seconds = time.monotonic() - start
    assert done.returncode == 0, done.stderr
    record_property("install_seconds", round(seconds, 1))
    tested = release.helm("test", "toy", "--timeout", "240s")
    assert tested.returncode == 0, tested.stderr + tested.stdout
    with capsys.disabled():
        print(f"\ninstall {seconds:.1f} s")  # noqa: T201 - a number people look for


def test_a_pod_that_may_gets_the_models_answer(release: Release) -> None:
    answer = release.ask("client", MAY_CALL)
    expected = next(release.bundles["one"].golden()).expected
    assert list(answer["predictions"][0]["probabilities"].values()) == pytest.approx(expected, abs=1e-4)
    assert (answer["model"], answer["version"]) == ("toy", "one")


def test_a_foreign_pod_is_kept_out(release: Release) -> None:
    assert "timed out" in release.ask("foreigner", {"app": "foreign"})["error"]


@pytest.mark.parametrize("key", ["", "of-somebody-else"])
def test_without_the_releases_key_nobody_is_answered(release: Release, key: str) -> None:
    assert "401" in release.ask(f"keyless-{len(key)}", MAY_CALL, key=key)["error"]


def test_nothing_runs_with_more_rights_than_it_needs(release: Release) -> None:
    (pod,) = release.pods()
    assert pod["spec"]["enableServiceLinks"] is False
    assert not any("kube-api-access" in volume["name"] for volume in pod["spec"]["volumes"])
    touched = kubectl(
        "-n", release.namespace, "exec", pod["metadata"]["name"], "-c", "server", "--",
        "python", "-c", "import os; print(os.getuid(), os.access('/app', os.W_OK), os.access('/bundles', os.W_OK))",
    )  # fmt: skip
    assert touched.split() == ["10001", "False", "False"]


def test_an_upgrade_under_load_loses_no_request(release: Release) -> None:
    key = release.key()
    with release.load("load-up") as got:
        done = release.upgrade("two", "--timeout", "240s")
        assert done.returncode == 0, done.stderr
    assert release.key() == key
    assert (got["failed"], got["failures"]) == (0, [])
    assert set(got["versions"]) == {"one", "two"}


def test_a_rollback_under_load_loses_no_request(release: Release) -> None:
    with release.load("load-back") as got:
        done = release.helm("rollback", "toy", "--wait", "--timeout", "240s")
        assert done.returncode == 0, done.stderr
    assert (got["failed"], got["failures"]) == (0, [])
    assert set(got["versions"]) == {"one", "two"}


@pytest.mark.parametrize("bundle", ["changed", "wrong"])
def test_a_bad_bundle_never_takes_traffic_and_the_release_goes_back_by_itself(release: Release, bundle: str) -> None:
    with release.load(f"load-{bundle}") as got:
        done = release.upgrade(bundle, back_by_itself(), "--timeout", "40s")
    assert done.returncode != 0
    assert (got["failed"], got["failures"]) == (0, [])
    assert set(got["versions"]) == {"one"}
    status = json.loads(release.helm("status", "toy", "-o", "json").stdout)
    assert status["info"]["status"] == "deployed"
    values = json.loads(release.helm("get", "values", "toy", "-o", "json").stdout)
    assert values["model"]["version"] == "one"


def test_another_digest_than_the_bundles_is_refused(release: Release) -> None:
    done = release.upgrade("two", back_by_itself(), "--timeout", "30s", digest="0" * 64)
    assert done.returncode != 0
    assert release.ask("after", MAY_CALL)["version"] == "one"


def test_a_pod_that_is_killed_comes_back(release: Release) -> None:
    (pod,) = release.pods()
    kubectl("-n", release.namespace, "delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force")
    kubectl("-n", release.namespace, "rollout", "status", "deployment/toy", "--timeout=240s")
    assert release.ask("again", MAY_CALL)["version"] == "one"


def test_versions_come_by_evidence_and_no_request_fails(release: Release) -> None:
    """Switched on under load; a good version ends at all traffic though keeper and router lose pods, a bad one goes."""
    need_image(ENVOY)
    with release.load("load-rollouts") as got:
        switch_on(release, "one")
        keeper = keeper_of(release)
        good = roll_out(release, keeper, "two", {"starting": ("router",), "running": ("rollout",)})
        assert (good.phase, good.weight) == ("promoted", 100)
        bad = roll_out(release, keeper, "weak")
        assert (bad.phase, bad.reasons[0].partition(" ")[0]) == ("rolled_back", "answers")
    assert (got["failed"], got["failures"]) == (0, [])
    assert set(got["versions"]) == {"one", "two", "weak"}
    assert release.ask("after-rollouts", MAY_CALL)["version"] == "two"
    assert release.ask("over-grpc", MAY_CALL, "toy:3001", script=ASK_GRPC)["version"] == "two"
    assert release.helm("test", "toy", "--timeout", "240s").returncode == 0


def test_bad_versions_cost_clients_no_more_than_their_own_errors_and_in_the_shadow_nothing(release: Release) -> None:
    keeper = keeper_of(release)
    with release.load("load-bad") as got:
        slow = roll_out(release, keeper, "slow", policy=STRICT)
        assert (slow.phase, slow.reasons[0].partition(" ")[0]) == ("rolled_back", "latency")
        weak = roll_out(release, keeper, "weak", strategy="shadow")
        assert (weak.phase, weak.reasons[0].partition(" ")[0]) == ("rolled_back", "answers")
        assert weak.totals[1].requests > 0, "it is judged by copies"
        assert max(step.weight for step in weak.transitions) == 0
        failing = roll_out(release, keeper, "failing", policy=STRICT)
        assert (failing.phase, failing.reasons[0].partition(" ")[0]) == ("rolled_back", "errors")
    assert "weak" not in got["versions"], "no client hears of a version in the shadow"
    assert set(got["codes"]) == {"500"}, "what the failing version itself answered, which no other can take back"
    counted = [*slow.totals, weak.totals[0], failing.totals[0]]
    assert [(each.errors, each.unreached) for each in counted] == [(0, 0)] * 4
    assert release.ask("after-bad", MAY_CALL)["version"] == "two"


def test_a_second_release_with_a_name_of_63_characters_stands_beside_it(release: Release) -> None:
    name = "second-" + "x" * 56
    claim = {"type": "claim", "accessModes": ["ReadWriteOnce"], "size": "1Gi"}
    scaling = {"enabled": True, "minReplicas": 1, "maxReplicas": 2}
    logged = {"predictions": {"folder": "s3://fairlead/predictions", "upload_seconds": 1}}
    more = {"fullnameOverride": name, "cache": claim, "autoscaling": scaling, "config": logged}
    values = release.values("one", name="second") | more
    done = release.helm("install", "second", str(CHART), "--wait", "--timeout", "240s", values=values)
    assert done.returncode == 0, done.stderr
    assert release.ask("both", MAY_CALL, f"http://{name}", release.key("second"))["version"] == "one"
    assert release.ask("first", MAY_CALL)["version"] == "two"
    assert [one["version"] for one in release.records(name, "second")] == ["one"]
    # What a claim cannot change makes another one instead of an upgrade that Kubernetes refuses.
    values["cache"] = claim | {"size": "512Mi"}
    done = release.helm("upgrade", "second", str(CHART), "--wait", "--timeout", "240s", values=values)
    assert done.returncode == 0, done.stderr
    assert release.helm("test", "second", "--timeout", "240s").returncode == 0
    kubectl("-n", release.namespace, "wait", "--for=condition=ScalingActive", f"hpa/{name}", "--timeout=240s")


def test_versions_of_a_recommender_draft_lists_and_clicks_bring_the_better_one(release: Release) -> None:
    """The candidate's pods ask the champion's by what the router tells them; the keeper reads who won in the log."""
    values = release.values("loud", name="lists", modality="recommend")
    values["rollouts"] = {"enabled": True, "router": {"replicas": 1}}
    values["config"] = {"drafts": True, "predictions": {"folder": "s3://fairlead/predictions", "upload_seconds": 1}}
    done = release.helm("install", "lists", str(CHART), "--wait", "--timeout", "240s", values=values)
    assert done.returncode == 0, done.stderr
    with release.load("reader", "lists", READER) as got:
        rollout = roll_out(release, keeper_of(release, "lists"), "quiet", policy=DRAFTED)
    assert (rollout.phase, rollout.weight) == ("promoted", 100), rollout.reasons
    assert min(counts.drafted for counts in rollout.totals) > 0
    assert rollout.totals[0].lost == rollout.totals[0].drafted, "the champion lost all that are credited to it"
    assert rollout.totals[1].lost == 0
    seen = {tuple(one) for one in got["lists"]}
    assert ("loud", "bc") in seen, "most people see the champion's own list"
    assert any(version == "quiet" and {*items} & {*"abc"} and {*items} & {*"def"} for version, items in seen)
    assert {version for version, _ in seen} == {"loud", "quiet"}, "no request failed"


@pytest.mark.parametrize("file", sorted(CHART.glob("ci/*-values.yaml")), ids=lambda file: file.stem)
@pytest.mark.parametrize("metric", ["inflight", "queue", "cpu"])
def test_the_api_server_takes_every_object_without_a_warning(release: Release, file: Path, metric: str) -> None:
    scaling = ("--set", "autoscaling.enabled=true", "--set", f"autoscaling.metric={metric}")
    done = release.helm("template", "other", str(CHART), "-f", str(file), *scaling)
    assert done.returncode == 0, done.stderr
    objects = [
        each for each in yaml.load_all(done.stdout, yaml.CSafeLoader) if each and each["kind"] not in ("Pod", *OPERATOR)
    ]
    assert "HorizontalPodAutoscaler" in {each["kind"] for each in objects}
    command = ["kubectl", "-n", release.namespace, "create", "--dry-run=server", "-f", "-"]
    said = subprocess.run(
        command, input=yaml.safe_dump_all(objects), capture_output=True, text=True, check=False
    ).stderr
    assert said == ""


def test_uninstalling_leaves_nothing(release: Release) -> None:
    for name in ("toy", "second", "lists"):
        done = release.helm("uninstall", name, "--wait", "--timeout", "240s")
        assert done.returncode == 0, done.stderr
    kinds = "all,configmaps,secrets,serviceaccounts,roles,networkpolicies,poddisruptionbudgets,hpa,pvc"
    selector = "app.kubernetes.io/name=model-service"
    deadline = time.monotonic() + 180  # pods that drain
    while (left := kubectl("-n", release.namespace, "get", kinds, "-l", selector, "-o", "name")) and (
        time.monotonic() < deadline
    ):
        time.sleep(1)
    assert left == ""
