"""The runner: events on stdout, run.json at every change, failures with headline and cure."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import shutil
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from pipelines import __main__ as command
from pipelines import runner
from pipelines.event_stream import Translator
from pipelines.io import events
from pipelines.preflight import preflight
from pipelines.run import Run
from pipelines.runstate import RunState, claimed

STEPS = ("ingest", "validate", "train")


class Watched:
    """A translator with what it sent."""

    def __init__(self, folder: Path) -> None:
        self.sent: list[dict[str, Any]] = []
        self.state = RunState(folder, Run(run_id="r"), STEPS)
        self.log = io.StringIO()
        self.translator = Translator(STEPS, self.state, self.log, self._send)

    def _send(self, event: str, **fields: Any) -> None:
        self.sent.append({"event": event, **fields})

    def event(self, kind: str, step: str, **fields: Any) -> None:
        """As KFP prints a step's event: indented."""
        self.translator.write("    " + json.dumps({"event": kind, "step": step, **fields, "time": 1.0}) + "\n")

    def kinds(self) -> list[tuple[str, str]]:
        return [(e["event"], e.get("step", "")) for e in self.sent]


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path / "run")


def test_events_pass_and_kfps_own_lines_do_not(watched: Watched) -> None:
    watched.translator.write("09:00:00 - INFO - Executing task 'ingest'\n----\n")
    watched.event("step_started", "ingest")
    watched.translator.write("    [KFP Executor INFO]: noise\n    a library speaks\n")
    watched.event("progress", "ingest", done=1, total=2)
    watched.event("step_finished", "ingest", seconds=0.5, result={"version": "v"})
    watched.translator.write("    after the end\n")
    assert watched.kinds() == [
        ("step_started", "ingest"), ("log", "ingest"), ("progress", "ingest"), ("step_finished", "ingest"),
    ]  # fmt: skip
    assert watched.sent[1]["message"] == "a library speaks"
    assert watched.translator.results == {"ingest": {"version": "v"}}
    assert "Executing task" in watched.log.getvalue()
    assert watched.state.document["steps"]["ingest"]["status"] == "finished"


def test_lines_may_arrive_in_pieces(watched: Watched) -> None:
    for piece in ('    {"event": "step_', 'started", "step": "ing', 'est"}', "\n"):
        watched.translator.write(piece)
    assert watched.kinds() == [("step_started", "ingest")]


def test_steps_that_say_nothing_were_cached(watched: Watched) -> None:
    watched.event("step_started", "train")
    watched.event("step_finished", "train", seconds=1)
    assert watched.kinds()[:2] == [("step_cached", "ingest"), ("step_cached", "validate")]
    assert watched.state.document["steps"]["ingest"]["status"] == "cached"


def test_all_steps_may_be_cached(watched: Watched) -> None:
    watched.translator.skipped_before(None)
    assert watched.kinds() == [("step_cached", step) for step in STEPS]


def test_a_step_that_was_killed_is_reported_with_its_last_words(watched: Watched) -> None:
    watched.event("step_started", "ingest")
    watched.translator.write("    allocating everything\n")
    error = watched.translator.died()
    assert error.headline == "step ingest ended without a word"
    assert error.detail == "allocating everything"
    assert watched.kinds()[-1] == ("step_failed", "ingest")


def test_a_chatty_library_does_not_drown_the_events(watched: Watched) -> None:
    watched.event("step_started", "ingest")
    watched.translator.write("    chat\n" * 1000)
    assert len(watched.sent) <= 201
    assert watched.log.getvalue().count("chat") == 1000


def test_a_platform_error_crosses_the_process_border(capsys: pytest.CaptureFixture[str], watched: Watched) -> None:
    with pytest.raises(SystemExit) as ended, events.running("ingest"):
        raise PlatformError("no column 'x'", detail="columns: a", fix="name it", code="bad_schema", column="x")
    assert ended.value.code == 1
    watched.translator.write(capsys.readouterr().out)
    error = watched.translator.error
    assert error is not None
    assert (error.headline, error.fix, error.code, error.context) == (
        "no column 'x'",
        "name it",
        "bad_schema",
        {"column": "x"},
    )
    assert watched.state.document["steps"]["ingest"]["status"] == "failed"


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (ZeroDivisionError("x"), "unexpected"),
        (OSError(28, "No space left"), "disk_full"),
        (PermissionError(13, "no"), "no_access"),
    ],
)
def test_other_failures_are_described_too(raised: Exception, code: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(type(raised)), events.running("train"):
        raise raised
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (last["event"], last["error"]["code"]) == ("step_failed", code)
    assert last["error"]["fix"]


def test_progress_is_thinned_but_its_end_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    report = events.progress("train")
    for done in range(1001):
        report(done, 1000, loss=0.5)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) < 20
    assert (lines[-1]["done"], lines[-1]["loss"]) == (1000, 0.5)


Start = Callable[..., tuple[int, list[dict[str, Any]], dict[str, Any]]]


@pytest.fixture
def start(toy: Any, toy_config: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Run with KFP replaced by a function that gets the translator; gives exit code, events and run.json."""

    def run(execute: Callable[[Translator], None], **asked: Any) -> tuple[int, list[dict[str, Any]], dict[str, Any]]:
        stdout = io.StringIO()
        monkeypatch.setattr("sys.stdout", stdout)
        monkeypatch.setattr(runner, "_execute", lambda asked, arguments, folder, out: execute(out))
        where = Endpoints(home=str(tmp_path / "home"))
        code = runner.run(Run(run_id="r-1", task="toy", config=json.loads(toy_config()), endpoints=where, **asked))
        sent = [json.loads(line) for line in stdout.getvalue().splitlines()]
        file = tmp_path / "home" / "runs" / "r-1" / "run.json"
        return code, sent, json.loads(file.read_text()) if file.exists() else {}

    return run


def _registered(passed: bool) -> Callable[[Translator], None]:
    def execute(out: Translator) -> None:
        for kind, fields in (
            ("step_started", {}),
            ("step_finished", {"seconds": 1, "result": {"gate_passed": passed}}),
        ):
            out.write(json.dumps({"event": kind, "step": "register", **fields}) + "\n")

    return execute


def test_a_run_that_succeeds_says_so_everywhere(start: Start) -> None:
    code, sent, document = start(_registered(True))
    assert code == 0
    assert (sent[0]["event"], sent[-1]["event"], sent[-1]["status"]) == ("run_started", "run_finished", "succeeded")
    assert (document["status"], document["result"]) == ("succeeded", {"gate_passed": True})
    assert document["finished"] > document["started"]
    asked = document["asked"]
    assert (document["pid"], asked["task"], asked["recipe"]) == (os.getpid(), "toy", "tree")
    assert asked["config"]["model"]["rounds"] == 15


def test_a_model_that_the_gate_refused_is_not_a_failure(start: Start) -> None:
    code, sent, document = start(_registered(False))
    assert code == 0
    assert sent[-1]["status"] == "refused"
    assert document["status"] == "refused"


def test_a_failed_step_gives_its_error_not_kfps(start: Start) -> None:
    def execute(out: Translator) -> None:
        error = PlatformError("empty file", fix="fill it", code="empty_source").as_dict()
        out.write('{"event": "step_started", "step": "ingest"}\n')
        out.write(json.dumps({"event": "step_failed", "step": "ingest", "error": error}) + "\n")
        raise RuntimeError("Pipeline finished with status FAILURE. Inner task failed: 'ingest'.")

    code, sent, document = start(execute)
    assert code == 1
    assert sent[-1]["event"] == "run_failed"
    assert sent[-1]["error"]["headline"] == "empty file"
    assert (document["status"], document["error"]["fix"]) == ("failed", "fill it")
    assert document["steps"]["ingest"]["status"] == "failed"
    assert document["steps"]["train"]["status"] == "waiting"


def test_a_stopped_run_is_noted_and_can_go_on(start: Start) -> None:
    def execute(out: Translator) -> None:
        out.write('{"event": "step_started", "step": "train"}\n')
        raise KeyboardInterrupt

    code, _, document = start(execute)
    assert code == 130
    assert document["error"]["code"] == "stopped"
    assert document["steps"]["train"]["status"] == "failed"
    code, _, document = start(_registered(True))
    assert (code, document["attempt"], document["status"]) == (0, 2, "succeeded")


def test_a_defect_of_the_runner_is_an_event_too(start: Start) -> None:
    def execute(out: Translator) -> None:
        raise ValueError("Expected constant.")

    code, sent, document = start(execute)
    assert code == 1
    assert "ValueError: Expected constant." in sent[-1]["error"]["headline"]
    assert document["status"] == "failed"


def _never(out: Translator) -> None:
    raise AssertionError("a step was started")


def test_a_full_disk_is_named_before_the_first_step(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1 << 20))
    code, sent, document = start(_never)
    assert (code, document["status"], sent[-1]["error"]["code"]) == (1, "failed", "disk_full")


@pytest.mark.parametrize("name", ["data", "artifacts", "cache"])
def test_a_place_that_cannot_be_written_is_named_before_the_first_step(
    start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    closed = Endpoints(home=str(tmp_path / "home")).path(name)
    closed.parent.mkdir()
    closed.write_text("a file, and no folder")
    code, sent, _ = start(_never)
    assert (code, sent[-1]["error"]["code"]) == (1, "no_access")
    assert str(closed) in sent[-1]["error"]["headline"]


@pytest.mark.parametrize(
    ("field", "address", "said"),
    [("online", "redis://127.0.0.1:{port}/0", "online store"), ("artifacts", "s3://bucket/x", "object storage")],
)
def test_a_server_that_is_gone_is_named_within_seconds(
    toy: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, field: str, address: str, said: str
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]  # bound and not listening: refused at once
        monkeypatch.setattr(toy, "feature_service", "toy_v1")
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.delenv(name, raising=False)
        where = Endpoints(home=str(tmp_path), **{field: address.format(port=port)}).resolved()
        began = time.monotonic()
        with pytest.raises(PlatformError) as caught:
            preflight("full", "toy", where)
    assert time.monotonic() - began < 5
    assert caught.value.code == "unreachable"
    assert said in caught.value.headline
    assert f"127.0.0.1:{port}" in caught.value.detail


def test_a_damaged_registry_is_named_before_the_first_step_and_its_cure_works(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "home" / "mlflow.db"
    file.parent.mkdir()
    file.write_bytes(b"no database at all, although it is long enough to be one" * 99)
    code, sent, _ = start(_never)
    assert (code, sent[-1]["error"]["code"]) == (1, "damaged_database")
    command = sent[-1]["error"]["fix"].partition(": ")[2]
    assert subprocess.run(shlex.split(command), check=False).returncode == 0
    code, sent, _ = start(_registered(True))
    assert code == 0


def test_a_deleted_experiment_is_named_before_the_first_step(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "home" / "mlflow.db"
    file.parent.mkdir()
    with contextlib.closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE experiments (experiment_id INTEGER, name TEXT, lifecycle_stage TEXT)")
        database.execute("INSERT INTO experiments VALUES (4, 'toy', 'deleted')")
        database.commit()
    code, sent, _ = start(_never)
    assert (code, sent[-1]["error"]["code"]) == (1, "deleted_experiment")
    assert "--experiment-id 4" in sent[-1]["error"]["fix"]


def test_unknown_workflow_fails_before_anything_is_written(start: Start) -> None:
    code, sent, document = start(lambda out: None, workflow="nope")
    assert (code, sent[-1]["error"]["code"], document) == (1, "bad_workflow", {})


def test_one_process_at_a_time_works_on_a_run(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    with claimed(folder, "r"), pytest.raises(PlatformError, match="is running already"), claimed(folder, "r"):
        pass
    with claimed(folder, "r"):
        pass


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ('{"run_id": "r", "task": "nope"}', "unknown task 'nope'"),
        ('{"run_id": "r", "task": "toy", "recipe": "nope"}', "unknown recipe 'nope'"),
        ('{"run_id": "r", "task": "toy"', "what the run is asked is not JSON"),
        ('{"run_id": "r", "task": "toy", "config": {"modle": 1}}', "invalid configuration"),
        ('{"run_id": "r", "task": "toy", "endpoints": {"hom": 1}}', "invalid document of a run"),
        ('{"run_id": "r", "task": "toy", "promot": false}', "a run is not asked for: promot"),
        ("/nope.json", "cannot read /nope.json"),
    ],
)
def test_a_wrong_document_is_one_event_and_one_message(
    toy: Any, capsys: pytest.CaptureFixture[str], asked: str, said: str
) -> None:
    assert command.main(["run", asked]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["error"]["headline"].startswith(said)
    assert said in captured.err


def test_the_run_id_must_be_a_name() -> None:
    assert command.main(["run", '{"task": "toy", "run_id": "../x"}']) == 1
