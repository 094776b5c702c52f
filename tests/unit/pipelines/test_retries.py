"""A step is tried again for what may pass, and for nothing else."""

from __future__ import annotations

import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import PlatformError
from pipelines.io import retries
from pipelines.io.library_errors import TRANSIENT, is_final


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "WAITS", (0.05, 0.1))


def said(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_server_that_comes_back_is_waited_for(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "WAITS", (0.05, 2.0))
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))  # bound, and refusing until it listens
        out = tmp_path / "out"

        def call(port: int) -> str:
            assert not out.exists()
            out.mkdir()
            (out / "part").write_text("half")
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return "done"

        threading.Timer(0.08, server.listen).start()
        assert retries.with_retries("ingest", call, server.getsockname()[1], fresh=str(out)) == "done"
    events = said(capsys)
    assert {e["event"] for e in events} == {"step_retry"}
    assert [e["attempt"] for e in events] == [1, 2][: len(events)]
    assert events[0]["error"]["code"] == "unreachable"
    assert events[0]["wait"] == 0.05


def test_after_three_tries_the_error_is_the_steps(capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[float] = []

    def call() -> None:
        calls.append(time.monotonic())
        raise PlatformError("away", code="storage_unreachable")

    with pytest.raises(PlatformError, match="away"):
        retries.with_retries("gate", call)
    assert len(calls) == 3
    assert calls[2] - calls[0] >= 0.15
    assert [e["attempt"] for e in said(capsys)] == [1, 2]


@pytest.mark.parametrize(
    "error",
    [PlatformError("no", code="not_found"), ValueError("a defect"), FileNotFoundError(2, "none"), MemoryError()],
    ids=lambda e: type(e).__name__,
)
def test_what_cannot_pass_is_not_tried_again(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[int] = []

    def call() -> None:
        calls.append(1)
        raise error

    with pytest.raises(type(error)):
        retries.with_retries("train", call)
    assert calls == [1]
    assert said(capsys) == []


def test_errors_of_ours_are_final_and_those_of_the_network_and_defects_are_not() -> None:
    assert all(is_final(PlatformError("x", code=code)) for code in ("not_found", "bad_schema", "gate", "out_of_memory"))
    assert not any(is_final(PlatformError("x", code=code)) for code in (*TRANSIENT, "unexpected"))
