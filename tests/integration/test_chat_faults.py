"""The chat service where a model's template raises, and where clients leave before and after their answer."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from contracts import metric_names as names
from contracts.errors import PlatformError
from contracts.llama_process import LlamaOptions, LlamaProcess
from services.chat.llama import EngineStream
from services.chat.modality import MODALITY
from services.chat.runtime import ChatRuntime, ChatSettings
from services.server.auth import make_key
from tests import chat_service
from tests.chat_service import Service, metric, say, served, until
from tests.problem_bundles import tiny_chat
from tests.tiny_llama import TEMPLATE, write_tiny_llama

pytestmark = pytest.mark.integration
url = chat_service.url
RAISES = "{% if 'boom' in messages[-1].content %}{{ raise_exception('no hunter2 here') }}{% endif %}" + TEMPLATE


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("raises")
    bundle = tiny_chat(folder, write_tiny_llama(folder / "raises.gguf", RAISES))
    with served(bundle, folder, slots=1, window=1 << 15, max_waiting_tokens=1 << 24) as found:
        yield found


def ask(url: str, document: Any) -> httpx.Response:
    return httpx.post(f"{url}/v1/chat/completions", json=document, timeout=60)


def test_a_template_that_raises_refuses_the_request_and_its_words_stay_here(url: str) -> None:
    answer = ask(url, say("boom"))
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    assert "hunter2" not in answer.text
    assert ask(url, say("w")).json()["choices"][0]["message"]["content"] == "xyz"


@pytest.mark.parametrize("sent", ["half", "whole"])
def test_a_client_that_is_gone_before_it_is_answered_leaves_nothing(url: str, sent: str) -> None:
    body = json.dumps({**say("A"), "stream": True}).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    head += f"content-length: {len(body)}"
    place = urlsplit(url)
    for _ in range(5):
        with socket.create_connection((place.hostname, place.port)) as client:
            client.sendall(head.encode() + b"\r\n\r\n" + (body if sent == "whole" else body[:20]))
    until(lambda: metric(url, names.SLOTS_BUSY) == 0 and metric(url, names.INFLIGHT) <= 1)
    assert ask(url, say("w")).status_code == 200


def test_a_client_that_leaves_after_its_stream_was_answered(url: str) -> None:
    before = metric(url, names.GENERATIONS, finish="stop"), metric(url, names.GENERATIONS, finish="cancelled")
    with httpx.stream("POST", f"{url}/v1/chat/completions", json={**say("w"), "stream": True}, timeout=60) as answer:
        assert [line for line in answer.iter_lines() if line][-1] == "data: [DONE]"
    assert metric(url, names.GENERATIONS, finish="stop") == before[0] + 1
    assert metric(url, names.GENERATIONS, finish="cancelled") == before[1]
    assert metric(url, names.SLOTS_BUSY) == 0


def test_a_hundred_clients_that_leave_leave_nothing(service: Service) -> None:
    url, process = service
    assert ask(url, say("w")).status_code == 200
    server, place = psutil.Process(process.pid), urlsplit(url)
    opened, before = server.num_fds(), metric(url, names.GENERATIONS, finish="cancelled")
    body = json.dumps({**say("A"), "stream": True, "max_tokens": 20_000}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
    clients = []
    for _ in range(100):  # one has the slot, the others wait for it
        clients.append(socket.create_connection((place.hostname, place.port)))
        clients[-1].sendall(head.encode() + b"content-type: application/json\r\n\r\n" + body)
    until(lambda: metric(url, names.QUEUE_DEPTH) >= 50)
    for client in clients:
        client.close()
    until(lambda: metric(url, names.SLOTS_BUSY) == 0 and metric(url, names.QUEUE_DEPTH) == 0)
    assert metric(url, names.GENERATIONS, finish="cancelled") >= before + 1
    until(lambda: server.num_fds() <= opened + 2)
    assert ask(url, say("w")).json()["choices"][0]["message"]["content"] == "xyz"


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_the_engine_leaves_no_socket_however_who_asked_it_ends(tmp_path: Path, end: str) -> None:
    file = write_tiny_llama(tmp_path / "m.gguf")
    code = f"""
import os, sys, time
from contracts.llama_process import LlamaOptions, LlamaProcess
process = LlamaProcess(LlamaOptions(model={str(file)!r}, window=64))
print(process.socket, oct(os.stat(os.path.dirname(process.socket)).st_mode & 0o777), flush=True)
process.stop() if {end == "stopped"} else os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    place, mode = done.stdout.split()
    assert (Path(place).name, mode) == ("llama.sock", "0o700"), done.stderr
    until(lambda: not Path(place).parent.exists())


def test_an_engine_whose_socket_would_have_too_long_a_name_is_asked_by_its_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    process = LlamaProcess(LlamaOptions(model=str(write_tiny_llama(tmp_path / "m.gguf")), window=64))
    try:
        assert (process.socket, list(folder.iterdir())) == ("", [])
        document = {**say("w"), "stream": True}
        assert asyncio.run(_events(process, document))[-1]["choices"][0]["finish_reason"]
    finally:
        process.stop()


async def _events(process: LlamaProcess, document: Any) -> list[Any]:
    stream, events = await EngineStream.open(process, "/v1/chat/completions", document), []
    while (event := await stream.next()) is not None:
        events.append(event)
    stream.close()
    return events


def test_an_engine_that_gets_no_memory_says_so_and_does_not_hang(tmp_path: Path) -> None:
    file = write_tiny_llama(tmp_path / "m.gguf")
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
from contracts.errors import PlatformError
from contracts.llama_process import LlamaOptions, LlamaProcess
try:
    LlamaProcess(LlamaOptions(model={str(file)!r}, window=1 << 20, slots=64))
except PlatformError as err:
    print(err.code, err.detail)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("bad_weights "), done.stdout + done.stderr
    assert re.search("alloc|memory|context", done.stdout), done.stdout


def test_a_model_too_large_for_its_memory_is_refused_before_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = ChatRuntime(MODALITY)
    bundle = tiny_chat(tmp_path)
    runtime.settings, runtime.name = ChatSettings(bundle=str(bundle.path), slots=8, window=1 << 20), "tiny"
    monkeypatch.setattr("services.chat.runtime.memory_limit", lambda: 2 << 30)
    assert runtime.engine_options(bundle) == {}
    monkeypatch.setattr("services.chat.runtime.memory_limit", lambda: 1 << 30)
    with pytest.raises(PlatformError, match="tiny is too large for this machine") as caught:
        runtime.engine_options(bundle)
    assert caught.value.code == "too_large"
    assert "set slots to" in caught.value.fix
    runtime.settings = runtime.settings.model_copy(update={"memory_check": False})
    assert runtime.engine_options(bundle) == {}


def test_keys_have_budgets_of_tokens(tmp_path: Path) -> None:
    keys, most = {name: make_key(name) for name in ("ada", "bob", "boss")}, 150
    (tmp_path / "keys").write_text("\n".join(line for _, line in keys.values()))
    given = {"default": {"tokens_per_day": most}, "bob": {"requests_per_minute": 2}, "boss": {}}
    settings = {"keys_file": str(tmp_path / "keys"), "budgets.keys": given}
    with served(tiny_chat(tmp_path / "tiny"), tmp_path, slots=1, **settings) as (url, _):

        def post(who: str, path: str, document: Any) -> httpx.Response:
            headers = {"authorization": f"Bearer {keys[who][0]}"}
            return httpx.post(f"{url}{path}", json=document, headers=headers, timeout=30)

        def ask(who: str, **more: Any) -> httpx.Response:
            return post(who, "/v1/chat/completions", {**say("w"), "max_tokens": 3, **more})

        first = ask("ada")
        took = first.json()["usage"]["total_tokens"]
        beyond = ask("ada", max_tokens=most)
        assert (beyond.status_code, beyond.json()["error"]["code"]) == (429, "budget_exceeded")
        assert int(beyond.headers["retry-after"]) <= 86_400
        assert ask("ada", messages=[]).status_code == 400  # costs nothing
        answered = [ask("ada", stream=number % 2 == 1).status_code for number in range(most // took + 1)]
        assert 429 in answered
        assert most - 2 * took < took * (1 + answered.count(200)) <= most + took  # of what was used, not reserved
        assert [ask("bob").status_code for _ in range(3)] == [200, 200, 429]
        assert ask("boss", max_tokens=300).status_code == 200
        rows = post("boss", "/predict", {"instances": [{"text": "w"}]})
        assert (rows.status_code, "rows are not answered" in rows.text) == (403, True)
        assert metric(url, names.SHED, reason="rate_limited") >= 3
