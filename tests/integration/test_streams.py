"""A modality of another package, whose answers are streams: started raw, read event by event, left by its client."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from contracts import metric_names as names
from contracts.bundle import Bundle, write_bundle
from deploy.cli.machine.ports import free_port
from deploy.cli.machine.subprocesses import stop_group
from services.server.launch import serve_command
from tests.packages import install

CODE = """
import asyncio

from services.server.lifecycle import Api, Modality, Runtime
from services.server.requests import Answer, Route
from services.server.streams import server_sent
from services.settings import ServiceSettings


class Settings(ServiceSettings):
    greeting: str = "hello"


class Counting(Runtime):
    running = closed = 0

    async def open(self, bundle):
        return {"greeting": self.settings.greeting}

    async def close(self):
        pass

    async def count(self, request):
        self.opened()
        asked = await request.json()
        return server_sent(self.numbers(asked["many"], asked.get("wait", 0)))

    async def numbers(self, many, wait):
        self.running += 1
        try:
            for number in range(many):
                if number == 3:
                    raise RuntimeError("no three")
                yield {"number": number, "greeting": self.settings.greeting}
                await asyncio.sleep(wait if number == 1 else 0)
        finally:
            self.running -= 1
            self.closed += 1

    async def tally(self, request):
        return Answer(b'{"running": %d, "closed": %d}' % (self.running, self.closed))


API = Api(
    routes=lambda runtime: [Route("/count", {"POST": runtime.count}), Route("/tally", {"GET": runtime.tally})],
    busy=("/count",),
    paths=lambda runtime: {"/count": {"post": {"operationId": "count", "responses": {}}}},
)
MODALITY = Modality(name="counting", runtime=Counting, apis=(API,), settings=Settings)
"""
FIELDS = {
    "name": "numbers",
    "task": "numbers",
    "recipe": "r",
    "modality": "counting",
    "engine": "none",
    "signature": {"inputs": [{"name": "many", "dtype": "int64"}], "classes": ["a", "b"]},
    "gate": {"passed": True, "checks": []},
    "lineage": {"code_version": "c", "data_version": "d", "source": "s", "seed": 1, "created": "2026-01-01T00:00:00Z"},
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("numbers")
    (folder / "source" / "model").mkdir(parents=True)
    (folder / "source" / "model" / "model.txt").write_text("1\n")
    (folder / "source" / "golden.jsonl").write_text(json.dumps({"inputs": {"many": 1}, "probabilities": [0.5, 0.5]}))
    return write_bundle(folder / "source", folder / "bundles", FIELDS)


@pytest.fixture(scope="module")
def http(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The service, as `services.server.launch` starts it where the package is installed."""
    folder, port = tmp_path_factory.mktemp("site"), free_port()
    entry = {"modalities": "counting = counting_modality:MODALITY"}
    install(folder, "counting-modality", {"counting_modality.py": CODE}, entry)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        command = serve_command("counting", str(bundle.path), port=port, settings={"greeting": "good day"})
    env = command.env | {"PYTHONPATH": f"{folder}:{Path(__file__).parents[2]}"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(list(command.argv), env=env, stderr=log, start_new_session=True)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            until(lambda: process.poll() is None and answered(client, "/readyz") == 200, folder / "log")
            yield client
    finally:
        stop_group(process)


def answered(client: httpx.Client, path: str) -> int:
    try:
        return client.get(path).status_code
    except httpx.TransportError:
        return 0


def until(true: Any, log: Path | None = None) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end, log.read_text() if log else "it never became true"
        time.sleep(0.05)


def counted(client: httpx.Client, status: int) -> float:
    """Requests of ``/count`` that were answered with `status`, by the service's metrics."""
    wanted = {"route": "/count", "code": str(status)}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            if sample.name == names.REQUESTS and wanted.items() <= sample.labels.items():
                return sample.value
    return 0.0


def test_an_answer_is_sent_event_by_event_and_counted(http: httpx.Client) -> None:
    before = counted(http, 200)
    answer = http.post("/count", json={"many": 1})
    assert answer.headers["content-type"] == "text/event-stream"
    assert "content-length" not in answer.headers
    assert answer.text == 'data: {"number":0,"greeting":"good day"}\n\n'
    until(lambda: counted(http, 200) == before + 1)


def test_a_client_that_leaves_stops_the_producer_and_is_counted(http: httpx.Client) -> None:
    before, closed = counted(http, 499), http.get("/tally").json()["closed"]
    with http.stream("POST", "/count", json={"many": 5, "wait": 600}) as answer:
        lines = answer.iter_lines()
        # The second event is there though the third one takes ten minutes.
        assert [next(lines), next(lines), next(lines)][2] == 'data: {"number":1,"greeting":"good day"}'
        assert http.get("/tally").json()["running"] == 1
    until(lambda: http.get("/tally").json() == {"running": 0, "closed": closed + 1})
    until(lambda: counted(http, 499) == before + 1)


def test_a_stream_that_fails_has_no_end_and_counts_as_a_failure(http: httpx.Client) -> None:
    before = counted(http, 500)
    with pytest.raises(httpx.RemoteProtocolError):
        http.post("/count", json={"many": 5})
    until(lambda: counted(http, 500) == before + 1)
    assert http.post("/count", json={"many": 2}).text.count("data: ") == 2


def test_the_kind_has_its_own_routes_and_no_others(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    assert set(document["paths"]) == {"/count", "/startupz", "/livez", "/readyz", "/metrics"}
    assert http.post("/predict", json={"instances": []}).status_code == 404
    assert http.get("/v2").status_code == 404
    assert http.post("/count", json=[], headers={"content-type": "text/plain"}).status_code == 415
