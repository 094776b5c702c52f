"""The chat service over the tiny Llama, as tests start it and look at it.

Its fixtures are taken by name, ``url, client = chat_service.url, chat_service.client``: a module says with a fixture
`service` what is served, or has a `url` of its own.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from contracts.bundle import Bundle
from contracts.ports import free_port
from deploy.cli.machine.subprocesses import stop_group
from services.server.launch import serve_command
from tests.problem_bundles import tiny_chat

if TYPE_CHECKING:
    import openai

Service = tuple[str, "subprocess.Popen[bytes]"]
CITY_NAMES = ("Paris", "Rome")
CITY = {
    "type": "object",
    "properties": {"city": {"enum": list(CITY_NAMES)}, "when": {"const": "{now}"}},
    "required": ["city", "when"],
    "additionalProperties": False,
}
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": CITY}}]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_chat(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the service keeps its log."""
    return tmp_path_factory.mktemp("service")


@pytest.fixture(scope="module")
def url(service: Service) -> str:
    return service[0]


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai_client(url) as made:
        yield made


def openai_client(url: str) -> openai.OpenAI:
    """OpenAI's own client, which asks once."""
    import openai

    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60)


@contextmanager
def served(bundle: Bundle, folder: Path, **settings: Any) -> Iterator[Service]:
    """The service's address and its process."""
    port = free_port()
    command = serve_command(
        "chat", str(bundle.path), port=port, version="3", predictions=str(folder / "log"), settings=settings
    )
    with (folder / "stderr").open("wb") as log:
        process = subprocess.Popen(list(command.argv), env=command.env, stderr=log, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: process.poll() is not None or ready(url), folder / "stderr")
        assert process.poll() is None, (folder / "stderr").read_text()
        yield url, process
    finally:
        stop_group(process)


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def until(true: Any, log: Path | None = None) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, log.read_text() if log else "it never became true"
        time.sleep(0.05)


def metric(url: str, name: str, **labels: str) -> float:
    for family in text_string_to_metric_families(httpx.get(f"{url}/metrics").text):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return sample.value
    raise AssertionError(f"no {name} with {labels}")


def say(text: str) -> Any:
    return {"model": "tiny", "messages": [{"role": "user", "content": text}], "temperature": 0}
