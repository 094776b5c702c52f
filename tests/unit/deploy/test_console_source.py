from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from contracts.audit import AuditLog
from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from deploy.cli.console.home_source import HomeSource
from deploy.cli.console.live import Prometheus, quantile, totals
from deploy.cli.console.releases import Machine
from deploy.cli.console.serve import ConsoleOptions, model_keys, pairs, run_console, session_secret
from deploy.cli.console.watched import NO_WINDOW, UNREADABLE
from deploy.cli.loop.watch import loop_place
from services.console.documents import Bars, Loop
from services.controller.state import States, WatchState
from tests.console_home import register

PAYMENTS = Path(__file__).parents[2] / "version_1" / "payments"
NOWHERE = "http://127.0.0.1:9"


def source(home: Path, at: str = NOWHERE, **more: Any) -> HomeSource:
    served = Machine("local", dict.fromkeys(("payments", "other"), at))
    return HomeSource(Endpoints(home=str(home)), served=served, steer=print, **more)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    bundle = tmp_path / "bundle"
    shutil.copytree(PAYMENTS, bundle)
    document = json.loads((bundle / "bundle.json").read_text())
    document["metrics"] = {"roc_auc": 0.9}
    document["files"]["card.html"] = "0" * 64
    (bundle / "bundle.json").write_text(json.dumps(document))
    (bundle / "card.html").write_text("<!doctype html><title>card</title>")
    (bundle / "evaluation.json").write_text(json.dumps({"primary": "roc_auc", "intervals": {"roc_auc": [0.8, 0.95]}}))
    inputs = {"amount": {"kind": "number", "edges": [0, 1, 2], "shares": [0.5, 0.5]}, "odd": 3}
    (bundle / "baseline.json").write_text(json.dumps({"inputs": inputs}))
    register(tmp_path / "home", {"payments": [bundle, bundle]})
    return tmp_path / "home"


def write(file: Path, document: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(document if isinstance(document, str) else json.dumps(document))


def test_an_empty_home_has_nothing_and_makes_nothing(tmp_path):
    made = source(tmp_path / "none")
    assert (made.models(), made.runs(10), made.rollouts(), made.alerts(), made.audit(1, 10)) == ([], [], [], None, None)
    assert not (tmp_path / "none").exists()


def test_a_model_with_its_bundle(home):
    (one,) = source(home).models()
    assert (one.name, one.version, one.latest, one.problem) == ("payments", "2", "2", "")
    assert one.quality is not None
    assert (one.quality.metric, one.quality.value, one.quality.low) == ("roc_auc", 0.9, 0.8)
    assert one.live.up is False
    assert one.drifted is None
    page = source(home).model("payments")
    assert page is not None
    assert [version.version for version in page.versions] == ["2", "1"]
    assert page.signature is not None
    assert [(one.name, one.now) for one in page.drift] == [("amount", None)]
    assert source(home).bundle_file("payments", "2", "card.html") == b"<!doctype html><title>card</title>"
    assert source(home).bundle_file("payments", "2", "golden.jsonl") is None
    assert source(home).bundle_file("payments", "2", "../bundle.json") is None
    assert source(home).model("unknown") is None


@pytest.mark.parametrize("damage", ["gone", "{", '{"schema_version": 9}', "\xff"])
def test_a_bundle_that_is_gone_or_damaged_is_said_and_the_rest_stays(home, damage):
    if damage == "gone":
        shutil.rmtree(home.parent / "bundle")
    else:
        (home.parent / "bundle" / "bundle.json").write_bytes(damage.encode("latin-1"))
    (one,) = source(home).models()
    assert "bundle" in one.problem
    page = source(home).model("payments")
    assert page is not None
    assert page.signature is None
    assert page.versions[0].metrics == {"roc_auc": 0.9}


def test_a_new_version_is_seen_at_the_next_look(home):
    made = source(home)
    assert len(made.models()) == 1
    register(home, {"second": [home.parent / "bundle"]})
    assert [one.name for one in made.models()] == ["payments", "second"]


COUNTRY = {
    "kind": "category", "drifted": False, "psi": 0.01, "js": 0.001, "missing": 0, "new_or_out_of_range": 0.1,
    "bins": ["(missing)", "AT", "DE"], "then": [0, 0.5, 0.5], "now": [0, 0.4, 0.6],
}  # fmt: skip
AMOUNT = {"kind": "number", "drifted": True, "psi": 0.4, "bins": ["a"], "then": [0.5, 0.5]}
QUALITY = {"metric": "roc_auc", "slice": "", "value": 0.8, "low": 0.7, "high": 0.9, "rows": 50, "dropped": True}
REPORT = {
    "versions": {
        "2": {
            "rows": 1200,
            "newest": "2026-11-29T12:00:00+00:00",
            "reference": "the bundle's baseline",
            "quality": [{"metric": "f1", "slice": "night", "value": 0.4}, QUALITY, 7],
            "inputs": {"country": COUNTRY, "amount": AMOUNT, "odd": "text"},
        }
    }
}


def test_the_report_of_the_monitor_is_shown_with_what_drifts_first(home):
    write(home / "predictions" / "payments" / "monitor" / "report.json", REPORT)
    (one,) = source(home).models()
    assert (one.watched, one.drifted, one.drifted_inputs) == (3, 1, ["amount"])
    page = source(home).model("payments")
    assert page is not None
    assert [drift.name for drift in page.drift] == ["amount", "country", "odd"]
    assert page.drift[0].then is None
    assert page.drift[1].new_categories == 0.1
    assert page.drift[1].now == Bars(labels=["AT", "DE"], shares=[0.4, 0.6])
    assert [(one.metric, one.part) for one in page.quality] == [("roc_auc", ""), ("f1", "night")]
    assert one.live_quality == page.quality[0]
    assert "1,200" in page.drift_window


HISTORY = {
    "versions": {
        "demo": {
            "digest": "d" * 12,
            "quality": [
                {"begin": "2026-11-28T00:00:00+00:00", "seconds": 86400, "rows": 900, "metrics": [QUALITY, 7]},
                {"begin": "2026-11-29T00:00:00+00:00", "metrics": []},
                "odd",
            ],
            "drift": [
                {"time": "2026-11-28T00:00:00+00:00", "psi": {"amount": 0.1, "odd": "x"}},
                {"time": "2026-11-29T00:00:00+00:00", "psi": {"amount": 0.2}},
                {"psi": 3},
            ],
        }
    }
}


def test_how_it_was_is_shown_over_time_also_of_a_release_that_calls_the_version_otherwise(home):
    folder = home / "predictions" / "payments" / "monitor"
    write(folder / "report.json", REPORT)
    write(folder / "history.json", HISTORY)
    page = source(home).model("payments")
    assert page is not None
    (window,) = page.windows
    assert (window.hours, window.rows, window.measures[0].high) == (24, 900, 0.9)
    assert [value for _, value in page.drift[0].past] == [0.1, 0.2]
    assert page.drift[1].past == ()
    for broken in ("{", "[]", '{"versions": {"2": {"quality": 3, "drift": {}}}}'):
        write(folder / "history.json", broken)
        page = source(home).model("payments")
        assert page is not None
        assert not page.windows


@pytest.mark.parametrize(
    ("document", "problem"),
    [("{", UNREADABLE), ([], UNREADABLE), ({"versions": 3}, UNREADABLE), ({"versions": {"1": {}}}, NO_WINDOW),
     ({"versions": {"2": {"inputs": []}}}, NO_WINDOW)],
)  # fmt: skip
def test_a_report_that_says_nothing_leaves_the_training_data(home, document, problem):
    write(home / "predictions" / "payments" / "monitor" / "report.json", document)
    page = source(home).model("payments")
    assert page is not None
    assert page.drift_problem == problem
    assert [drift.name for drift in page.drift] == ["amount"]


def test_rollouts_are_shown_and_odd_ones_left_out(home):
    said = {"model": "payments", "phase": "running", "champion": "1", "candidate": "2", "strategy": "canary",
            "began": 1.8e9, "reasons": ["waits"], "paused": True,
            "transitions": [{"at": 1.8e9, "action": "advance", "weight": 25.0, "reason": "good"}]}  # fmt: skip
    write(home / "rollouts" / "payments.json", {"rollout": said})
    write(home / "rollouts" / "odd.json", "{")
    write(home / "rollouts" / "none.json", {"rollout": None})
    (one,) = source(home).rollouts()
    assert (one.phase, one.weights) == ("paused", {"1": 0.75, "2": 0.25})
    assert one.events[0][1:] == ("advance", "good")
    assert source(home).models()[0].rollout == one


def test_what_the_controller_does_is_shown_and_a_broken_state_left_out(home):
    states = States(loop_place(Endpoints(home=str(home))))
    moment = datetime(2026, 11, 30, tzinfo=UTC)
    states.write(WatchState(model="payments", task="payments", since=moment, phase="asking", reason="amount drifts"))
    page = source(home).model("payments")
    assert page is not None
    assert page.loop == Loop(phase="asking", reason="amount drifts")
    write(home / "bundles" / ".loop" / "payments" / "state.json", "{")
    page = source(home).model("payments")
    assert page is not None
    assert page.loop is None


def test_runs_with_their_steps_and_why_they_failed(home):
    record = {
        "run_id": "r", "status": "failed", "asked": {"task": "houses", "workflow": "full", "recipe": "linear"},
        "started": "2026-11-29T11:00:00+00:00", "seconds": 3.5, "result": None,
        "steps": {"ingest": {"status": "finished", "seconds": 1.0, "result": {"rows": 1000, "path": "/x", "left": {}}},
                  "train": {"status": "failed", "seconds": None}},
        "error": {"headline": "no memory", "detail": "2 GiB", "fix": "more"},
    }  # fmt: skip
    write(home / "runs" / "houses-1" / "run.json", record)
    write(home / "runs" / "houses-2" / "run.json", "{")
    (one,) = source(home).runs(10)
    assert (one.run_id, one.task, one.status, one.error) == ("houses-1", "houses", "failed", "no memory")
    page = source(home).run("houses-1")
    assert page is not None
    assert page.steps[0].facts == [("rows", "1,000")]
    assert page.steps[1].needs == ["ingest"]
    assert page.error is not None
    assert page.error.fix == "more"
    assert source(home).run("houses") is None
    assert source(home).run("../houses-1") is None


def test_the_audit_log_is_paged_and_its_chain_checked(home):
    log = AuditLog.of(Endpoints(home=str(home)).resolved())
    for number in range(5):
        log.append(actor="user:mara", action="promote", subject=f"payments:{number}", evidence={"gate": True})
    page = source(home).audit(2, 2)
    assert page is not None
    assert ([entry.sequence for entry in page.entries], page.total, page.intact) == ([3, 2], 5, True)
    file = home / "bundles" / ".audit" / "audit.jsonl"
    file.write_text(file.read_text().replace("payments:1", "payments:9"))
    page = source(home).audit(1, 2)
    assert page is not None
    assert page.intact is False
    assert page.broken.startswith("2: ")


def value(number: float) -> dict[str, object]:
    return {"data": {"result": [{"metric": {"model": "payments"}, "value": [0, str(number)]}]}}


def test_numbers_and_alerts_of_prometheus(home, serve):
    alert = {"labels": {"alertname": "Slow", "severity": "warning", "model": "payments"}, "state": "pending",
             "annotations": {"summary": "slow", "runbook_url": "javascript:alert(1)"},
             "activeAt": "2026-11-29T11:00:00.5Z"}  # fmt: skip
    firing = {**alert, "state": "firing", "annotations": {"runbook_url": "https://runbook.example/#Slow"}}
    url = serve(
        {
            r"query=max": value(0.99),
            r"query=.*increase.*5\.\.": value(4),
            r"query=.*increase": value(1000),
            r"query=.*idle_cost": value(1.5),
            r"query=.*fairlead_cost": {
                "data": {"result": [{"metric": {"model": "payments", "currency": "CHF"}, "value": [0, "4.5"]}]}
            },
            "/api/v1/query": value(2),
            "/api/v1/alerts": {"data": {"alerts": [alert, firing]}},
        }
    )
    made = source(home, prometheus=Prometheus(url))
    (one,) = made.models()
    assert (one.live.up, one.live.requests_per_second, one.live.objective, one.alerts) == (True, 2, 0.99, 2)
    assert one.live.budget_left == pytest.approx(0.6)
    assert (one.live.cost_per_day, one.live.idle_cost_per_day, one.live.currency) == (4.5, 1.5, "CHF")
    found = made.alerts()
    assert found is not None
    assert [(one.state, one.runbook) for one in found] == [("firing", "https://runbook.example/#Slow"), ("pending", "")]


def test_a_prometheus_that_is_away_leaves_numbers_unknown_and_says_so_among_alerts(home):
    made = source(home, prometheus=Prometheus(NOWHERE))
    (one,) = made.models()
    assert (one.live.up, one.live.requests_per_second, one.alerts) == (False, None, None)
    with pytest.raises(PlatformError, match="Prometheus does not answer"):
        made.alerts()
    with pytest.raises(PlatformError, match="not an address"):
        Prometheus("localhost:9090")


METRICS = """
# TYPE fairlead_model_info gauge
fairlead_model_info{model="payments",version="2"} 1
# TYPE fairlead_requests_total counter
fairlead_requests_total{model="payments",route="/predict",code="200"} 98
fairlead_requests_total{model="payments",route="/predict",code="503"} 2
fairlead_requests_total{model="payments",route="/metrics",code="200"} 50
# TYPE fairlead_request_duration_seconds histogram
fairlead_request_duration_seconds_bucket{model="payments",route="/predict",le="0.01"} 90
fairlead_request_duration_seconds_bucket{model="payments",route="/predict",le="0.1"} 100
fairlead_request_duration_seconds_bucket{model="payments",route="/predict",le="+Inf"} 100
"""


def test_without_prometheus_the_endpoint_says_its_numbers(home, serve):
    url = serve({"/metrics": METRICS})
    (one,) = source(home, url).models()
    assert (one.live.up, one.live.requests, one.live.errors, one.live.since_start) == (True, 100, 0.02, True)
    assert one.live.p99_seconds == pytest.approx(0.091)
    assert one.live.requests_per_second is None


def test_metrics_that_are_none_say_nothing():
    assert totals("<html>") == {}
    assert quantile(0.99, []) is None
    assert quantile(0.5, [(1.0, 0.0), (float("inf"), 10.0)]) == 1.0


def test_an_answer_of_another_model_is_not_shown_as_this_one(home, serve):
    body = {"model": "payments", "version": "2", "predictions": [{"label": "fraud"}]}
    made = source(home, serve({"/predict": body}))
    assert made.predict("payments", {"amount": 1}, False, "").prediction == {"label": "fraud"}
    other = made.predict("other", {"amount": 1}, True, "")
    assert (other.status, other.fix) == (502, "fairlead serve other")
    away = source(home).predict("payments", {}, False, "")
    assert (away.status, away.fix) == (0, "fairlead serve payments")


def test_everybody_may_only_look_with_keys():
    with pytest.raises(PlatformError, match="answer everybody") as refused:
        run_console("local", "0.0.0.0", 8600, ConsoleOptions(), False)
    assert "--keys" in refused.value.fix


def test_options_with_a_name_and_an_address():
    assert pairs(["Grafana=http://g:3000/"], "--link") == {"Grafana": "http://g:3000"}
    with pytest.raises(PlatformError, match="no NAME=URL"):
        pairs(["javascript=javascript:alert(1)"], "--link")


def test_sessions_are_signed_by_a_file_that_is_long_enough(tmp_path):
    assert session_secret("") == b""
    (tmp_path / "good").write_text("x" * 32 + "\n")
    assert session_secret(str(tmp_path / "good")) == b"x" * 32
    (tmp_path / "short").write_text("x")
    for name in ("short", "none"):
        with pytest.raises(PlatformError, match="signs sessions") as refused:
            session_secret(str(tmp_path / name))
        assert "openssl rand" in refused.value.fix


def test_each_endpoint_gets_its_own_key(tmp_path, monkeypatch):
    monkeypatch.setenv("FAIRLEAD_API_KEY", "shared")
    (tmp_path / "payments").write_text("its-own\n")
    key = model_keys(str(tmp_path))
    assert [key("payments"), key("other"), key("../payments")] == ["its-own", "shared", "shared"]
