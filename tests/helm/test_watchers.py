"""The pods that watch models: what the monitor and the loop are told, may do and reach, and how they are left out."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from contracts.settings import load
from deploy.cli.profiles.loading import load_cluster_profile
from services.monitor.settings import PREFIX, MonitorSettings
from tests.helm.chart import OPERATOR, Object, containers, environment, named, of_kind, pods, refused, render
from tests.helm.edges import table
from tests.helm.program import CHARTS
from tests.helm.test_keeper import rights

MINIMAL = CHARTS / "platform" / "values-minimal.yaml"
PRODUCTION = CHARTS / "platform" / "values-production.yaml"
FULL = CHARTS / "platform" / "ci" / "full-values.yaml"


def container(made: list[Object], part: str) -> Object:
    (found,) = containers(dict(pods(made))[f"Deployment/fairlead-{part}"])
    return found


def settings(made: list[Object], folder: Path) -> MonitorSettings:
    """What the monitor reads of the chart's file."""
    file = folder / "monitor.yaml"
    file.write_text(named(made, "ConfigMap", "fairlead-monitor")["data"]["monitor.yaml"])
    return load(MonitorSettings, str(file), environ={}, prefix=PREFIX)


def test_the_monitor_reads_the_log_that_models_write_and_the_bundles_of_the_registry(tmp_path: Path) -> None:
    values = {"global": {"s3": {"bucket": "ours"}}, "demo": {"model": {"source": "s3://ours/demo/fraud"}}}
    made = render("platform", values)
    found = settings(made, tmp_path)
    assert (found.predictions, found.artifacts, found.models) == ("s3://ours/predictions", "s3://ours/bundles", [])
    model = environment(containers(dict(pods(made))["Deployment/fairlead-demo"])[-1])
    assert json.loads(model["FAIRLEAD_SERVICE_PREDICTIONS__FOLDER"]) == found.predictions
    salt = model["FAIRLEAD_SERVICE_PREDICTIONS__SALT"]["secretKeyRef"]
    assert salt == {"name": "fairlead-predictions", "key": "salt"}
    assert list(named(made, "Secret", "fairlead-predictions")["data"]) == ["salt"]
    assert named(made, "Secret", "fairlead-predictions")["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    publish = yaml.safe_load(named(made, "ConfigMap", "fairlead-publish")["data"]["profile.yaml"])
    assert (publish["predictions"], publish["artifacts"]) == (found.predictions, found.artifacts)
    assert publish["cluster"]["salt"] == {"name": salt["name"], "password_key": salt["key"]}
    port = container(made, "monitor")["ports"][0]["containerPort"]
    assert (found.port, found.host) == (port, "0.0.0.0")


def test_settings_of_the_monitor_are_values_and_those_of_the_chart_are_not(tmp_path: Path) -> None:
    found = settings(render("platform", files=(FULL,)), tmp_path)
    assert (found.every_seconds, found.rules.effect) == (10, 0.2)
    for key in ("predictions", "artifacts", "host", "port"):
        assert f"monitor.config.{key} is set by the chart" in refused("platform", {"monitor": {"config": {key: "x"}}})


def test_a_demo_may_log_nowhere_and_a_salt_may_be_ones_own() -> None:
    quiet = render("platform", {"demo": {"config": {"predictions": {"folder": ""}}}})
    model = environment(containers(dict(pods(quiet))["Deployment/fairlead-demo"])[-1])
    assert not {"AWS_ACCESS_KEY_ID", "FAIRLEAD_SERVICE_PREDICTIONS__SALT"} & set(model)
    made = render("platform", {"global": {"predictions": {"existingSecret": "mine"}}})
    assert "fairlead-predictions" not in {each["metadata"]["name"] for each in of_kind(made, "Secret")}
    model = environment(containers(dict(pods(made))["Deployment/fairlead-demo"])[-1])
    assert model["FAIRLEAD_SERVICE_PREDICTIONS__SALT"]["secretKeyRef"]["name"] == "mine"


def test_the_loop_is_the_command_line_with_the_profile_of_the_platform(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from deploy.cli.app import app

    made = render("platform")
    command = container(made, "loop")["command"]
    assert command[:4] == ["python", "-m", "deploy.cli", "watch"]
    options = dict(zip(command[4::2], command[5::2], strict=True))
    known = CliRunner().invoke(app, ["watch", "--help"], env={"COLUMNS": "300"}).output
    assert [option for option in options if option not in known] == []
    assert options["--prometheus"] == "http://fairlead-prometheus:9090"
    assert int(options["--metrics-port"]) == container(made, "loop")["ports"][0]["containerPort"]
    text = named(made, "ConfigMap", "fairlead-loop")["data"]["profile.yaml"]
    assert yaml.safe_load(text) == yaml.safe_load(named(made, "ConfigMap", "fairlead-keeper")["data"]["profile.yaml"])
    (tmp_path / "profile.yaml").write_text(text)
    profile = load_cluster_profile(str(tmp_path / "profile.yaml"))
    assert profile.cluster is not None
    assert (profile.cluster.namespace, profile.predictions) == ("spaces", "s3://fairlead/predictions")
    assert profile.cluster.salt.name == "fairlead-predictions"


def test_policies_are_changed_by_value_as_a_person_would_type_it() -> None:
    from contracts.loop_policy import LoopPolicy
    from deploy.cli.loop.watch import _changed, _overrides

    command = container(render("platform", files=(FULL,)), "loop")["command"]
    given = [command[at + 1] for at, word in enumerate(command) if word == "--set"]
    policy = _changed(LoopPolicy(), _overrides(given))
    assert (policy.approval, policy.schedule, policy.settings) == (True, "0 3 * * 1", {"split.train_days": 30})
    assert command[command.index("--prometheus") + 1] == "http://prometheus.monitoring:9090"


def test_who_watches_models_may_look_at_runs_and_change_nothing() -> None:
    made = render("platform")
    assert rights(made, "Role", "fairlead-loop") == rights(made, "Role", "fairlead-keeper")
    assert "fairlead-monitor" not in {each["metadata"]["name"] for each in of_kind(made, "Role")}
    for part, token in (("loop", True), ("monitor", False)):
        spec = dict(pods(made))[f"Deployment/fairlead-{part}"]["spec"]
        assert spec["automountServiceAccountToken"] is token
        assert named(made, "Deployment", f"fairlead-{part}")["spec"]["strategy"] == {"type": "Recreate"}


def test_skew_is_measured_daily_by_a_pod_that_has_what_the_command_needs(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from deploy.cli.app import app

    made = render("platform", files=(FULL,))
    job = named(made, "CronJob", "fairlead-skew")["spec"]
    assert (job["schedule"], job["concurrencyPolicy"]) == ("17 2 * * *", "Forbid")
    pod = dict(pods(made))["CronJob/fairlead-skew"]
    (one,) = containers(pod)
    command = one["command"][one["command"].index("python") :]
    assert command[1:6] == ["-m", "deploy.cli", "monitor", "--all", "--skew"]
    options = dict(zip(command[6::2], command[7::2], strict=True))
    known = CliRunner().invoke(app, ["monitor", "--help"], env={"COLUMNS": "300"}).output
    assert set(options) == {"--rows", "--profile"}
    assert [option for option in options if option not in known] == []
    profile = named(made, "ConfigMap", "fairlead-skew")["data"]["profile.yaml"]
    (tmp_path / "profile.yaml").write_text(profile)
    found = load_cluster_profile(str(tmp_path / "profile.yaml"))
    assert (found.predictions, found.features) == ("s3://fairlead/predictions", "s3://fairlead/features")
    model = environment(containers(dict(pods(made))["Deployment/fairlead-demo"])[-1])
    name = "FAIRLEAD_SERVICE_PREDICTIONS__SALT"
    assert environment(one)[name] == model[name], "hashes of keys are found by the salt that they were made with"


@pytest.mark.parametrize(("code", "end"), [(0, 0), (3, 0), (1, 1), (2, 1)])
def test_a_job_that_found_skew_has_done_its_work_and_one_that_failed_has_not(code: int, end: int) -> None:
    (one,) = containers(dict(pods(render("platform")))["CronJob/fairlead-skew"])
    start = one["command"][: one["command"].index("python")]
    done = subprocess.run([*start, "sh", "-c", f"exit {code}"], check=False)
    assert done.returncode == end


def test_who_measures_skew_has_no_right_in_the_cluster_and_reaches_two_servers() -> None:
    made = render("platform")
    spec = dict(pods(made))["CronJob/fairlead-skew"]["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert "fairlead-skew" not in {each["metadata"]["name"] for each in of_kind(made, "Role")}
    assert table().edges("skew") == {("s3", 9000), ("mlflow", 5000)}


@pytest.mark.parametrize(
    "values", [{"skew": {"enabled": False}}, {"monitor": {"enabled": False}}, {"feature-store": {"enabled": False}}]
)
def test_skew_is_measured_where_it_is_exported_and_there_are_features(values: dict[str, Any]) -> None:
    assert "CronJob/fairlead-skew" in {name for name, _ in pods(render("platform"))}
    assert not [name for name, _ in pods(render("platform", values)) if name.endswith("-skew")]


@pytest.mark.parametrize("part", ["monitor", "loop"])
def test_helm_test_tries_what_they_reach_from_a_pod_with_their_labels(part: str) -> None:
    made = dict(pods(render("platform")))
    real = made[f"Deployment/fairlead-{part}"]["metadata"]["labels"]
    assert {**made[f"Pod/fairlead-edges-{part}"]["metadata"]["labels"], "fairlead.io/metrics": "true"} == real
    targets = environment(containers(made["Pod/fairlead-check"])[0])["TARGETS"]
    assert part in targets.split(","), "and that its metrics are read"


@pytest.mark.parametrize("part", ["monitor", "loop"])
def test_the_operators_prometheus_finds_their_metrics(part: str) -> None:
    made = render("platform", apis=OPERATOR)
    monitor = named(made, "PodMonitor", "fairlead-monitoring")["spec"]
    pod = dict(pods(made))[f"Deployment/fairlead-{part}"]
    assert monitor["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert monitor["podMetricsEndpoints"][0]["port"] in {each["name"] for each in container(made, part)["ports"]}
    if part == "loop":  # the Prometheus of the release is not there
        assert "--prometheus" not in container(made, part)["command"]
        egress = named(made, "NetworkPolicy", "fairlead-loop")["spec"]["egress"]
        assert 9090 not in {port["port"] for rule in egress for port in rule["ports"]}


@pytest.mark.parametrize(
    ("values", "there"),
    [
        ({}, {"monitor", "loop"}),
        ({"loop": {"enabled": False}}, {"monitor"}),
        ({"monitor": {"enabled": False}}, {"loop"}),
        ({"pipelines": {"enabled": False}}, {"monitor"}),  # there is nothing to start runs in
    ],
)
def test_each_can_be_left_out(values: dict[str, Any], there: set[str]) -> None:
    named_ = {name for name, _ in pods(render("platform", values))}
    for part in ("monitor", "loop"):
        assert (f"Deployment/fairlead-{part}" in named_) is (part in there)
        assert (f"Pod/fairlead-edges-{part}" in named_) is (part in there)


def _silent(made: list[Object]) -> str:
    rules = yaml.safe_load(named(made, "ConfigMap", "fairlead-prometheus")["data"]["monitors.yaml"])
    (alert,) = [rule for rule in rules["groups"][0]["rules"] if rule["alert"] == "FairleadMonitorSilent"]
    return " ".join(str(alert["expr"]).split())


def test_every_model_must_be_watched_where_the_monitor_is() -> None:
    assert "[1h]) > 0) == 1 unless" in _silent(render("platform"))
    small = render("platform", files=(MINIMAL,))
    assert "[1h]) > 0) == 0 unless" in _silent(small)
    assert not [name for name, _ in pods(small) if name.endswith(("-monitor", "-loop"))]
    large = render("platform", files=(PRODUCTION,))
    assert {"Deployment/fairlead-monitor", "Deployment/fairlead-loop"} <= {name for name, _ in pods(large)}
