"""Many adapters behind one endpoint, over a Llama whose answers are known; each by its name, or by whose it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from contracts import metric_names as names
from contracts.bundle import Bundle
from contracts.engines.llamacpp import base_of
from services.adapters.forgetting import forget_adapters
from services.feedback.hashing import hashed
from services.settings import AdapterSettings
from tests import chat_service
from tests.chat_adapters import publish
from tests.chat_service import Service, metric, say, served, until
from tests.late import Late

if TYPE_CHECKING:
    import openai
else:
    openai = Late("openai")

pytestmark = pytest.mark.integration
bundle, folder = chat_service.bundle, chat_service.folder
url, client = chat_service.url, chat_service.client
SALT = "adapters-of-tests"
ONE, TWO = "tone", "form"


@pytest.fixture(scope="module")
def store(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, base = tmp_path_factory.mktemp("adapters"), base_of(bundle)
    for name, comes in ((ONE, "K"), (TWO, "Q"), ("third", "A")):
        publish(folder, "tiny", name, comes, base)
    publish(folder, "tiny", "foreign", "B", base, over="f" * 64)
    publish(folder, "tiny", hashed(SALT.encode(), "ann"), "D", base)
    return folder


@pytest.fixture(scope="module")
def service(bundle: Bundle, store: Path, folder: Path) -> Iterator[Service]:
    said = {"folder": str(store), "entity": "user", "loaded": 2}
    settings = {f"adapters.{key}": value for key, value in said.items()} | {"predictions.salt": SALT}
    with served(bundle, folder, slots=2, **settings) as found:
        yield found


def asked(client: openai.OpenAI, model: str = "tiny", **more: Any) -> str:
    answer = client.chat.completions.create(**{**say("w"), "model": model, "max_tokens": 3, **more})
    assert answer.model == model
    return answer.choices[0].message.content or ""


def test_one_start_brings_as_many_as_there_is_room_for(service: Service, client: openai.OpenAI) -> None:
    engines = psutil.Process(service[1].pid).children
    assert asked(client, "tiny:tone") == "KLM"
    begun = {one.pid for one in engines()}
    assert asked(client, "tiny:form") == "QRS"  # the first of the names, which came along
    assert {one.pid for one in engines()} == begun


def test_base_and_adapters_are_listed_and_each_answers_as_it_alone_would(client: openai.OpenAI) -> None:
    assert [one.id for one in client.models.list()] == ["tiny", "tiny:form", "tiny:third", "tiny:tone"]
    alone = {"tiny": "xyz", "tiny:tone": "KLM", "tiny:form": "QRS"}
    # The same prompt in turn, so that what a slot has read for one would show in the next.
    for model in ["tiny", "tiny:tone", "tiny:form", "tiny:tone", "tiny", "tiny:form"]:
        assert asked(client, model) == alone[model], model
    with ThreadPoolExecutor(6) as pool:
        models = list(alone) * 4
        assert list(pool.map(lambda model: asked(client, model), models)) == [alone[model] for model in models]


def test_one_more_than_is_held_replaces_the_one_that_was_not_used_for_longest(client: openai.OpenAI) -> None:
    for _ in range(2):
        assert [asked(client, f"tiny:{name}") for name in (ONE, TWO, "third")] == ["KLM", "QRS", "ABC"]


def test_what_is_said_is_streamed_and_counted_by_the_adapter(client: openai.OpenAI, url: str, folder: Path) -> None:
    chunks = list(client.chat.completions.create(**{**say("w"), "model": "tiny:tone", "max_tokens": 3}, stream=True))
    assert "".join(one.choices[0].delta.content or "" for one in chunks) == "KLM"
    labels = {"model": "tiny", "adapter": ONE}
    assert metric(url, names.ADAPTER_ANSWERS, **labels, finish="length") >= 1
    assert metric(url, names.ADAPTER_TOKENS, **labels) >= 3

    def records() -> list[dict[str, Any]]:
        return [
            json.loads(line) for file in (folder / "log").rglob("*.jsonl") for line in file.read_text().splitlines()
        ]

    until(lambda: any(one.get("adapter") == ONE for one in records()))
    assert all(one.get("adapter") in (None, ONE, TWO, "third", "(personal)") for one in records())


def test_what_an_adapter_has_read_is_not_read_again_though_another_one_read_the_same(client: openai.OpenAI) -> None:
    def told(model: str) -> tuple[int, int]:
        said = client.completions.create(model=model, prompt="w" * 40, max_tokens=1).usage
        assert said is not None
        assert said.prompt_tokens_details is not None
        return said.prompt_tokens, said.prompt_tokens_details.cached_tokens or 0

    names = ["tiny:tone", "tiny:form"]
    first = [[told(name) for name in names] for _ in range(2)][1]  # the first ones may start a process
    again = [told(name) for _ in range(2) for name in names]
    assert [cached for _, cached in again] == [read - 1 for read, _ in first * 2], (first, again)


def test_unknown_names_and_adapters_of_another_base_are_refused(client: openai.OpenAI) -> None:
    for model in ("tiny:none", "tiny:", "tiny:../tone", "tone:tiny"):
        with pytest.raises(openai.NotFoundError, match="there is no model of this name"):
            asked(client, model)
    with pytest.raises(openai.NotFoundError, match="over other weights"):
        asked(client, "tiny:foreign")


def test_a_person_has_the_own_adapter_until_it_is_forgotten(client: openai.OpenAI, store: Path) -> None:
    assert asked(client, user="ann") == "DEF"
    assert asked(client, user="bob") == "xyz"
    assert asked(client) == "xyz"
    assert forget_adapters(AdapterSettings(folder=str(store), entity="user"), "tiny", "ann", SALT) == 1
    until(lambda: asked(client, user="ann") == "xyz")


def test_a_new_version_answers_and_a_deleted_one_is_unknown(client: openai.OpenAI, bundle: Bundle, store: Path) -> None:
    publish(store, "tiny", "moving", "T", base_of(bundle))
    until(lambda: "tiny:moving" in [one.id for one in client.models.list()])
    assert asked(client, "tiny:moving") == "TUV"
    publish(store, "tiny", "moving", "B", base_of(bundle), version=2)
    until(lambda: asked(client, "tiny:moving") == "BCD")
    for file in (store / "tiny" / "na" / "named-moving").rglob("*.safetensors"):
        file.unlink()

    def gone() -> bool:
        try:
            asked(client, "tiny:moving")
        except openai.NotFoundError:
            return True
        return False

    until(gone)


def test_the_end_of_the_process_with_adapters_costs_the_base_nothing(service: Service) -> None:
    url, process = service
    with chat_service.openai_client(url) as client:

        def engines() -> list[psutil.Process]:
            found = psutil.Process(process.pid).children()
            return sorted((one for one in found if one.is_running()), key=lambda one: one.create_time())

        until(lambda: _answers(client, "tiny:tone") == "KLM" and len(engines()) == 2)
        engines()[-1].kill()
        assert asked(client) == "xyz"
        until(lambda: _answers(client, "tiny:tone") == "KLM")


def _answers(client: openai.OpenAI, model: str) -> str:
    try:
        return asked(client, model)
    except openai.InternalServerError:  # 503
        return ""
