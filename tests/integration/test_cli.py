"""The command line as people use it: the demo from nothing to answers, then everything one does with its model."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from contracts.ports import free_port
from tests.shell import Shell, documents

pytestmark = pytest.mark.integration

PAYMENT = {"customer_id": "C000001", "terminal_id": "T000001", "amount": 20.0, "event_time": "2024-04-23T12:00:00Z"}
ENTITY = ("--entity", "customer_id=C000001", "--entity", "terminal_id=T000001")


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    return Shell(tmp_path_factory.mktemp("cli") / "home")


@pytest.fixture(scope="module")
def demo(shell: Shell) -> dict[str, Any]:
    """The JSON of one demo; the tests below go on with its home."""
    document: dict[str, Any] = shell.json("demo", "--requests", "200")
    return document


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_the_demo_answers_every_request_and_is_better_than_chance(demo) -> None:
    assert demo["requests"]["answered"] == demo["requests"]["sent"] == 200
    quality = demo["quality"]
    low, high = quality["intervals"]["average_precision"]
    assert quality["prevalence"] < low < quality["metrics"]["average_precision"] < high
    assert 0 < demo["latency_ms"]["p50"] <= demo["latency_ms"]["p95"] <= demo["latency_ms"]["p99"]
    assert Path(demo["model_card"]).read_text().startswith("<!")
    assert demo["mlflow_url"].startswith("http://127.0.0.1:5000/#/experiments/")


def test_the_demo_ends_by_itself_and_leaves_no_server(demo) -> None:
    assert not listens(int(demo["endpoint"]["url"].rsplit(":", 1)[1]))
    with pytest.raises(ProcessLookupError):
        os.kill(demo["endpoint"]["pid"], 0)


def test_a_second_demo_comes_from_the_cache_and_shows_tables_that_fit(shell, demo) -> None:
    said = shell("demo", "--requests", "40")
    assert "= train" in said
    assert "unchanged, from the cache" in said
    assert "40 of 40 answered" in said
    assert "times a random ranking" in said
    tables = [line for line in said.splitlines() if not line.startswith(("Try", "MLflow", "Card", "Docs", "Metrics"))]
    assert max(map(len, tables)) <= 100


def test_the_model_is_the_champion_and_the_run_is_listed(shell, demo) -> None:
    (first, *_rest) = reversed(shell.json("models", "fraud"))
    assert first["gate_passed"] is True
    runs = {run["run_id"]: run for run in shell.json("runs")}
    assert runs[demo["run"]]["status"] == "succeeded"
    shown = shell("runs", demo["run"])
    assert "Gate passed" in shown
    assert "fairlead serve fraud" in shown


def test_a_prediction_here_is_the_one_of_the_endpoint(shell, demo) -> None:
    port = free_port()
    process = shell.start("serve", "fraud", "--port", str(port), "--json")
    try:
        served = documents(process)
        assert (served["model"], served["url"]) == ("fraud", f"http://127.0.0.1:{port}")
        there = shell.json("predict", "fraud", "--input", json.dumps(PAYMENT), "--url", served["url"], "--explain")
        with urllib.request.urlopen(served["metrics_url"]) as response:
            assert b"fairlead_predictions_total" in response.read()
        other = shell.json(
            "predict", "fraud", "-i", json.dumps({**PAYMENT, "customer_id": "C2"}), "--url", served["url"]
        )
        ids = [answer["predictions"][0]["id"] for answer in (there, other)]
        label = {"id": ids[0], "label": "fraud", "time": "2026-01-01T00:00:00Z"}
        body, headers = json.dumps({"labels": [label]}).encode(), {"content-type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(f"{served['url']}/feedback", body, headers)) as response:
            assert json.load(response)["accepted"] == 1
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert not listens(port)
    here = shell.json("predict", "fraud", "--input", "-", "--explain", stdin=json.dumps([PAYMENT]))
    for answer in (there, here):
        answer["predictions"][0].pop("id")
    assert here == there
    assert here["predictions"][0]["reasons"]
    labels = f"id,label,time\n{ids[0]},genuine,2026-01-02T00:00:00Z\n{ids[1]},fraud,\n{'0' * 32},fraud,\n"
    (shell.home.parent / "labels.csv").write_text(labels)
    told = shell.json("labels", "fraud", "--source", "labels.csv")
    assert (told["joined"], told["corrected"], told["unknown"]) == (2, 1, 1)
    gone = shell.json("predictions", "forget", "fraud", *ENTITY)
    assert (gone["predictions"] >= 1, gone["labels"]) == (True, 2)
    (day,) = shell.json("predictions", "list", "fraud")["days"]
    assert day["labels"] == 1


def test_a_file_of_a_past_run_is_scored_once_into_a_new_folder(shell, demo) -> None:
    source = next((shell.home / "data" / "fraud").glob("*/part-00000.parquet"))
    told = shell.json("score", "fraud", "--source", str(source), "--out", "scored")
    scored = parquet.read_table([*sorted((shell.home.parent / "scored").glob("part-*.parquet"))])
    assert told["rows"] == parquet.read_metadata(source).num_rows == sum(told["labels"].values())
    assert scored.column("transaction_id").equals(parquet.read_table(source).column("transaction_id"))
    shell("score", "fraud", "--source", str(source), "--out", "scored", code=1)


def test_a_wrong_row_is_refused_with_its_field(shell, demo) -> None:
    error = shell.json("predict", "fraud", "-i", '{"amount": "much"}', code=1)["error"]
    assert error["code"] == "invalid_input"
    assert "instances[0].customer_id: missing" in error["detail"]


def test_a_port_in_use_is_said_before_anything_starts(shell, demo) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        assert shell.json("serve", "fraud", "--port", str(port), code=1)["error"]["code"] == "port_in_use"


def test_a_refused_model_ends_with_3_and_needs_a_reason(shell, demo) -> None:
    strict = 'gate.thresholds=[{"metric": "average_precision", "minimum": 0.999}]'
    report = shell.json("run", "fraud", "--set", strict, code=3)
    assert report["status"] == "refused"
    assert {report["steps"][name]["status"] for name in ("validate", "materialise", "build_dataset")} == {"cached"}
    ref = f"fraud:{report['result']['version']}"
    assert "average_precision" in shell.json("promote", ref, code=3)["error"]["detail"]
    promoted = shell.json("promote", ref, "--override", "to see how it goes back")
    assert promoted["champion"]["version"] == report["result"]["version"]
    back = shell.json("rollback", "fraud")
    assert back["champion"]["version"] == promoted["previous"]["version"]
    comparison = shell.json("compare", "fraud@champion", ref)
    assert comparison["metrics"]["average_precision"]["difference"] == 0
    assert [gate["passed"] for gate in comparison["gates"]] == [True, False]


def test_doctor_finds_a_healthy_home(shell, demo) -> None:
    found = {check["check"]: check for check in shell.json("doctor")["checks"]}
    assert found["registry"]["level"] == "ok"
    assert found["leftovers"]["level"] == "ok"


def test_the_mlflow_page_comes_up_and_goes_away(shell, demo) -> None:
    port = free_port()
    process = shell.start("ui", "--port", str(port), "--json")
    try:
        with urllib.request.urlopen(documents(process)["mlflow_url"]) as response:
            assert response.status == 200
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert not listens(port)


def test_a_stopped_run_says_how_to_resume_and_goes_on_from_there(shell) -> None:
    process = shell.start("run", "news")
    runs = shell.home / "runs"
    while not _finished(runs, "news", "build_dataset"):
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 130
    run = next(runs.glob("news-*")).name
    assert f"fairlead run --resume {run}" in complaint
    assert shell.json("runs", run)["status"] in ("failed", "dead")
    report = shell.json("run", "--resume", run)
    assert report["run_id"] == run
    assert report["steps"]["validate"]["status"] == "cached"
    assert report["result"]["champion"] is True
    assert "cannot resume" in shell.json("run", "--resume", run, code=1)["error"]["headline"]


def _finished(runs: Path, task: str, step: str) -> bool:
    for file in runs.glob(f"{task}-*/run.json"):
        if json.loads(file.read_text())["steps"][step]["status"] == "finished":
            return True
    return False


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("run", "frod"), "unknown_task", "fraud"),
        (("run", "fraud", "--recipe", "none"), "unknown_recipe", "lightgbm"),
        (("run", "fraud", "--set", "model.round=5"), "bad_config", "rounds"),
        (("run", "fraud", "--source", "nothing.csv"), "bad_source", ""),
        (("serve", "nothing"), "unknown_model", ""),
        (("runs", "--profile", "nowhere"), "unknown_profile", "local"),
    ],
)
def test_a_slip_is_answered_with_what_is_accepted(shell, arguments, code, complaint) -> None:
    error = shell.json(*arguments, code=1)["error"]
    assert error["code"] == code
    assert complaint in error["detail"]
    assert error["fix"]
