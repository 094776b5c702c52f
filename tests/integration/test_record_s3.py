"""The record of a run in a real S3 server, written by the processes of steps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.io.record import list_runs, read_run, read_steps
from tests.servers import s3_server

pytestmark = pytest.mark.integration
ROOT, RUN = "s3://lake/data/.runs", "0b7f2f0e-4c1d-4a53-9a55-0e8c2f6f1a11"


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with s3_server(tmp_path_factory.mktemp("s3"), "lake") as variables:
        yield variables


def step(body: str, environ: dict[str, str], name: str = "ingest", attempt: int = 1) -> Any:
    imports = "from pipelines.io import events\nfrom pipelines.run import Run\n"
    code = f"{imports}with events.running({name!r}, Run(task='news')) as done:\n    {body}\n"
    pod = {"FAIRLEAD_RECORD": ROOT, "FAIRLEAD_KFP_RUN": RUN, "FAIRLEAD_POD": "p"}
    pod["FAIRLEAD_NODE"] = f"full-a.root.{name}.executor({attempt - 1})"
    command, given = [sys.executable, "-c", code], {**os.environ, **environ, **pod}
    return subprocess.run(command, env=given, capture_output=True, text=True, timeout=120, check=False)


def test_a_run_is_told_by_its_record(storage: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    # A step that loads the same library at the same time as the record does.
    assert step("import boto3; boto3.client('s3'); done({'rows': 7})", storage).returncode == 0
    refused = "from contracts.errors import PlatformError; raise PlatformError('no', code='not_found')"
    assert step(refused, storage, "validate").returncode == 1
    again = step("print('ran')", storage, "validate", attempt=2)
    assert (again.returncode, "ran\n" in again.stdout) == (1, False)
    for name, value in storage.items():
        monkeypatch.setenv(name, value)
    said = read_steps(ROOT, RUN)
    assert {name: item["status"] for name, item in said.items()} == {"ingest": "finished", "validate": "failed"}
    assert said["ingest"]["result"] == {"rows": 7}
    assert (said["validate"]["attempt"], said["validate"]["final"]) == (2, True)
    assert (read_run(ROOT, RUN) or {})["task"] == "news"
    assert list_runs(ROOT) == [RUN]


@pytest.mark.parametrize("away", ["http://127.0.0.1:1", "silent"])
def test_a_store_that_is_away_or_silent_costs_a_step_seconds(away: str, tmp_path: Path) -> None:
    import socket

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()  # takes connections, and never answers
        url = f"http://127.0.0.1:{server.getsockname()[1]}" if away == "silent" else away
        keys = {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
        began = time.monotonic()
        ended = step("done(1)", keys)
    assert ended.returncode == 0, ended.stderr
    lines = [json.loads(line)["event"] for line in ended.stdout.splitlines()]
    assert lines == ["step_started", "step_finished"]
    assert time.monotonic() - began < 30
