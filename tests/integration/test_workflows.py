"""Whole workflows in real processes: KFP's local runner, the cache, kills, and two runs at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from contracts.bundle import read_bundle
from contracts.endpoints import Endpoints
from contracts.registry import Registry

pytestmark = pytest.mark.integration
TOY = Path(__file__).parents[1] / "toy"
ROOT = Path(__file__).parents[2]
STEPS = ["ingest", "validate", "build_dataset", "train", "evaluate", "gate", "register"]


class Run:
    """A run of the toy task as a child process, like the command line starts it."""

    def __init__(self, home: Path, run_id: str, **asked: Any) -> None:
        self.file = home / "runs" / run_id / "run.json"
        about = {"run_id": run_id, "endpoints": {"home": str(home)}, **asked}
        about |= {} if about.get("workflow") == "batch_scoring" else {"task": "toy"}
        path = os.pathsep.join([str(TOY), str(ROOT), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipelines", "run", json.dumps(about)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=os.environ | {"PYTHONPATH": path},
        )
        self.seen: list[dict[str, Any]] = []

    def events(self) -> Iterator[dict[str, Any]]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.seen.append(json.loads(line))  # anything but JSON fails the test
            yield self.seen[-1]

    def until(self, kind: str, step: str, **fields: Any) -> dict[str, Any]:
        wanted = {"event": kind, "step": step, **fields}
        return next(e for e in self.events() if wanted.items() <= e.items())

    def end(self) -> int:
        list(self.events())
        return self.process.wait(timeout=60)

    def steps(self, kind: str) -> list[str]:
        return [e["step"] for e in self.seen if e["event"] == kind]

    def document(self) -> dict[str, Any]:
        return json.loads(self.file.read_text())

    def kill(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)


@pytest.fixture
def start() -> Iterator[Callable[..., Run]]:
    """Starts runs and leaves none behind."""
    runs: list[Run] = []

    def make(home: Path, run_id: str, **asked: Any) -> Run:
        runs.append(Run(home, run_id, **asked))
        return runs[-1]

    yield make
    for run in runs:
        if run.process.poll() is None:
            os.killpg(run.process.pid, signal.SIGKILL)
        run.process.wait()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, with_tables: Callable[[Path], Path]) -> Path:
    """Shared by the tests of this module."""
    return with_tables(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def first(home: Path) -> Run:
    run = Run(home, "toy-first", prices={"currency": "CHF", "core_hour": 0.04})
    assert run.end() == 0, run.document()["error"]
    return run


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_run_goes_from_data_to_champion(first: Run, home: Path) -> None:
    assert first.steps("step_started") == first.steps("step_finished") == STEPS
    document = first.document()
    assert document["status"] == "succeeded"
    assert all(step["status"] == "finished" for step in document["steps"].values())
    result = document["result"]
    assert (result["name"], result["champion"], result["gate_passed"]) == ("toy", True, True)
    bundle = read_bundle(result["path"])
    assert bundle.document.lineage.run == "toy-first"
    card = (bundle.path / "card.html").read_text()
    assert all(f"<td>{step}</td>" in card for step in STEPS[:-1])
    assert "0.04 CHF for a core hour" in card
    champion = Registry(Endpoints(home=str(home))).resolve("toy@champion")
    assert champion.digest == bundle.digest
    assert champion.run_id


def test_unchanged_steps_come_from_the_cache(first: Run, home: Path, start: Callable[..., Run]) -> None:
    again = start(home, "toy-again")
    assert again.end() == 0
    assert again.steps("step_cached") == STEPS[1:5]
    assert again.steps("step_finished") == ["ingest", "gate", "register"]
    assert again.document()["steps"]["train"]["status"] == "cached"


def test_a_change_of_the_gate_trains_nothing_again(first: Run, home: Path, start: Callable[..., Run]) -> None:
    config = first.document()["asked"]["config"]
    config["gate"]["champion_tolerance"] = 0.5
    run = start(home, "toy-lenient", config=config, promote=False)
    assert run.end() == 0
    assert run.steps("step_cached") == ["validate", "build_dataset", "train"]
    assert run.document()["result"]["champion"] is False  # nobody asked for it
    told = run.document()["result"]["left_out"]
    assert told == first.document()["result"]["left_out"]
    assert told["rows_read"] > 0


def test_a_change_of_the_model_keeps_the_data_steps(first: Run, home: Path, start: Callable[..., Run]) -> None:
    config = first.document()["asked"]["config"]
    config["model"]["rounds"] = 12
    config["gate"]["thresholds"] = [{"metric": "roc_auc", "minimum": 0.999}]
    run = start(home, "toy-refused", config=config)
    assert run.end() == 0
    assert run.steps("step_cached") == ["validate", "build_dataset"]
    document = run.document()
    assert document["status"] == "refused"
    result = document["result"]
    assert (result["gate_passed"], result["champion"]) == (False, False)
    assert "must be at least 0.999" in result["reasons"][0]
    found = Registry(Endpoints(home=str(home)))
    assert found.resolve(f"toy:{result['version']}").gate_passed is False
    assert found.resolve("toy@champion").version != result["version"]
    assert found.resolve("toy@challenger").version == result["version"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_killed_in_training_goes_on_where_it_was(
    first: Run, home: Path, start: Callable[..., Run], number: signal.Signals
) -> None:
    run_id = f"toy-{number.name.lower()}"
    config = {"model": {"rounds": 20 + number.value, "pause": 0.15}}
    killed = start(home, run_id, config=config)
    step = killed.until("step_started", "train")
    killed.until("progress", "train")
    time.sleep(0.5)
    killed.kill(number)
    killed.end()
    before = killed.document()
    assert before["status"] == ("running" if number == signal.SIGKILL else "failed")
    assert not _alive(before["pid"])
    until = time.monotonic() + 10
    while _alive(step["pid"]) and time.monotonic() < until:
        time.sleep(0.1)
    assert not _alive(step["pid"])  # the step does not go on unseen
    resumed = start(home, run_id, config=config)
    assert resumed.end() == 0, resumed.document()["error"]
    assert resumed.steps("step_cached") == ["validate", "build_dataset"]
    assert resumed.steps("step_finished")[:2] == ["ingest", "train"]
    parameters = read_bundle(resumed.document()["result"]["path"]).document.parameters
    assert parameters["resumed_after"] >= 1
    assert resumed.document()["attempt"] == 2


def test_a_failed_step_says_what_and_how_to_mend_it(tmp_path: Path, start: Callable[..., Run]) -> None:
    source = tmp_path / "data.csv"
    source.write_text("parcel,sent,distance,stops,KIND,note,late\nP1,2026-01-01,1,1,box,x,no\n")
    run = start(tmp_path / "home", "toy-bad", source=str(source))
    assert run.end() == 1
    last = run.seen[-1]
    assert last["event"] == "run_failed"
    assert last["error"]["headline"] == "data.csv has no column 'kind'"
    assert last["error"]["fix"] == "if it is that one: --set data.columns.kind=KIND"
    assert run.document()["steps"]["ingest"]["status"] == "failed"
    assert "Traceback" not in json.dumps(run.seen)
    source.write_text(source.read_text().replace("KIND", "kind"))
    run = start(tmp_path / "home", "toy-bad", source=str(source))
    assert run.end() == 1
    assert run.seen[-1]["error"]["code"] == "one_class"


def test_two_runs_at_once_without_the_cache_do_not_disturb_each_other(
    home: Path, first: Run, start: Callable[..., Run]
) -> None:
    runs = [start(home, f"toy-pair-{n}", nonce=f"toy-pair-{n}") for n in range(2)]
    assert [run.end() for run in runs] == [0, 0]
    assert [run.steps("step_finished") for run in runs] == [STEPS, STEPS]
    results = [run.document()["result"] for run in runs]
    assert results[0]["version"] != results[1]["version"]
    bundles = [read_bundle(result["path"]) for result in results]
    assert bundles[0].document.metrics == bundles[1].document.metrics
    champion = Registry(Endpoints(home=str(home))).resolve("toy@champion")
    assert champion.version in {result["version"] for result in results}


def test_ingestion_then_training_then_batch_scoring(
    first: Run, home: Path, tmp_path: Path, start: Callable[..., Run]
) -> None:
    made = start(home, "toy-ingestion", workflow="ingestion")
    assert made.end() == 0
    version = made.document()["steps"]["ingest"]["result"]["version"]
    trained = start(home, "toy-training", workflow="training", dataset=version)
    assert trained.end() == 0
    assert trained.document()["result"]["gate_passed"]
    source = tmp_path / "rows.csv"
    source.write_text("distance,stops,kind\n10,0,box\n950,,pallet\n")
    scored = start(home, "toy-batch", workflow="batch_scoring", model="toy@champion", source=str(source))
    assert scored.end() == 0, scored.document()["error"]
    assert scored.document()["result"]["rows"] == 2
    assert scored.document()["result"]["labels"] == {"no": 1, "yes": 1}
