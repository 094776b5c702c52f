"""The command line as people use it: the demo from nothing to answers, then everything one does with its model."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

import deploy
from contracts.metric_names import PREDICTIONS
from deploy.cli.project.scaffold import combinations
from tests.image_bundle import bar, encoded
from tests.packages import install_counts, install_visits

pytestmark = pytest.mark.integration

ROOT = Path(deploy.__file__).parents[1]
PAYMENT = {"customer_id": "C000001", "terminal_id": "T000001", "amount": 20.0, "event_time": "2024-04-23T12:00:00Z"}
ENTITY = ("--entity", "customer_id=C000001", "--entity", "terminal_id=T000001")


@dataclass(frozen=True)
class Shell:
    """Runs ``fairlead`` with a home of its own; `project` is where the packages come from."""

    home: Path
    project: Path = ROOT
    environment: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        own = {
            "FAIRLEAD_HOME": str(self.home),
            "PYTHONPATH": str(self.project),
            "COLUMNS": "100",
        }
        object.__setattr__(self, "environment", os.environ | own)

    def __call__(self, *arguments: str, code: int = 0, stdin: str | None = None) -> str:
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == code, f"{arguments} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def run(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "deploy.cli", *arguments],
            env=self.environment,
            cwd=self.home.parent,
            input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=400,
        )

    def json(self, *arguments: str, code: int = 0, stdin: str | None = None) -> Any:
        return json.loads(self(*arguments, "--json", code=code, stdin=stdin))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "deploy.cli", *arguments],
            env=self.environment,
            cwd=self.home.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    return Shell(tmp_path_factory.mktemp("cli") / "home")


@pytest.fixture(scope="module")
def demo(shell: Shell) -> dict[str, Any]:
    """The JSON of one demo; the tests below go on with its home."""
    document: dict[str, Any] = shell.json("demo", "--requests", "200")
    return document


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def documents(process: subprocess.Popen[str]) -> Any:
    """The JSON document that a command prints before it waits."""
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        if line == "}\n":
            break
    return json.loads(text)


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


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory, with_tables: Callable[[Path], Path]) -> Shell:
    """A copy of the project to write new tasks into."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("contracts", "pipelines", "services", "feature_repo", "deploy", "fairlead"):
        shutil.copytree(ROOT / name, folder / "project" / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder / "project")
    return Shell(with_tables(folder / "home"), folder / "project")


ROWS = {
    ("classification", "tabular"): {"customer_id": "C00001", "plan": "plus", "monthly_charge": 50, "support_calls": 6},
    ("multilabel", "tabular"): {
        "kind": "lathe", "temperature": 84.0, "vibration": 5.2, "oil_pressure": 2.4, "hours": 4000.0},
    ("regression", "tabular"): {"place": "lake", "area": 120.0, "rooms": 4, "built": 2015},
    ("classification", "text"): {"message": "The courier left my box outside and it rained on it."},
    ("multilabel", "text"): {"message": "The parcel came a week late. The box was torn open."},
    ("regression", "text"): {"description": "For sale: electric bike, hardly used, 2 years old. With the receipt"},
    ("embedding", "text"): {"question": "How do I change my address?"},
    ("classification", "image"): {"image": encoded(bar())},
    ("generation", "text"): {"report": "The pump in hall C leaks oil. Nobody was hurt. A spare part is in stock."},
}  # fmt: skip


def is_right(problem: str, answer: dict[str, Any]) -> bool:
    """Whether the answer to a row of `ROWS` is what anyone would say."""
    if problem == "classification":
        return answer["label"] in ("yes", "delivery", "bar")
    if problem == "multilabel":
        return set(answer["labels"]) in ({"bearing", "leak", "overheating"}, {"late", "damaged"})
    if problem == "regression":
        low, high = answer["interval"]
        return low <= answer["value"] <= high and 700 < answer["value"] < 1500
    if problem == "generation":
        return answer["text"].startswith("The pump in hall C leaks oil.")
    return sum(value * value for value in answer["embedding"]) == pytest.approx(1, abs=1e-3)


def test_every_combination_of_a_new_task_has_a_row_here() -> None:
    assert sorted(ROWS) == combinations()


@pytest.mark.parametrize(("problem", "modality"), ROWS)
def test_a_new_task_runs_from_raw_data_to_a_prediction(copy, problem, modality) -> None:
    name, row = f"{modality}_{problem}", ROWS[problem, modality]
    copy("new-task", name, "--problem", problem, "--modality", modality, "--root", str(copy.project))
    assert (gate := copy.json("run", name)["gate"])["passed"] is True, gate
    explain = ["--explain"] if problem not in ("embedding", "generation") else []
    prediction = copy.json("predict", name, "--input", json.dumps(row), *explain)["predictions"][0]
    assert is_right(problem, prediction), prediction
    assert (prediction["flags"], bool(prediction.get("reasons"))) == ([], bool(explain))


def test_a_package_without_an_edit_here_takes_a_file_to_a_service(
    tmp_path: Path, with_tables: Callable[[Path], Path]
) -> None:
    install_counts(tmp_path / "site")
    shell = Shell(with_tables(tmp_path / "home"))
    shell.environment["PYTHONPATH"] = f"{tmp_path / 'site'}{os.pathsep}{ROOT}"
    rows = []
    for at in range(400):
        size, place = at % 97 + 20.5, ("city", "lake")[at % 2]
        rows.append(f"H{at},{size},{place},{int(size // 25) if at % 8 else at % 5}")  # one in eight follows no rule
    (tmp_path / "houses.csv").write_text("\n".join(["house,size,place,beds", *rows]))
    asked = ["run", "beds", "--source", "houses.csv", "--recipe"]
    assert "exact" in str(shell.json(*asked, "coarse", code=3)["gate"]["reasons"])
    report = shell.json(*asked, "fine")
    assert report["result"]["champion"] is True
    card = max(shell.home.rglob("card.html"), key=lambda file: file.stat().st_mtime_ns).read_text()
    assert "Answers a count up to 4." in card
    assert "Counts that are exactly right" in card
    process = shell.start("serve", "beds", "--port", str(free_port()), "--json")
    try:
        served = documents(process)
        request = urllib.request.Request(
            f"{served['url']}/predict",
            json.dumps({"instances": [{"size": 80.0, "place": "lake"}, {"size": 24.0, "place": "city"}]}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as response:
            assert [one["count"] for one in json.load(response)["predictions"]] == [3, 0]
        with urllib.request.urlopen(served["metrics_url"]) as response:
            lines = [line for line in response.read().decode().splitlines() if line.startswith(PREDICTIONS)]
        counted = {label: float(line.split()[-1]) for label in ("none", "some") for line in lines if label in line}
        assert min(counted["none"], counted["some"]) >= 1
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def test_a_package_without_an_edit_here_brings_a_task_with_features(
    tmp_path: Path, with_tables: Callable[[Path], Path]
) -> None:
    install_visits(tmp_path / "site")
    shell = Shell(with_tables(tmp_path / "home"))
    shell.environment["PYTHONPATH"] = f"{tmp_path / 'site'}{os.pathsep}{ROOT}"
    rows = []
    for at in range(900):  # guests pay from 10 to 300, and twice as much at a celebration
        guest, celebrates = at % 30, at * 7 % 13 == 0
        moment = f"2026-01-{1 + at // 48:02}T{at // 2 % 24:02}:{at % 2 * 30:02}:00Z"
        amount = 10 * (guest + 1) * (2 if celebrates else 1)
        rows.append(f"V{at},{moment},G{guest},{amount},{'yes' if celebrates else 'no'}")
    (tmp_path / "visits.csv").write_text("\n".join(["visit,at,guest,amount,celebrates", *rows]))
    report = shell.json("run", "visits", "--source", "visits.csv")
    assert report["result"]["champion"] is True, report["gate"]
    given = [{"guest": "G1", "amount": 40.0}, {"guest": "G29", "amount": 300.0}]
    answers = shell.json("predict", "visits", "--input", json.dumps(given))["predictions"]
    assert [answer["label"] for answer in answers] == ["yes", "no"]
    assert [answer["flags"] for answer in answers] == [[], []]
