"""The router of models before two stand-ins with OpenAI's protocol: one inside, one outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import orjson
import pytest
import yaml

from contracts import metric_names as names
from contracts.ports import free_port
from deploy.cli.machine.subprocesses import stop_group
from services.router.passage import _MODEL
from services.server.auth import make_key
from tests.chat_service import metric, ready, until
from tests.integration.redis_servers import Server
from tests.late import Late
from tests.openai_stand_in import Backend, standing_in

if TYPE_CHECKING:
    import openai
else:
    openai = Late("openai")

pytestmark = pytest.mark.integration
MAIL = "write to ann.lee@example.com"


@pytest.fixture(scope="module")
def inside() -> Iterator[Backend]:
    with standing_in("near") as server:
        yield server


@pytest.fixture(scope="module")
def outside() -> Iterator[Backend]:
    with standing_in("far") as server:
        yield server


@contextmanager
def routed(folder: Path, file: dict[str, Any], **environ: str) -> Iterator[str]:
    port, log = free_port(), folder / "router.log"
    (folder / "router.yaml").write_text(yaml.safe_dump(file, sort_keys=False))
    command = [sys.executable, "-m", "services.router", "--file", str(folder / "router.yaml"), "--port", str(port)]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, env={**os.environ, "PROVIDER_KEY": "sk-secret-of-ours", **environ}, stderr=stream, stdout=stream,
            start_new_session=True,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: process.poll() is not None or ready(url), log)
        assert process.poll() is None, log.read_text()
        yield url
    finally:
        stop_group(process)
    assert "sk-secret" not in log.read_text()


def settings(inside: Backend, outside: Backend) -> dict[str, Any]:
    near = {"backend": "near", "model": "small", "prices": {"prompt": 1, "answer": 2}}
    far = {"backend": "far", "model": "large", "prices": {"prompt": 100, "answer": 200}}
    return {
        "backends": {
            "near": {"url": inside.url, "failures": 3, "rest_seconds": 2, "first_token_seconds": 1},
            "far": {"url": outside.url, "outside": True, "key": "PROVIDER_KEY", "failures": 3, "rest_seconds": 0.5},
        },
        "routes": {
            "assistant": {"targets": [near], "fallback": [far]},
            "masked": {"targets": [far], "personal": "mask"},
            "far": {"targets": [far]},
            "kept": {"targets": [near], "cache_seconds": 60},
        },
    }


@pytest.fixture(scope="module")
def url(inside: Backend, outside: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with routed(tmp_path_factory.mktemp("router"), settings(inside, outside)) as found:
        yield found


@pytest.fixture
def client(url: str, inside: Backend, outside: Backend) -> Iterator[openai.OpenAI]:
    for server in (inside, outside):
        server.plan.clear()
        server.got.clear()
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=30) as made:
        for name in ("near", "far"):
            until(lambda name=name: metric(url, names.ROUTER_CIRCUIT, backend=name) == 0)
        for route in ("assistant", "far"):  # what failed before is forgotten
            made.chat.completions.create(**say("warm", route))
        inside.got.clear()
        outside.got.clear()
        yield made


def say(text: str, model: str = "assistant") -> Any:
    return {"model": model, "messages": [{"role": "user", "content": text}]}


def test_a_name_is_answered_by_its_backend_under_the_name_that_it_has_there(
    client: openai.OpenAI, inside: Backend, outside: Backend
) -> None:
    assert [one.id for one in client.models.list()] == ["assistant", "masked", "far", "kept"]
    answer = client.chat.completions.create(**say("hello"))
    assert (answer.choices[0].message.content, answer.model) == ("near", "assistant")
    assert inside.got[-1]["model"] == "small"
    assert {one.model for one in client.chat.completions.create(**say("hello"), stream=True)} == {"assistant"}
    assert not outside.got
    assert client.chat.completions.create(**say("hello", "far")).choices[0].message.content == "far"
    assert outside.got[-1]["headers"]["authorization"] == "Bearer sk-secret-of-ours"
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(**say("hello", "gpt-4"))


def test_a_text_that_looks_like_a_name_is_left_as_it_is() -> None:
    told = orjson.dumps({"model": 'a "b', "choices": [{"message": {"content": 'say "model": "x"'}}]})
    found = orjson.loads(_MODEL.sub(lambda _: b'"model":"route"', told))
    assert (found["model"], found["choices"][0]["message"]["content"]) == ("route", 'say "model": "x"')


def test_a_stream_is_passed_on_and_usage_only_where_it_is_asked_for(client: openai.OpenAI, inside: Backend) -> None:
    chunks = list(client.chat.completions.create(**say("hello"), stream=True))
    assert "".join(one.choices[0].delta.content or "" for one in chunks) == "near"
    assert inside.got[-1]["stream_options"]["include_usage"] is True
    asked: Any = {"include_usage": True}
    last = list(client.chat.completions.create(**say("hello"), stream=True, stream_options=asked))[-1]
    assert last.usage is not None
    assert (last.choices, last.usage.completion_tokens) == ([], 4)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("failure", [500, 429, 401, "slow"])
def test_what_fails_before_the_first_token_goes_to_the_fallback(
    client: openai.OpenAI, inside: Backend, failure: Any, stream: bool
) -> None:
    inside.plan[:] = [failure] * 2
    found: Any = client.chat.completions.create(**say("hello"), stream=stream)
    text = "".join(one.choices[0].delta.content or "" for one in found) if stream else found.choices[0].message.content
    assert text == "far"


def test_a_stream_without_a_token_is_tried_again_and_one_that_breaks_later_is_not(
    client: openai.OpenAI, url: str, inside: Backend, outside: Backend
) -> None:
    inside.plan[:] = ["empty"]
    chunks = list(client.chat.completions.create(**say("hello"), stream=True))
    assert "".join(one.choices[0].delta.content or "" for one in chunks) == "near"
    assert len(inside.got) == 2
    inside.plan[:] = ["break"]
    answer = httpx.post(f"{url}/v1/chat/completions", json=say("hello") | {"stream": True}, timeout=30)
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    assert [json.loads(line)["choices"][0]["delta"].get("content") for line in lines[:-1]] == ["", "n", "e"]
    assert json.loads(lines[-1])["error"]["code"] == "backend_failed"
    assert not outside.got


def test_a_wrong_request_is_told_and_tried_nowhere_else(
    client: openai.OpenAI, inside: Backend, outside: Backend
) -> None:
    inside.plan[:] = [400]
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(**say("hello"))
    assert not outside.got


def test_a_backend_that_fails_is_left_alone_for_a_while(
    client: openai.OpenAI, url: str, inside: Backend, outside: Backend
) -> None:
    inside.plan[:] = [500] * 3
    for _ in range(4):
        assert client.chat.completions.create(**say("hello")).choices[0].message.content == "far"
    assert len(inside.got) == 3
    assert metric(url, names.ROUTER_CIRCUIT, backend="near") == 1
    until(lambda: metric(url, names.ROUTER_CIRCUIT, backend="near") == 0)
    assert client.chat.completions.create(**say("hello")).choices[0].message.content == "near"


def test_when_nobody_answers_it_says_who_and_why_without_their_words(
    client: openai.OpenAI, inside: Backend, outside: Backend
) -> None:
    inside.plan[:], outside.plan[:] = [500] * 2, [401] * 2
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(**say("hello"))
    assert caught.value.status_code == 503
    assert "near: status 500" in caught.value.message
    assert "far: status 401" in caught.value.message
    assert "sk-123" not in caught.value.message


def test_personal_data_stay_inside_or_leave_masked(client: openai.OpenAI, inside: Backend, outside: Backend) -> None:
    inside.plan[:] = [500] * 2
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(**say(MAIL))
    with pytest.raises(openai.PermissionDeniedError) as caught:
        client.chat.completions.create(**say(MAIL, "far"))
    assert caught.value.code == "stays_inside"
    assert not outside.got
    parts: Any = [{"role": "user", "content": [{"type": "text", "text": MAIL}]}]
    client.chat.completions.create(model="masked", messages=parts, user="ann", metadata={"who": "ann"})
    said = json.dumps({name: value for name, value in outside.got[-1].items() if name != "headers"})
    assert "write to [email]" in said
    assert "ann" not in said


def test_equal_requests_without_chance_are_answered_once(client: openai.OpenAI, inside: Backend) -> None:
    create = client.chat.completions.create
    for _ in range(2):
        assert create(**say("again", "kept"), temperature=0).choices[0].message.content == "near"
    assert len(inside.got) == 1
    for _ in range(2):
        chunks = list(create(**say("again", "kept"), temperature=0, stream=True))
        assert "".join(one.choices[0].delta.content or "" for one in chunks) == "near"
    assert len(inside.got) == 2
    for _ in range(2):
        create(**say("again", "kept"))  # by chance
        create(**say(MAIL, "kept"), temperature=0)
    assert len(inside.got) == 6


def test_a_client_that_leaves_leaves_its_backend(client: openai.OpenAI, url: str, inside: Backend) -> None:
    inside.plan[:], before = ["endless"], inside.gone
    with client.chat.completions.create(**say("hello"), stream=True) as stream:
        next(iter(stream))
    until(lambda: inside.gone == before + 1)
    assert metric(url, names.ROUTER_REQUESTS, outcome="cancelled") >= 1
    until(lambda: metric(url, names.INFLIGHT) <= 1)


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"model": 5}', b'{"messages": []}'])
def test_what_is_no_request_is_refused(url: str, body: bytes) -> None:
    answer = httpx.post(f"{url}/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


def test_keys_have_budgets_priorities_and_a_bill(inside: Backend, outside: Backend, tmp_path: Path) -> None:
    inside.plan.clear()
    keys = {name: make_key(name) for name in ("ada", "bob", "boss")}
    (tmp_path / "keys").write_text("\n".join(line for _, line in keys.values()) + ":operator\n")
    file = settings(inside, outside) | {
        "keys_file": str(tmp_path / "keys"),
        "budgets": {
            "default": {"tokens_per_day": 60, "priority": "low"},
            "bob": {"requests_per_minute": 2, "cost_per_day": 1},
            "boss": {},
        },
    }
    with routed(tmp_path, file) as url:

        def ask(who: str, **more: Any) -> httpx.Response:
            headers = {"authorization": f"Bearer {keys[who][0]}", "x-request-priority": "high"}
            return httpx.post(f"{url}/v1/chat/completions", json=say("hello") | more, headers=headers, timeout=30)

        assert httpx.post(f"{url}/v1/chat/completions", json=say("hello")).status_code == 401
        assert ask("ada").status_code == 200
        assert inside.got[-1]["headers"]["x-request-priority"] == "low"
        assert ask("ada", max_tokens=1000).status_code == 429  # would be too much
        assert ask("ada", max_tokens=10**18).status_code == 429
        long = [{"role": "user", "content": "a word " * 60}]
        assert ask("ada", messages=long, max_tokens=-(10**6)).status_code == 429, "less than nothing earns nothing"
        assert ask("boss").status_code == 200
        assert inside.got[-1]["headers"]["x-request-priority"] == "high"
        assert [ask("bob").status_code for _ in range(3)] == [200, 200, 429]
        limited = ask("bob")
        assert limited.json()["error"]["code"] == "budget_exceeded"
        assert 1 <= int(limited.headers["retry-after"]) <= 60

        def bill(who: str) -> Any:
            return httpx.get(f"{url}/usage", headers={"authorization": f"Bearer {keys[who][0]}"}).json()["usage"]

        until(lambda: bill("bob") != {})
        one = {"answer_tokens": 4, "cached_tokens": 0, "cost": 18e-6, "prompt_tokens": 10, "requests": 1}
        assert bill("ada") == {"ada": {"assistant": one}}
        assert bill("bob")["bob"]["assistant"]["requests"] == 2
        assert set(bill("boss")) == {"ada", "bob", "boss"}
        assert metric(url, names.ROUTER_COST, key="ada") == pytest.approx(18e-6)


def test_routers_that_share_a_redis_count_together_and_alone_while_it_is_away(
    inside: Backend, outside: Backend, tmp_path: Path
) -> None:
    inside.plan.clear()
    redis, key = Server(tmp_path / "redis"), make_key("ada")
    (tmp_path / "keys").write_text(f"{key[1]}\n")
    more = {"keys_file": str(tmp_path / "keys"), "redis": redis.address, "budgets": {"ada": {"tokens_per_day": 46}}}
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
    with (
        routed(folders[0], settings(inside, outside) | more) as one,
        routed(folders[1], settings(inside, outside) | more) as two,
    ):

        def ask(url: str) -> int:
            headers = {"authorization": f"Bearer {key[0]}"}
            body = say("hello") | {"max_tokens": 4}
            return httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=30).status_code

        def used(url: str) -> float:
            found = httpx.get(f"{url}/usage", headers={"authorization": f"Bearer {key[0]}"}).json()["usage"]
            return float(found.get("ada", {}).get("assistant", {}).get("requests", 0))

        assert [ask(one), ask(two)] == [200, 200]
        until(lambda: used(one) == used(two) == 2)  # each tells what both have used
        assert [ask(one), ask(two)] == [429, 429]  # neither alone would have reached its end
        redis.kill()
        assert [ask(one), ask(two)] == [200, 200]  # each counts for itself
        redis.start()
        until(lambda: used(one) == used(two) == 0)  # what it has lost is not made up
    redis.stop()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"routes": {"a": {"targets": [{"backend": "none", "model": "m"}]}}}, "none of backends"),
        ({"routes": {"a": {"targets": [{"backend": "far", "model": "m"}], "outside": False}}}, "all its backends"),
        ({"backends": {"near": {"url": "http://me:secret@host/v1"}}}, "without a user"),
        ({"no_such": 1}, "no_such"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    inside: Backend, outside: Backend, wrong: dict[str, Any], said: str
) -> None:
    from pydantic import ValidationError

    from services.router.settings import RouterSettings

    with pytest.raises(ValidationError, match=said):
        RouterSettings.model_validate(settings(inside, outside) | wrong)
