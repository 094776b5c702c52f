"""What OpenAI's clients ask of a chat model beside a text: calls of tools, lists of prompts, members as promised."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from contracts.bundle import Bundle
from services.chat.tools import MAX_CALLS
from tests import chat_service
from tests.chat_service import CITY_NAMES, TOOLS, Service, say, served
from tests.late import Late
from tests.openai_members import check, check_answer
from tests.tiny_llama import VOCABULARY

if TYPE_CHECKING:
    import openai
else:
    openai = Late("openai")

pytestmark = pytest.mark.integration
bundle, folder = chat_service.bundle, chat_service.folder
url, client = chat_service.url, chat_service.client


@pytest.fixture(scope="module")
def service(bundle: Bundle, folder: Path) -> Iterator[Service]:
    with served(bundle, folder, slots=2, window=1 << 15) as found:
        yield found


def test_a_tool_is_called_and_its_result_is_taken(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(**say("w"), tools=TOOLS, tool_choice="required")
    assert (answer.choices[0].finish_reason, answer.choices[0].message.content) == ("tool_calls", None)
    (call,) = answer.choices[0].message.tool_calls or [None]
    assert call is not None
    assert call.type == "function"
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments)["when"] == "{now}"
    messages: Any = [
        *say("w")["messages"],
        answer.choices[0].message.model_dump(include={"role", "content", "tool_calls"}),
        {"role": "tool", "tool_call_id": call.id, "content": "sunny x"},
    ]
    after = client.chat.completions.create(model="tiny", temperature=0, messages=messages)
    assert after.choices[0].message.content == "yz"


def test_a_tool_call_is_streamed_in_pieces_with_their_index(client: openai.OpenAI) -> None:
    named: Any = {"type": "function", "function": {"name": "weather"}}
    deltas = [
        one.choices[0].delta.tool_calls
        for one in client.chat.completions.create(**say("w"), tools=TOOLS, tool_choice=named, stream=True)
    ]
    pieces = [piece for found in deltas for piece in found or ()]
    assert {piece.index for piece in pieces} == {0}
    assert [piece.id is not None for piece in pieces] == [True] + [False] * (len(pieces) - 1)
    whole = "".join(piece.function.arguments or "" for piece in pieces if piece.function)
    assert json.loads(whole)["city"] in CITY_NAMES


def test_the_model_chooses_between_a_text_and_a_call(client: openai.OpenAI) -> None:
    create = client.chat.completions.create
    text = create(**say("w"), tools=TOOLS).choices[0]
    assert (text.finish_reason, text.message.content, text.message.tool_calls) == ("stop", "xyz", None)
    call = create(**say("which?"), tools=TOOLS, tool_choice="auto").choices[0]
    assert (call.finish_reason, call.message.content) == ("tool_calls", "")
    assert [one.function.name for one in call.message.tool_calls or () if one.type == "function"] == ["weather"]


def test_calls_are_several_when_they_may_be_and_each_has_its_index(client: openai.OpenAI) -> None:
    chunks = client.chat.completions.create(
        **say("which?"), tools=TOOLS, tool_choice="auto", parallel_tool_calls=True, stream=True
    )
    pieces = [piece for one in chunks for piece in one.choices[0].delta.tool_calls or ()]
    assert {piece.index for piece in pieces} == set(range(MAX_CALLS))
    assert len({piece.id for piece in pieces if piece.id}) == MAX_CALLS
    for number in range(MAX_CALLS):
        own = [piece.function.arguments or "" for piece in pieces if piece.index == number and piece.function]
        assert json.loads("".join(own))["city"] in CITY_NAMES


def test_each_prompt_of_a_list_has_choices_of_its_own(client: openai.OpenAI) -> None:
    create = client.completions.create
    found = create(model="tiny", prompt=["w", "x", "v"], temperature=0, n=2)
    assert [(one.index, one.text) for one in found.choices] == list(
        enumerate(["xyz", "xyz", "yz", "yz", "wxyz", "wxyz"])
    )
    assert found.usage is not None
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (3, 2 * (4 + 3 + 5))
    texts = ["", "", ""]
    for chunk in create(model="tiny", prompt=["w", "x", "v"], temperature=0, stream=True, echo=True):
        for one in chunk.choices:
            texts[one.index] += one.text
    assert texts == ["wxyz", "xyz", "vwxyz"]
    for wrong in (
        {"prompt": ["w"] * 129},
        {"prompt": ["w"] * 65, "n": 2},
        {"prompt": "w", "echo": True, "logprobs": 1},
    ):
        with pytest.raises(openai.BadRequestError):
            create(model="tiny", **wrong)


def test_a_bias_keeps_a_token_away(client: openai.OpenAI) -> None:
    number = str(VOCABULARY.index("x"))
    assert (
        client.chat.completions.create(**say("w"), logit_bias={number: -100}, max_tokens=1).choices[0].message.content
        != "x"
    )


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("chat/completions", {**say("w"), "logprobs": True, "top_logprobs": 2, "n": 2}),
        ("chat/completions", {**say("which?"), "tools": TOOLS}),
        ("completions", {"model": "tiny", "prompt": ["w", "x"], "temperature": 0, "logprobs": 1}),
    ],
)
def test_answers_have_the_members_that_openai_promises_and_no_others(
    url: str, path: str, asked: dict[str, Any], stream: bool
) -> None:
    more: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    answer = httpx.post(f"{url}/v1/{path}", json=asked | more, timeout=60)
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    documents = [json.loads(line) for line in (lines[:-1] if stream else lines)]
    assert documents
    for document in documents:
        check_answer(document)
    models = httpx.get(f"{url}/v1/models").json()
    check("list", models)
    check("model", models["data"][0])
    check("error", httpx.post(f"{url}/v1/{path}", json={}).json()["error"])
