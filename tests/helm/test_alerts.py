"""Rules and dashboards: of metrics that exist; each alert with a case that fires, a quiet one, and a page to read."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.request
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from contracts.ports import free_port
from services.controller.signals import ALERTS
from tests.helm.chart import OPERATOR, named, of_kind, render
from tests.helm.program import CHARTS, find, helm
from tests.helm.promql import FOREIGN, complaints, metrics

CASES = sorted((Path(__file__).parent / "alerts").glob("*.yaml"))
DASHBOARDS = sorted((CHARTS / "monitoring" / "dashboards").glob("*.json"))
MINIMAL = CHARTS / "model-service" / "ci" / "minimal-values.yaml"
Groups = list[dict[str, Any]]


@lru_cache(maxsize=8)
def own(values: str = "{}") -> dict[str, Groups]:
    """Groups of every file of rules of our own Prometheus, as the chart renders them with `values`."""
    data = named(render("monitoring", json.loads(values)), "ConfigMap", "fairlead-prometheus")["data"]
    return {name: yaml.safe_load(text)["groups"] for name, text in data.items() if name != "prometheus.yml"}


@lru_cache(maxsize=1)
def files() -> dict[str, Groups]:
    """Those of our own Prometheus, those that only the operator's has, and those of a release."""
    found = own(json.dumps({"prices": {"coreHour": 1}}))  # with those that need prices
    assert found == {**own(), "costs.yaml": found["costs.yaml"]}
    for each in of_kind(render("monitoring", apis=OPERATOR), "PrometheusRule"):
        found.setdefault(
            each["metadata"]["name"].removeprefix("fairlead-monitoring-") + ".yaml", each["spec"]["groups"]
        )
    objects = render("model-service", {"fullnameOverride": "fraud"}, files=(MINIMAL,))
    (text,) = named(objects, "ConfigMap", "fraud-rules")["data"].values()
    return {**found, "release.yaml": yaml.safe_load(text)["groups"]}


def rules() -> list[dict[str, Any]]:
    """Every rule of every file."""
    return [rule for groups in files().values() for group in groups for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    """Every alert by its name."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def recorded() -> set[str]:
    """Names of everything that rules record."""
    return {rule["record"] for rule in rules() if "record" in rule}


def test_rules_ask_for_metrics_and_labels_that_exist() -> None:
    assert complaints([rule["expr"] for rule in rules()], recorded()) == []


def test_what_is_read_of_an_expression_is_what_prometheus_reads() -> None:
    read = metrics(
        'sum by (a) (rate(x_total{code=~"5..",b!="y_total"}[5m] offset 1h)) / on (a) q:z:rate5m > 0.5 unless w'
    )
    assert read == {"x_total": {"code", "b"}, "q:z:rate5m": set(), "w": set()}
    wrong = complaints(['sum by (modle) (fairlead_inflight_requests{cod="1"})', "fairlead_inflight"], ())
    assert [each.split(":")[0] for each in wrong] == ["fairlead_inflight_requests", "modle", "fairlead_inflight"]


def test_every_alert_has_a_page_a_case_that_fires_and_one_that_is_quiet() -> None:
    cases: dict[str, set[bool]] = {}
    for file in CASES:
        for test in yaml.safe_load(file.read_text(encoding="utf-8"))["tests"]:
            for case in test.get("alert_rule_test", []):
                cases.setdefault(case["alertname"], set()).add(bool(case["exp_alerts"]))
    runbook = (CHARTS.parent / "docs" / "runbook.md").read_text(encoding="utf-8")
    sections = re.findall(r"^### (\w+)$", runbook, re.MULTILINE)
    assert sorted(sections) == sorted(alerts())
    assert cases == {name: {True, False} for name in alerts()}


@pytest.mark.parametrize("file", CASES, ids=lambda file: file.stem)
def test_alerts_fire_when_they_should_and_only_then(file: Path, tmp_path: Path) -> None:
    case = yaml.safe_load(file.read_text(encoding="utf-8"))
    values = case.pop("values", {})
    written = own(json.dumps(values)) if values else files()
    given = {series["series"].partition("{")[0] for test in case["tests"] for series in test["input_series"]}
    for name in case["rule_files"]:
        groups = json.loads(json.dumps(written[name]))
        for group in groups:
            group["rules"] = [rule for rule in group["rules"] if rule.get("record") not in given]
            for rule in group["rules"]:
                rule.pop("annotations", None)  # promtool would compare every word
        (tmp_path / name).write_text(yaml.safe_dump({"groups": groups}))
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(case))
    done = helm("test", "rules", str(tmp_path / "test.yaml"), program="promtool")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", sorted(alerts()) if find("helm") else [])
def test_an_alert_says_how_bad_it_is_what_to_do_and_where_to_read_more(name: str) -> None:
    rule = alerts()[name]
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    address = urlsplit(rule["annotations"]["runbook_url"])
    assert (Path(address.path).name, address.fragment) == ("runbook.md", name)
    assert not re.search(r"@\w+@|\[\[", json.dumps(rule)), "a word of the chart was not filled in"


def test_the_loop_answers_alerts_that_name_a_model() -> None:
    for name in ALERTS:
        assert re.search(r"by \([^)]*\bmodel\b", alerts()[name]["expr"]), name


def test_either_prometheus_knows_which_targets_are_the_platforms() -> None:
    objects = render("monitoring", apis=OPERATOR)
    (monitor,) = of_kind(objects, "PodMonitor")
    job = f"{monitor['metadata']['namespace']}/{monitor['metadata']['name']}"
    (found,) = [each for each in of_kind(objects, "PrometheusRule") if each["metadata"]["name"].endswith("-platform")]
    down = next(
        rule for group in found["spec"]["groups"] for rule in group["rules"] if "Target" in rule.get("alert", "")
    )
    assert down["expr"] == f'up{{job="{job}"}} == 0'
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert {each["targetLabel"] for each in endpoint["relabelings"]} == {"release", "component"}
    assert alerts()["FairleadTargetDown"]["expr"] == 'up{job="pods"} == 0'


def test_an_objective_lies_on_an_edge_of_the_histogram() -> None:
    text = json.dumps(own(json.dumps({"objectives": {"latencySeconds": 1, "availability": 0.9995}})))
    assert 'le=\\"1.0\\"' in text
    assert "14.4 * 0.0005" in text
    assert 'le=\\"0.5\\"' in json.dumps(own())


def expressions(file: Path) -> list[str]:
    """Every expression of a dashboard, with its variables filled in as Grafana does."""
    dashboard = json.loads(file.read_text(encoding="utf-8"))
    found = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    for each in dashboard["templating"]["list"]:
        if each["type"] == "query":
            found.append(re.sub(r"label_values\((.+), (\w+)\)", r"group by (\2) (\1)", each["query"]))
    return [re.sub(r"\$\w+", ".+", text.replace("$__rate_interval", "5m").replace("$__range", "1h")) for text in found]


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_a_dashboard_asks_for_metrics_that_exist_in_words_that_prometheus_reads(file: Path, tmp_path: Path) -> None:
    found = expressions(file)
    assert complaints(found, recorded()) == []
    records = [{"record": f"expression:number{i}", "expr": text} for i, text in enumerate(found)]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": records}]}))
    done = helm("check", "rules", str(tmp_path / "rules.yaml"), program="promtool")
    assert done.returncode == 0, done.stdout + done.stderr
    panels = json.loads(file.read_text(encoding="utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["title"] and panel["description"] for panel in panels)


def test_dashboards_are_told_apart_and_installed() -> None:
    read = [json.loads(file.read_text(encoding="utf-8")) for file in DASHBOARDS]
    assert len({each["uid"] for each in read}) == len({each["title"] for each in read}) == len(read) == 5
    data = named(render("monitoring"), "ConfigMap", "fairlead-dashboard")["data"]
    assert set(data) == {file.name for file in DASHBOARDS}


def configured(folder: Path, values: dict[str, Any] | None = None) -> Path:
    """Configuration and rules of our own Prometheus, written to `folder`."""
    for name, text in named(render("monitoring", values), "ConfigMap", "fairlead-prometheus")["data"].items():
        (folder / name).write_text(text.replace("/etc/prometheus", str(folder)))
    return folder / "prometheus.yml"


ALERTMANAGERS = {
    "alertmanagers": ["a.example:9093"],
    "alertmanagersAccess": {
        **{"scheme": "https", "pathPrefix": "/am", "existingSecret": "am"},
        **dict.fromkeys(("basicAuth", "ca", "clientCertificate"), True),
    },
    "alertmanager": {"enabled": True, "existingSecret": "receivers"},
}


@pytest.mark.parametrize("values", [{}, ALERTMANAGERS], ids=["plain", "alertmanagers"])
def test_prometheus_accepts_its_configuration_and_rules(values: dict[str, Any], tmp_path: Path) -> None:
    done = helm("check", "config", "--syntax-only", str(configured(tmp_path, values)), program="promtool")
    assert done.returncode == 0, done.stderr + done.stdout
    done = helm("check", "rules", *map(str, tmp_path.glob("*.yaml")), program="promtool")
    assert done.returncode == 0, done.stderr + done.stdout


@pytest.mark.integration
def test_a_real_prometheus_evaluates_every_rule_and_exports_what_they_ask_of_it(tmp_path: Path) -> None:
    program = find("prometheus")
    if not program:
        pytest.skip("prometheus is not on PATH, and FAIRLEAD_TEST_CLUSTER does not name a folder that has it")
    file = configured(tmp_path, {"alertmanagers": ["127.0.0.1:9"]})
    config = yaml.safe_load(file.read_text())
    config["scrape_configs"] = config["scrape_configs"][:1]  # the others need a cluster
    config["global"] = {"evaluation_interval": "1s"}
    file.write_text(yaml.safe_dump(config))
    for name, groups in files().items():
        if (tmp_path / name).exists():  # each group at once, not within its own interval
            at_once = [{key: value for key, value in group.items() if key != "interval"} for group in groups]
            (tmp_path / name).write_text(yaml.safe_dump({"groups": at_once}))
    place = f"127.0.0.1:{free_port()}"
    command = [program, f"--config.file={file}", f"--storage.tsdb.path={tmp_path}/d", f"--web.listen-address={place}"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            groups = _evaluated(f"http://{place}/api/v1/rules")
            text = urllib.request.urlopen(f"http://{place}/metrics").read().decode()
        finally:
            process.terminate()
    found = {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}
    assert set(found.values()) == {"ok"}, found
    assert len(found) > 40
    exported = set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))
    assert {name for name in FOREIGN if name.startswith("prometheus_")} <= exported


def _evaluated(address: str) -> Any:
    deadline = time.monotonic() + 60
    while True:
        assert time.monotonic() < deadline, "the rules were not evaluated within a minute"
        try:
            groups = json.load(urllib.request.urlopen(address))["data"]["groups"]
        except OSError:
            groups = []
        if groups and all(rule["health"] != "unknown" for group in groups for rule in group["rules"]):
            return groups
        time.sleep(0.2)
