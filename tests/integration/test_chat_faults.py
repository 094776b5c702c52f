"""The chat service where a model's template raises, and where clients leave before and after their answer."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from contracts import metric_names as names
from tests.chat_service import metric, say, served, until
from tests.problem_bundles import tiny_chat
from tests.tiny_llama import TEMPLATE, write_tiny_llama

pytestmark = pytest.mark.integration
RAISES = "{% if 'boom' in messages[-1].content %}{{ raise_exception('no hunter2 here') }}{% endif %}" + TEMPLATE


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("raises")
    bundle = tiny_chat(folder, write_tiny_llama(folder / "raises.gguf", RAISES))
    with served(bundle, folder, slots=1, window=1 << 15) as (found, _):
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
