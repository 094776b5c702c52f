"""The whole platform in a real cluster, from install to uninstall; the tests build on each other, in this order."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.cluster import CHART, KEEP, PIPELINES, SERVICE, Platform
from tests.e2e.console import look_at_the_demo
from tests.e2e.kubeflow_pod import kubeflow, runs
from tests.e2e.readme import commands, reading
from tests.e2e.spaces import S3_IMAGE, kubectl, need_image, space
from tests.e2e.watched import QUICK, asking, demo_request, joined_again, starts, watched_rows
from tests.e2e.workbench import use_a_workbench

pytestmark = pytest.mark.e2e
KEPT_SECRETS = ("sql", "redis", "s3", "s3-models", "s3-watchers", "predictions")
STORES = {
    "sql": "fairlead-mariadb:3306",
    "redis": "fairlead-redis:6379",
    "s3": "fairlead-s3:9000",
    "mlflow": "fairlead-mlflow:5000",
    "prometheus": "fairlead-prometheus:9090",
    "model": "fairlead-demo:80",
    "console": "fairlead-console:8600",
}


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    with space("platform", storage=False) as namespace:
        for image in (PIPELINES, SERVICE, S3_IMAGE):
            need_image(image)
        assert shutil.which("helm"), "helm is not on PATH"
        yield Platform(namespace)


@pytest.fixture
def no_default_class() -> Iterator[str]:
    """The name of the storage class, which is not the default one for a while; only in a cluster that is for tests."""
    if not os.environ.get("FAIRLEAD_TEST_CLUSTER"):
        pytest.skip("the default storage class of somebody's cluster is not taken away; set FAIRLEAD_TEST_CLUSTER")
    note = "storageclass.kubernetes.io/is-default-class"
    (found,) = json.loads(kubectl("get", "storageclasses", "-o", "json"))["items"]
    name = found["metadata"]["name"]
    kubectl("annotate", "storageclass", name, f"{note}=false", "--overwrite")
    yield name
    kubectl("annotate", "storageclass", name, f"{note}=true", "--overwrite")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"global": {"sql": {"existingSecret": "mine"}}},
            ['global.sql.existingSecret names Secret "mine"', "kubectl -n"],
        ),
        ({"global": {"s3": {"existingSecret": "mine"}}}, ['global.s3.existingSecret names Secret "mine"']),
        ({"global": {"redis": {"existingSecret": "mine"}}}, ['global.redis.existingSecret names Secret "mine"']),
        ({"global": {"storageClass": "fast"}}, ['there is no storage class "fast"', "the cluster has:"]),
    ],
)
def test_what_the_cluster_lacks_is_named_before_anything_is_made(
    platform: Platform, values: dict[str, Any], words: list[str]
) -> None:
    done = platform.helm("install", "fairlead", str(CHART), values=values)
    assert done.returncode != 0
    for word in words:
        assert word in done.stderr
    assert platform.get("pods") == []


def test_without_a_storage_class_an_install_says_so_and_what_to_set(
    platform: Platform, tmp_path: Path, no_default_class: str
) -> None:
    refused = platform.helm("install", "fairlead", str(CHART), values={})
    assert refused.returncode != 0
    assert f"needs a volume, and the cluster has no default storage class; it has: {no_default_class}" in refused.stderr
    assert "Fix: set global.storageClass to one of them, or use external stores" in refused.stderr
    cache = {"model.source": "s3://b/x", "model.digest": "a" * 64, "cache.type": "claim", "secrets.check": "false"}
    options = [part for key, value in cache.items() for part in ("--set", f"{key}={value}")]
    refused = platform.helm("install", "toy", str(CHART.parent / "model-service"), *options)
    assert "Fix: set cache.storageClass to one of them, or set cache.type to pod" in refused.stderr
    assert platform.get("pods") == []
    profile = tmp_path / "profile.yaml"
    profile.write_text(yaml.safe_dump({"cluster": {"namespace": platform.namespace}}))
    doctor = [sys.executable, "-m", "deploy.cli", "doctor", "--cluster", "--profile", str(profile), "--json"]
    said = json.loads(subprocess.run(doctor, cwd=CHART.parents[1], capture_output=True, text=True, check=False).stdout)
    (storage,) = [check for check in said["checks"] if check["check"] == "storage"]
    assert storage["level"] == "warn"
    assert f"--set global.storageClass={no_default_class}" in storage["fix"]
    named = platform.helm(
        "install", "fairlead", str(CHART), "--dry-run=server", values={"global": {"storageClass": no_default_class}}
    )
    assert named.returncode == 0, named.stderr


def test_who_administers_one_namespace_can_install_without_pipelines(
    platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kubeflow Pipelines has rights that only those may give who have them."""
    account, where = "administrator", f"{platform.namespace}:administrator"
    platform.kubectl("create", "serviceaccount", account)
    platform.kubectl("create", "rolebinding", account, "--clusterrole=admin", f"--serviceaccount={where}")
    config = yaml.safe_load(kubectl("config", "view", "--raw", "--minify", "-o", "yaml"))
    config["users"][0]["user"] = {"token": platform.kubectl("create", "token", account).strip()}
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    lost = {"persistence": {"enabled": False}}  # volumes are few; that of Prometheus is enough
    parts: dict[str, Any] = {
        "pipelines": {"enabled": False},
        "demo": {"enabled": False},
        "global": {"checkStorageClass": False},
    }
    parts |= {"mariadb": lost, "s3": lost, "feature-store": {"redis": lost}}
    with monkeypatch.context() as patch:
        patch.setenv("KUBECONFIG", str(file))
        done = platform.helm("install", "mine", str(CHART), values=parts)
        gone = platform.helm("uninstall", "mine", "--wait", "--timeout", "300s")
    assert done.returncode == 0, done.stderr
    assert gone.returncode == 0, gone.stderr
    platform.kubectl("delete", "pvc,secret", "-l", "app.kubernetes.io/instance=mine")


def test_one_install_makes_everything_ready(platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    seconds = platform.install(QUICK)
    for pod in platform.get("pods", "-l", "app.kubernetes.io/instance!=mine"):  # which has been uninstalled
        phase = pod["status"]["phase"]
        ready = all(state["ready"] for state in pod["status"]["containerStatuses"])
        assert phase == "Succeeded" or (phase == "Running" and ready), pod["metadata"]["name"]
    with capsys.disabled():
        print(f"\ninstall {seconds:.1f} s")  # noqa: T201 - a number people look for


def test_every_part_works_the_way_its_clients_use_it(platform: Platform) -> None:
    done = platform.helm("test", "fairlead", "--timeout", "300s", "--logs")
    assert done.returncode == 0, done.stdout + done.stderr
    checks = dict(re.findall(r"^(SQL|S3|REDIS|MLFLOW|PROMETHEUS): (ok|FAILED)", done.stdout, re.MULTILINE))
    assert checks == dict.fromkeys(["SQL", "S3", "REDIS", "MLFLOW", "PROMETHEUS"], "ok")


def test_the_demo_answers_inside_the_cluster_and_its_metrics_are_scraped(platform: Platform) -> None:
    answer = platform.ask({"fairlead.io/access-model": "true"}, "http://fairlead-demo/predict", *demo_request(platform))
    assert (answer["model"], answer["version"]) == ("fraud", "demo")
    found = platform.until(lambda: platform.query('fairlead_requests_total{model="fraud",code="200"}'), "no metrics")
    assert found[0]["metric"]["namespace"] == platform.namespace
    assert platform.query('up{job="pods",release!="mine"} == 0') == []  # which may be ending still


def test_the_console_shows_who_has_a_key_the_demo_and_its_release_and_asks_it(platform: Platform) -> None:
    look_at_the_demo(platform)


def test_shifted_inputs_are_seen_in_the_log_and_the_loop_starts_one_run(platform: Platform) -> None:
    with kubeflow(platform), asking(platform):
        drifted = platform.until(
            lambda: platform.query('fairlead_monitor_drift_detected{model="fraud"} == 1'), "no drift"
        )
        assert {"amount", "(answer)"} <= {each["metric"]["input"] for each in drifted}
        (asked,) = runs(platform)
        assert (asked["task"], asked["promote"]) == ("fraud", False)
        last = f'fairlead_run_last_timestamp_seconds{{task="fraud",namespace="{platform.namespace}"}}'
        platform.until(lambda: platform.query(last), "the loop's metrics do not tell of the run")
    (start,) = starts(platform)
    assert (start["actor"], start["evidence"]["run"]) == ("controller", asked["run"])
    assert platform.query("time() - fairlead_model_trained_timestamp_seconds")


def test_the_readmes_commands_deploy_predict_with_features_online_and_roll_back(
    platform: Platform, tmp_path: Path
) -> None:
    assert commands()["install"][:4] == ["helm", "install", "fairlead", "helm/platform"]  # `platform` has done it
    with reading(platform.namespace, tmp_path) as reader:
        reader.type("deploy")
        answer = json.loads(reader.type("predict", "--json"))
        assert (answer["version"], answer["predictions"][0]["label"]) == ("1", "fraud")
        assert answer["predictions"][0]["flags"] == [], "every feature was found online, and none is old"
        assert reader.second_version() == "2"
        reader.type("deploy")
        assert json.loads(reader.type("predict", "--json"))["version"] == "2"
        reader.type("rollback")
        assert json.loads(reader.type("predict", "--json"))["version"] == "1"
    platform.until(lambda: watched_rows(platform, version="2"), "what is deployed is not watched by itself")
    assert platform.helm("uninstall", "fraud", "--wait", "--timeout", "300s").returncode == 0
    # It asks about a moment of the past with the features of now, so most of them differ.
    assert {"customer_mean_7d", "terminal_risk_1d"} <= set(joined_again(platform))


def test_a_foreign_pod_reaches_no_store_and_a_client_reaches_its_own(platform: Platform) -> None:
    nothing = dict.fromkeys(STORES.values(), False)
    assert platform.reach({"app": "foreign"}, nothing) == nothing
    its_own = {address: part in ("redis", "mlflow", "model", "console") for part, address in STORES.items()}
    client = {f"fairlead.io/access-{part}": "true" for part in ("redis", "mlflow", "model", "console")}
    assert platform.reach(client, its_own) == its_own


def test_the_definitions_of_features_are_in_the_registry(platform: Platform) -> None:
    selector = ("-l", "app.kubernetes.io/component=definitions")
    platform.kubectl("wait", "job", *selector, "--for=condition=Complete", "--timeout=300s")
    query = "MYSQL_PWD=$MARIADB_ROOT_PASSWORD mariadb -uroot -N -e 'select feature_view_name from feast.feature_views'"
    assert "customer_windows" in platform.run_in("mariadb", "sh", "-c", query).split()


def _top(platform: Platform) -> list[list[str]]:
    return [line.split() for line in platform.kubectl("top", "pod", "--no-headers", check=False).splitlines()]


def test_the_platform_is_small(platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    running = {pod["metadata"]["name"] for pod in platform.get("pods") if pod["status"]["phase"] == "Running"}
    deadline = time.monotonic() + 180
    while not running <= {name for name, _, _ in _top(platform)}:
        assert time.monotonic() < deadline, f"no metrics of some of {running}"
        time.sleep(2)
    top = _top(platform)
    used = {name: int(memory.removesuffix("Mi")) for name, _, memory in top}
    idle = sum(mebibytes for name, mebibytes in used.items() if "-demo" not in name)
    objects = [
        each
        for text in (platform.helm("get", "manifest", "fairlead").stdout,)
        for each in yaml.load_all(text, yaml.CSafeLoader)
        if each
    ]
    with capsys.disabled():
        print(f"\nobjects {len(objects)}, idle memory {idle} MiB without the model: {used}")  # noqa: T201 - numbers
    assert idle < 1536
    assert len(objects) <= 150


def test_the_backend_of_pipelines_is_admitted_and_has_its_rights_only(platform: Platform) -> None:
    values = {"pipelines": {"replicas": 1, "ui": {"enabled": True}}}
    done = platform.helm("template", "fairlead", str(CHART), values=values)
    made = [each for each in yaml.load_all(done.stdout, yaml.CSafeLoader) if each and each["kind"] == "Deployment"]
    parts = [each for each in made if "pipelines" in each["metadata"]["labels"]["helm.sh/chart"]]
    assert len(parts) == 8
    pods = []
    for part in parts:
        spec = part["spec"]["template"]["spec"]
        spec["serviceAccountName"] = "pipeline-runner"  # admission asks for one that exists
        metadata = {"name": f"admitted-{part['metadata']['name']}"}
        pods.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    given = yaml.safe_dump_all(pods)
    kubectl("-n", platform.namespace, "apply", "--dry-run=server", "-f", "-", given=given)
    workflow = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": "one"}, "spec": {}}
    schedule = {"apiVersion": "kubeflow.org/v1beta1", "kind": "ScheduledWorkflow", "metadata": {"name": "one"}}
    given = yaml.safe_dump_all([workflow, schedule])
    kubectl("-n", platform.namespace, "apply", "--dry-run=server", "-f", "-", given=given)


@pytest.mark.parametrize("file", sorted(CHART.glob("ci/*-values.yaml")), ids=lambda file: file.stem)
def test_the_api_server_takes_every_object_without_a_warning(platform: Platform, file: Path) -> None:
    done = platform.helm("template", "other", str(CHART), "-f", str(file), "--set-json", "monitoring.namespaces=[]")
    assert done.returncode == 0, done.stderr
    objects = [each for each in yaml.load_all(done.stdout, yaml.CSafeLoader) if each and each["kind"] != "Pod"]
    command = ["kubectl", "-n", platform.namespace, "create", "--dry-run=server", "-f", "-"]
    fixed = {
        "ml-pipeline",
        "kfp-launcher",
        "metadata-grpc-configmap",
        "workflow-controller-configmap",
        "pipeline-runner",
    }
    ours = [e for e in objects if e["metadata"]["name"] not in fixed and e["kind"] != "CustomResourceDefinition"]
    said = subprocess.run(command, input=yaml.safe_dump_all(ours), capture_output=True, text=True, check=False).stderr
    assert said == ""


@pytest.mark.parametrize(
    ("account", "verb", "what", "may"),
    [
        ("pipeline-runner", "get", "secret/fairlead-s3", True),
        ("pipeline-runner", "get", "secret/fairlead-sql", False),
        ("pipeline-runner", "list", "secrets", False),
        ("pipeline-runner", "patch", "workflows.argoproj.io", True),
        ("pipeline-runner", "create", "pods", False),
        ("pipeline-runner", "create", "jobs.batch", True),
        ("pipeline-runner", "delete", "networkpolicies.networking.k8s.io", True),
        ("pipeline-runner", "patch", "networkpolicies.networking.k8s.io", False),
        ("pipeline-runner", "get", "pods/log", True),
        ("fairlead-workflow-controller", "create", "pods", True),
        ("fairlead-workflow-controller", "get", "secret/fairlead-sql", False),
        ("fairlead-ml-pipeline", "create", "workflows.argoproj.io", True),
        ("fairlead-ml-pipeline", "get", "secrets", False),
        ("fairlead-persistenceagent", "watch", "workflows.argoproj.io", True),
        ("fairlead-persistenceagent", "delete", "workflows.argoproj.io", False),
        ("fairlead-scheduledworkflow", "update", "scheduledworkflows.kubeflow.org", True),
        ("fairlead-prometheus", "list", "pods", True),
        ("fairlead-prometheus", "get", "secrets", False),
        ("fairlead-mlflow", "get", "pods", False),
        ("fairlead-console", "list", "deployments.apps", True),
        ("fairlead-console", "list", "workflows.argoproj.io", True),
        ("fairlead-console", "get", "pods/log", False),
        ("fairlead-console", "get", "secrets", False),
        ("fairlead-console", "patch", "deployments.apps", False),
        ("fairlead-loop", "list", "workflows.argoproj.io", True),
        ("fairlead-loop", "create", "workflows.argoproj.io", False),
        ("fairlead-loop", "get", "secrets", False),
    ],
)
def test_accounts_may_what_they_need(platform: Platform, account: str, verb: str, what: str, may: bool) -> None:
    user = f"system:serviceaccount:{platform.namespace}:{account}"
    said = platform.kubectl("auth", "can-i", verb, what, "--as", user, check=False)
    assert said.strip() == ("yes" if may else "no")


def test_killed_pods_come_back_and_nothing_is_lost(platform: Platform) -> None:
    platform.run_in("mlflow", "python", "-c", KEEP, "write")
    platform.run_in("redis", "redis-cli", "set", "kept", "here")
    rows = watched_rows(platform)
    for component in ("monitor", "loop", "mariadb", "redis", "s3", "prometheus", "mlflow"):
        platform.kill(component)
    assert platform.run_in("redis", "redis-cli", "get", "kept").strip() == "here"
    platform.until(lambda: platform.kept() == "kept", "MLflow lost what was kept")
    platform.until(lambda: watched_rows(platform) >= rows > 0, "the monitor does not go on where it was")
    assert len(starts(platform)) == 1, "the loop has started its run once"
    demo = platform.get("pods", "-l", "app.kubernetes.io/instance=fairlead,app.kubernetes.io/component=server")
    platform.kubectl("delete", "pod", demo[0]["metadata"]["name"], "--now")
    platform.kubectl("rollout", "status", "deploy/fairlead-demo", "--timeout=300s")


def test_an_upgrade_keeps_passwords_volumes_and_databases_running(platform: Platform) -> None:
    before = {each["metadata"]["name"]: each["data"] for each in platform.get("secrets", "-l", "helm.sh/chart")}
    database = platform.pod("mariadb")["metadata"]["uid"]
    platform.install({"mlflow": {"podAnnotations": {"note": "changed"}}, "monitoring": {"interval": "6s"}})
    after = {each["metadata"]["name"]: each["data"] for each in platform.get("secrets", "-l", "helm.sh/chart")}
    assert before == after
    assert set(before) >= {"fairlead-sql", "fairlead-s3", "fairlead-redis", "fairlead-demo-keys"}
    assert platform.pod("mariadb")["metadata"]["uid"] == database
    assert platform.pod("mlflow")["metadata"]["annotations"]["note"] == "changed"
    assert platform.kept() == "kept"


def test_a_workbench_knows_its_person_and_the_platforms_runs_and_goes_to_sleep(platform: Platform) -> None:
    use_a_workbench(platform)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"mariadb": {"persistence": {"size": "1Gi"}}}, ["cannot shrink to 1Gi", "persistence.size to at least"]),
        ({"s3": {"persistence": {"storageClass": "other"}}}, ['cannot become "other"', "leave storageClass as it was"]),
    ],
)
def test_what_cannot_change_is_refused_with_its_cure(
    platform: Platform, values: dict[str, Any], words: list[str]
) -> None:
    done = platform.helm("upgrade", "fairlead", str(CHART), values=values)
    assert done.returncode != 0
    for word in words:
        assert word in done.stderr


def test_a_second_release_takes_the_stores_of_the_first_but_not_its_fixed_names(platform: Platform) -> None:
    refused = platform.helm("install", "second", str(CHART), "--dry-run=server", values={})
    assert refused.returncode != 0
    assert "has Kubeflow Pipelines already, of release fairlead" in refused.stderr
    values = {
        "global": {
            "sql": {"host": "fairlead-mariadb", "existingSecret": "fairlead-sql"},
            "s3": {"endpoint": "http://fairlead-s3:9000", "existingSecret": "fairlead-s3"},
            "redis": {"host": "fairlead-redis", "existingSecret": "fairlead-redis"},
            "predictions": {"existingSecret": "fairlead-predictions"},
        },
        **{part: {"enabled": False} for part in ("pipelines", "monitoring", "demo")},
    }
    done = platform.helm("install", "second", str(CHART), "--wait", "--timeout", "400s", values=values)
    assert done.returncode == 0, done.stderr
    mine = platform.get("statefulsets", "-l", "app.kubernetes.io/instance=second")
    assert mine == [], "the stores of the first release are used, by value only"
    done = platform.helm("test", "second", "--timeout", "300s", "--logs")
    assert done.returncode == 0, done.stdout + done.stderr
    assert platform.helm("uninstall", "second", "--wait").returncode == 0


def test_an_uninstall_leaves_only_what_was_to_be_kept_and_an_install_finds_it_again(platform: Platform) -> None:
    done = platform.helm("uninstall", "fairlead", "--wait", "--timeout", "300s")
    assert done.returncode == 0, done.stderr
    names = kubectl("api-resources", "--namespaced", "--verbs=list", "-o", "name").split()
    kinds = ",".join(name for name in names if not name.startswith(("events", "pods.metrics")))
    selector = "app.kubernetes.io/part-of=fairlead"
    deadline = time.monotonic() + 180
    while platform.get("pods", "-l", selector) and time.monotonic() < deadline:
        time.sleep(1)
    left = {(each["kind"], each["metadata"]["name"]) for each in platform.get(kinds, "-l", selector)}
    claims = {("PersistentVolumeClaim", f"fairlead-{part}") for part in ("mariadb", "redis", "s3", "prometheus")}
    assert left == claims | {("Secret", f"fairlead-{part}") for part in KEPT_SECRETS}
    platform.install({"demo": {"enabled": False}})
    assert platform.kept() == "kept"
    assert platform.helm("uninstall", "fairlead", "--wait", "--timeout", "300s").returncode == 0
