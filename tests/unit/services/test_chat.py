"""Parts of the chat service: tool calls in pieces, who gets a slot, what a conversation may be."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel

from services.chat.adapter_sets import SetLease, _Set
from services.chat.admission import Admission
from services.chat.request import (
    MAX_SCHEMA_NODES,
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    Tool,
    check_references,
    check_schema,
    parsed,
)
from services.chat.tools import CallParser, call_schema, engine_messages, offered
from services.errors import Problem
from services.metrics.service_metrics import ServiceMetrics
from tests.openai_members import REFUSED, REQUESTS

ARGUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}


@given(data=st.data(), arguments=st.dictionaries(st.text(), ARGUMENTS, max_size=4), indent=st.none() | st.just(2))
def test_a_call_is_the_same_however_its_text_is_cut(data: st.DataObject, arguments: Any, indent: int | None) -> None:
    text = json.dumps({"name": "find", "arguments": arguments}, ensure_ascii=False, indent=indent)
    before = data.draw(st.sampled_from(["", "I look <it up>: a << b\n", "<tool_cal>", "<tool_call"]))
    text = before + "".join(f"<tool_call>\n{text}\n</tool_call>\n" for _ in range(2))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    parser, deltas = CallParser(), []
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        deltas += parser.feed(text[start:end])
    deltas += parser.end()
    assert "".join(one.get("content", "") for one in deltas) == before
    assert parser.complete == 2
    for number in range(2):
        pieces = [piece for one in deltas for piece in one.get("tool_calls", ()) if piece["index"] == number]
        assert pieces[0]["function"]["name"] == "find"
        assert json.loads("".join(piece["function"]["arguments"] for piece in pieces)) == arguments


def test_a_call_that_is_cut_off_tells_what_was_written() -> None:
    parser = CallParser()
    deltas = [*parser.feed('<tool_call>{"name": "find", "arguments": {"a": {"b": 1}'), *parser.end()]
    pieces = [piece for one in deltas for piece in one["tool_calls"]]
    assert "".join(piece["function"]["arguments"] for piece in pieces) == '{"a": {"b": 1}'
    assert parser.complete == 0


@pytest.mark.parametrize("text", ["a < b", "ends with <tool_c", "<b>bold</b>", "{}"])
def test_a_text_that_is_no_call_is_told_whole(text: str) -> None:
    parser = CallParser()
    deltas = [delta for sign in text for delta in parser.feed(sign)] + parser.end()
    assert "".join(one["content"] for one in deltas) == text


def story(*said: tuple[str, Any]) -> dict[str, Any]:
    return {
        "model": "m",
        "messages": [{"role": role, **(more if type(more) is dict else {"content": more})} for role, more in said],
    }


CALLS = {"tool_calls": [{"id": "c1", "type": "function", "function": {"name": "find", "arguments": "{}"}}]}
RESULT = {"tool_call_id": "c1", "content": "none"}


@pytest.mark.parametrize(
    "said",
    [
        [("user", "a")],
        [("system", "s"), ("developer", "d"), ("user", "a"), ("assistant", "b"), ("user", "c")],
        [("user", "a"), ("user", "b")],
        [("user", "a"), ("assistant", CALLS), ("tool", RESULT)],
        [("user", [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])],
    ],
)
def test_conversations_that_are_taken(said: Any) -> None:
    assert parsed(ChatRequest, story(*said)).messages


@pytest.mark.parametrize(
    ("said", "place"),
    [
        ([("system", "s")], "messages"),
        ([("user", "a"), ("assistant", "b")], "messages"),
        ([("user", "a"), ("assistant", "b"), ("assistant", "c"), ("user", "d")], "messages[2].role"),
        ([("tool", RESULT)], "messages[0].tool_call_id"),
        ([("user", "a"), ("assistant", CALLS), ("user", "b")], "messages[2].role"),
        ([("user", "a"), ("assistant", CALLS)], "messages"),
        ([("user", None)], "messages[0].content"),
        ([("user", "a"), ("assistant", None), ("user", "b")], "messages[1].content"),
        ([("robot", "a")], "messages[0].role"),
        ([("user", 5)], "messages[0].content"),
    ],
)
def test_conversations_that_are_refused_by_the_member_that_is_wrong(said: Any, place: str) -> None:
    with pytest.raises(Problem) as caught:
        parsed(ChatRequest, story(*said))
    assert (caught.value.status, caught.value.errors[0][0]) == (400, place)


def test_calls_and_results_are_told_in_roles_that_every_template_has() -> None:
    asked = parsed(
        ChatRequest,
        story(("user", "a"), ("assistant", CALLS), ("tool", RESULT)) | {"tools": [TOOL], "tool_choice": "none"},
    )
    said = engine_messages(asked.messages, "", "be kind")
    assert [one["role"] for one in said] == ["system", "user", "assistant", "user"]
    assert said[0]["content"] == "be kind"
    assert said[2]["content"] == '<tool_call>{"name": "find", "arguments": {}}</tool_call>'


def test_a_model_without_a_system_message_is_told_of_no_tools() -> None:
    asked = parsed(ChatRequest, story(("user", "a")) | {"tools": [TOOL]})
    assert [tool.function.name for tool in offered(asked, told=True)] == ["find"]
    with pytest.raises(Problem) as caught:
        offered(asked, told=False)
    assert caught.value.errors[0][0] == "tools"
    assert offered(parsed(ChatRequest, story(("user", "a"))), told=False) == []


@pytest.mark.parametrize(
    ("kind", "model"), [("chat", ChatRequest), ("completion", CompletionRequest), ("embedding", EmbeddingRequest)]
)
def test_each_member_of_openai_is_taken_or_refused_on_purpose(kind: str, model: type[BaseModel]) -> None:
    known = set(REQUESTS[kind].split())
    assert set(model.model_fields) == known - set(REFUSED[kind].split())


def nested(levels: int) -> dict[str, Any]:
    return {"type": "object", "properties": {f"p{at}": {"type": "string"} for at in range(levels)}}


@pytest.mark.parametrize(
    "schema",
    [
        nested(10_000),
        nested(MAX_SCHEMA_NODES),
        {"type": "array", "maxItems": 1_000_000},
        {"minLength": 5_000},
        {"type": "object", "properties": {"a": {"not": {"type": "string"}}}},
        {"anyOf": [{"type": "string", "pattern": "abc("}]},
    ],
)
def test_schemas_that_cost_too_much_or_cannot_be_kept_are_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(Problem) as caught:
        check_schema(schema, "tools[0]")
    assert caught.value.errors[0][0] == "tools[0]"


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
        {"properties": {"a": {"$ref": "#"}}},
        {"items": {"$ref": "https://example.com/schema"}},
        {"$defs": {"a": {}}, "anyOf": [{"$ref": "#/$defs/b"}]},
    ],
)
def test_references_that_lead_nowhere_are_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(Problem):
        check_references(schema, "tools[0]")


def test_two_tools_may_have_definitions_of_the_same_name() -> None:
    tree = {"type": "object", "properties": {"left": {"$ref": "#/$defs/t"}}}
    check_references({"$ref": "#/$defs/t", "$defs": {"t": tree}}, "tools[0]")  # it comes back, and has an end
    tools = [
        Tool.model_validate(
            {"type": "function", "function": {"name": name, "parameters": {"$ref": place, where: {"t": one}}}}
        )
        for name, place, where, one in [
            ("a", "#/$defs/t", "$defs", tree),
            ("b", "#/definitions/t", "definitions", {"type": "string"}),
        ]
    ]
    made = call_schema(tools)
    assert made["$defs"] == {
        "0.t": {"type": "object", "properties": {"left": {"$ref": "#/$defs/0.t"}}},
        "1.t": {"type": "string"},
    }
    assert made["anyOf"][1]["properties"]["arguments"] == {"$ref": "#/$defs/1.t"}


def test_names_of_properties_and_values_are_no_keywords() -> None:
    named = {"type": "object", "properties": {"not": {"enum": [{"not": 1}]}, "pattern": {"type": "string"}}}
    check_schema({**named, "$defs": {"if": {"type": "string", "pattern": "^a+$"}}}, "schema")


def test_slots_go_to_the_urgent_first_then_by_arrival_and_come_back_from_who_gives_up() -> None:
    metrics = ServiceMetrics("m", "1")
    order: list[str] = []

    async def one(admission: Admission, name: str, places: int, priority: float) -> None:
        await admission.enter(places, 10, priority)
        order.append(name)

    async def told() -> tuple[int, int]:
        admission = Admission(2, 1_000, metrics)
        await admission.enter(2, 10, 0.0)
        asked = [("slow", 1, 1.0), ("first", 1, 0.0), ("second", 1, 0.0), ("gone", 2, -1.0), ("urgent", 1, -1.0)]
        tasks = {name: asyncio.create_task(one(admission, name, places, at)) for name, places, at in asked}
        await asyncio.sleep(0)
        assert admission.waiting == 5
        tasks["gone"].cancel()
        await asyncio.sleep(0)
        for _ in range(2):
            admission.leave(1)
        await asyncio.sleep(0)
        assert order == ["urgent", "first"]
        for _ in range(2):
            admission.leave(1)
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        return admission.busy, admission.waiting

    assert asyncio.run(told()) == (2, 0)
    assert order == ["urgent", "first", "second", "slow"]


@dataclass(eq=False)
class Told:
    """A request of a story: when it came and was begun, by the number of the event."""

    group: str | None
    came: int
    begun: int = -1
    ended: bool = False
    over: list[str | None] = field(default_factory=list)  # groups of later ones that were begun before it


@example(story=["a", "b", "a"], slots=2, ahead=0)
@example(story=["a", "b", "a", "a", "a", "b"], slots=4, ahead=2)
@example(story=["a", "b", "c", 0, "a", "c", "b", 0], slots=1, ahead=1)
@given(
    story=st.lists(st.sampled_from([None, "a", "b", "c"]) | st.integers(0, 3), min_size=10, max_size=60),
    slots=st.integers(1, 4),
    ahead=st.integers(0, 3),
)
def test_one_adapter_is_computed_at_a_time_and_keeps_nobody_waiting_for_ever(
    story: list[str | int | None], slots: int, ahead: int
) -> None:
    """Arrivals by group, and ends of one of the running, in any order."""
    metrics, told = ServiceMetrics("m", "1"), list[Told]()

    async def follow() -> None:
        admission, tasks, events = Admission(slots, 1 << 20, metrics, ahead), list[asyncio.Task[None]](), 0

        async def ask(one: Told) -> None:
            await admission.enter(1, 1, 0.0, one.group)
            one.begun = events
            for other in told:
                if other.begun < 0 and other.came < one.came:
                    other.over.append(one.group)

        async def end(one: Told) -> None:
            one.ended = True
            admission.computed(1, one.group)
            admission.leave(1)
            await asyncio.sleep(0)

        def check() -> None:
            now = [one.group for one in told if one.begun >= 0 and not one.ended]
            waiting = [one.group for one in told if one.begun < 0]
            assert len(now) == admission.busy <= slots
            assert len(waiting) == admission.waiting
            computed = {group for group in now if group}
            assert len(computed) <= 1
            if len(now) < slots and waiting:  # then nobody waits but for another adapter to end
                assert computed
                assert {waiting[0]}.isdisjoint([*computed, None])
                assert None not in waiting

        for event in story:
            events += 1
            if isinstance(event, int):
                now = [one for one in told if one.begun >= 0 and not one.ended]
                if now:
                    await end(now[event % len(now)])
            else:
                told.append(Told(event, events))
                tasks.append(asyncio.create_task(ask(told[-1])))
                await asyncio.sleep(0)
            check()
        while now := [one for one in told if one.begun >= 0 and not one.ended]:
            await end(now[0])
            check()
        assert all(one.ended for one in told)
        assert (admission.busy, admission.waiting, admission._by_group) == (0, 0, {})

    asyncio.run(follow())
    for one in told:
        for group in ("a", "b", "c"):
            assert one.over.count(group) <= (0 if group == one.group else ahead), (one, told)


def test_many_adapters_that_all_wait_are_computed_in_whole_batches() -> None:
    async def told() -> list[str]:
        admission, order = Admission(4, 1 << 20, ServiceMetrics("m", "1"), 16), list[str]()

        async def one(group: str) -> None:
            await admission.enter(1, 1, 0.0, group)
            order.append(group)
            await asyncio.sleep(0.001)
            admission.computed(1, group)
            admission.leave(1)

        await asyncio.gather(*(one(group) for _ in range(4) for group in "abcd"))
        return order

    assert "".join(asyncio.run(told())) == "aaaabbbbccccdddd"


def test_who_reads_slowly_keeps_a_slot_and_no_other_adapter_waiting() -> None:
    async def told() -> bool:
        admission = Admission(2, 1 << 20, ServiceMetrics("m", "1"))
        await admission.enter(1, 1, 0.0, "a")
        other = asyncio.create_task(admission.enter(1, 1, 0.0, "b"))
        await asyncio.sleep(0)
        assert not other.done()
        admission.computed(1, "a")
        await asyncio.sleep(0)
        return other.done()

    assert asyncio.run(told())


def test_an_adapter_gets_the_slot_that_it_had_and_else_the_one_that_was_not_used_for_longest() -> None:
    held = _Set(SimpleNamespace(), {("a", 1): 0, ("b", 1): 1, ("c", 1): 2})  # type: ignore[arg-type]
    held.had.update(dict.fromkeys(range(2)))

    def alone(name: str) -> Any:
        lease = SetLease(held, (name, 1))
        lease.release()
        return lease.members["id_slot"]

    assert [alone(name) for name in "aabab"] == [0, 0, 1, 0, 1]
    assert [alone(name) for name in "cbca"] == [0, 1, 0, 1]
    first, second, third = (SetLease(held, ("a", 1)) for _ in range(3))
    assert (first.members["id_slot"], second.members["id_slot"]) == (1, 0)
    assert third.members == {"lora": [{"id": 0, "scale": 1.0}]}  # llama.cpp lets it wait for any
    for lease in (third, first, first):
        lease.release()
    assert (held.busy, held.users) == ({0}, 1)


def test_a_queue_is_bounded_by_its_tokens() -> None:
    async def told() -> Problem:
        admission = Admission(1, 100, ServiceMetrics("m", "1"))
        await admission.enter(1, 50, 0.0)
        waiting = asyncio.create_task(admission.enter(1, 500, 0.0))  # the first may always wait
        await asyncio.sleep(0)
        with pytest.raises(Problem) as caught:
            await admission.enter(1, 1, 0.0)
        waiting.cancel()
        return caught.value

    refused = asyncio.run(told())
    assert (refused.status, refused.headers["retry-after"]) == (429, "5")  # 500 tokens at the speed that is supposed
