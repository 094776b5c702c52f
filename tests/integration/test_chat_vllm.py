"""The chat service before vLLM, which a server stands in for that speaks as it does: tests/vllm_stand_in.py."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from contracts.bundle import Bundle
from contracts.engines.llamacpp import base_of
from contracts.lora import write_peft
from contracts.ports import free_port
from contracts.remote_engine import served_name
from tests import chat_service
from tests.chat_adapters import after, publish
from tests.chat_service import CITY, TOOLS, metric, ready, say, served, until
from tests.late import Late
from tests.problem_bundles import tiny_chat

if TYPE_CHECKING:
    import openai
else:
    openai = Late("openai")

pytestmark = pytest.mark.integration
client = chat_service.client
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_chat(tmp_path_factory.mktemp("tiny"), safetensors=True)


@contextmanager
def engine(bundle: Bundle, port: int) -> Iterator[subprocess.Popen[bytes]]:
    name = served_name("tiny", bundle.digest)
    command = [sys.executable, "-m", "tests.vllm_stand_in", "--served-model-name", name, "--port", str(port)]
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def url(bundle: Bundle, port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("service")
    for name, comes in (("tone", "K"), ("form", "Q")):
        publish(folder / "store", "tiny", name, comes, base_of(bundle))
    told = {"url": f"http://127.0.0.1:{port}", "adapters": str(folder / "shared")}
    settings = {f"engine.{key}": value for key, value in told.items()}
    more = {"adapters.folder": str(folder / "store"), "adapters.loaded": 1, "predictions.salt": "of-tests"}
    write_peft(after("w", "Z", base="0" * 64, entity="x"), folder / "shared" / "left.1")
    with engine(bundle, port):
        until(lambda: _up(port))
        left = {
            "lora_name": f"{served_name('tiny', bundle.digest)}:left.1",
            "lora_path": str(folder / "shared" / "left.1"),
        }
        httpx.post(f"http://127.0.0.1:{port}/v1/load_lora_adapter", json=left)
        with served(bundle, folder, slots=2, **settings, **more) as (address, _):
            assert not (folder / "shared" / "left.1").exists()
            yield address


def _up(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    except httpx.TransportError:
        return False


def asked(port: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.get(f"http://127.0.0.1:{port}/asked").json()["asked"]
    return found


def test_the_front_answers_as_before_llama_cpp(client: openai.OpenAI, bundle: Bundle, url: str, port: int) -> None:
    answer = client.chat.completions.create(**say("w"))
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("xyz", "stop")
    assert (answer.model, answer.usage.completion_tokens if answer.usage else 0) == ("tiny", 3)
    options: Any = {"include_usage": True}
    chunks = list(client.chat.completions.create(**say("w"), stream=True, stream_options=options, logprobs=True))
    assert "".join(one.choices[0].delta.content or "" for one in chunks[:-1]) == "xyz"
    assert [one.finish_reason for chunk in chunks for one in chunk.choices if one.finish_reason] == ["stop"]
    old = client.completions.create(model="tiny", prompt=["a", "p"], max_tokens=2, n=2, logprobs=1)
    assert [one.text for one in old.choices] == ["bc", "bc", "qr", "qr"]
    told = old.choices[2].logprobs
    assert told is not None
    assert (told.tokens, told.text_offset) == (["q", "r"], [0, 1])
    last = asked(port)[-1]
    assert last["model"] == served_name("tiny", last["model"].partition("@")[2])
    own = {name: last[name] for name in ("top_k", "min_p", "temperature")}
    assert own == {"top_k": 40, "min_p": 0.05, "temperature": 0.8}  # llama.cpp's, where nothing is said
    instances = {"instances": [{bundle.document.signature.inputs[0].name: "x"}]}
    assert httpx.post(f"{url}/predict", json=instances).json()["predictions"][0]["text"] == "yz"


def test_grammars_and_schemas_are_asked_for_in_its_words(client: openai.OpenAI, port: int) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "place", "schema": CITY, "strict": True}}
    client.chat.completions.create(**say("w"), response_format=form)
    assert asked(port)[-1]["response_format"]["json_schema"]["schema"] == CITY
    with pytest.raises(openai.BadRequestError):  # what stands in keeps to no grammar, so that no call comes
        client.chat.completions.create(**say("w"), tools=TOOLS, tool_choice="required")
    last = asked(port)[-1]
    assert "%llguidance" in last["structured_outputs"]["grammar"]
    assert "weather" in last["messages"][0]["content"]
    assert "grammar" not in last


def test_its_errors_are_told_in_ours(client: openai.OpenAI, url: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**say("a" * 600))
    assert caught.value.code == "context_length_exceeded"
    assert "606 tokens" in str(caught.value)
    with pytest.raises(openai.BadRequestError, match="cannot be asked"):
        client.chat.completions.create(**say("boom"))
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(**{**say("w"), "model": "other"})


def test_adapters_are_loaded_on_demand_and_leave_for_others(client: openai.OpenAI, url: str, port: int) -> None:
    for name, text in (("tone", "KLM"), ("form", "QRS"), ("tone", "KLM")):
        answer = client.chat.completions.create(**{**say("w"), "model": f"tiny:{name}", "max_tokens": 3})
        assert (answer.choices[0].message.content, answer.model) == (text, f"tiny:{name}")
    done = [one for one in asked(port) if one["path"].endswith("lora_adapter")]
    verbs = [(one["path"][4:8], one["lora_name"].partition(":")[2]) for one in done]
    tone, form = "named-tone.1", "named-form.1"
    assert verbs[:2] == [("load", "left.1"), ("unlo", "left.1")]  # of a front that was there before
    assert verbs[2:] == [("load", tone), ("load", form), ("unlo", tone), ("load", tone), ("unlo", form)]
    # vLLM was started again, and has forgotten them: the first one is told to come back, the next is answered.
    httpx.post(f"http://127.0.0.1:{port}/v1/unload_lora_adapter", json={"lora_name": done[-2]["lora_name"]})
    again: Any = {**say("w"), "model": "tiny:tone", "max_tokens": 3}
    with pytest.raises(openai.InternalServerError, match="adapter"):
        client.chat.completions.create(**again)
    assert client.chat.completions.create(**again).choices[0].message.content == "KLM"


def test_its_metrics_are_passed_on_and_clients_that_leave_free_it(client: openai.OpenAI, url: str, port: int) -> None:
    assert "vllm:generation_tokens_total" in httpx.get(f"{url}/engine/metrics").text
    for _ in range(4):
        stream = client.chat.completions.create(**say("A"), stream=True)
        next(iter(stream))
        stream.close()
    until(lambda: "vllm:num_requests_running" in (text := httpx.get(f"{url}/engine/metrics").text) and "} 0\n" in text)
    until(lambda: metric(url, "fairlead_slots_busy", model="tiny") == 0)


def test_while_it_is_away_the_service_is_not_ready_and_comes_back(
    client: openai.OpenAI, bundle: Bundle, tmp_path: Path
) -> None:
    port = free_port()
    with (
        engine(bundle, port) as first,
        served(bundle, tmp_path, **{"engine.url": f"http://127.0.0.1:{port}"}) as (url, _),
    ):
        first.send_signal(signal.SIGKILL)
        first.wait()
        until(lambda: not ready(url))
        assert httpx.get(f"{url}/livez").status_code == 200  # to restart this process would mend nothing
        answer = httpx.post(f"{url}/v1/chat/completions", json=say("w"))
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_away")
        with engine(bundle, port):
            until(lambda: ready(url))
            text = httpx.post(f"{url}/v1/chat/completions", json=say("w")).json()
            assert text["choices"][0]["message"]["content"] == "xyz"


@pytest.mark.parametrize(("kind", "words"), [("weights", "model.safetensors=true"), ("name", "serves another model")])
def test_what_cannot_be_served_says_why(
    bundle: Bundle, port: int, url: str, tmp_path: Path, kind: str, words: str
) -> None:
    wrong = tiny_chat(tmp_path / "other") if kind == "weights" else bundle
    settings = {"engine.url": f"http://127.0.0.1:{port}", "engine.wait_seconds": 1}
    if kind == "name":
        settings["engine.model"] = "tiny@of-another"
    from contracts.engines import load_engine
    from contracts.errors import PlatformError

    told = {"url": settings["engine.url"], "served": settings.get("engine.model", ""), "wait": 1.0}
    with pytest.raises(PlatformError) as caught:
        load_engine(wrong, **told)
    assert words in json.dumps(caught.value.as_dict())
