"""Tools by constrained decoding: a grammar lets the model write calls in one form only, and the calls are parsed.

A call is ``<tool_call>{"name": ..., "arguments": {...}}</tool_call>``, the form that most models with tools were
trained on. What the model reads of the tools stands in a system message, which most chat templates have.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Sequence
from typing import Any

from services.chat.request import DEFINITIONS, ChatRequest, Message, NamedTool, Tool, refused

MAX_CALLS = 8  # of one answer
_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_TAG = re.compile(r"<+tool_call>")
_TAG_BEGINS = re.compile("<+(?:" + "|".join(_OPEN[1:end] for end in range(len(_OPEN) - 1, 0, -1)) + r")?\Z")
_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*"([a-zA-Z0-9_-]{1,64})"\s*,\s*"arguments"\s*:\s*')
# A sign "<" in a text, with as much after it as tells that it does not begin a call; see llguidance's Lark.
_NO_TAG = "|".join(f"{_OPEN[1:end]}[^{_OPEN[end]}<]" for end in range(1, len(_OPEN)))
# As json.dumps writes it: room for spaces is room for a small model to get lost in.
_WRITTEN = {"x-guidance": {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}}


def offered(request: ChatRequest, told: bool) -> list[Tool]:
    """The tools that may be called in the answer; none when it is to be a text.

    Args:
        told: whether the model's chat template has a place for what it is told of tools.

    Raises:
        Problem: 400 when it has none, or when the answer has to fit a schema too.
    """
    tools, choice = request.tools or [], request.tool_choice
    if not tools or choice == "none":
        return []
    if not told:
        message = "the chat template of this model has no system message, by which it would be told of tools"
        raise refused("tools", message, "unsupported_value")
    if request.response_format is not None and request.response_format.type != "text":
        raise refused("response_format", "cannot be asked for together with tools")
    if isinstance(choice, NamedTool):
        return [tool for tool in tools if tool.function.name == choice.function.name]
    return tools


def free_choice(request: ChatRequest) -> bool:
    """Whether the model chooses between a text and calls."""
    return request.tool_choice in (None, "auto")


def grammar(tools: Sequence[Tool], *, text: bool, calls: int) -> str:
    """The grammar of an answer in llguidance's Lark: at most so many `calls`, and a `text` before or in their place."""
    start = f"text? | text? call{{1,{calls}}}" if text else f"call{{1,{calls}}}"
    return "\n".join(
        [
            "%llguidance {}",
            f"start: {start}",
            "text: (PLAIN | SIGN)+",
            "call: OPEN body CLOSE",
            f"body: %json {json.dumps(call_schema(tools))}",
            "OPEN: /<+tool_call>\\n?/",
            "CLOSE: /\\n?<\\/tool_call>\\n?/",
            "PLAIN: /[^<]+/",
            f"SIGN: /<+({_NO_TAG})/",
        ]
    )


def call_schema(tools: Sequence[Tool]) -> dict[str, Any]:
    """The JSON schema of a call of one of the tools."""
    calls: list[dict[str, Any]] = []
    definitions: dict[str, Any] = {}
    for at, tool in enumerate(tools):
        parameters = _renamed(tool.function.parameters or {"type": "object", "properties": {}}, f"{at}.")
        for place in DEFINITIONS:
            definitions |= {f"{at}.{name}": one for name, one in parameters.pop(place, {}).items()}
        call = {"name": {"const": tool.function.name}, "arguments": parameters}
        calls.append(
            {"type": "object", "properties": call, "required": list(call), "additionalProperties": False},
        )
    found = calls[0] if len(calls) == 1 else {"anyOf": calls}
    return {**found, **({"$defs": definitions} if definitions else {}), **_WRITTEN}


def _renamed(node: Any, prefix: str) -> Any:
    """A schema whose definitions are called with a prefix: two tools may have different ones of the same name."""
    if isinstance(node, list):
        return [_renamed(one, prefix) for one in node]
    if not isinstance(node, dict):
        return node
    made = {name: _renamed(one, prefix) for name, one in node.items()}
    if isinstance(said := made.get("$ref"), str):
        made["$ref"] = f"#/$defs/{prefix}{said.rpartition('/')[2]}"
    return made


def instructions(tools: Sequence[Tool], *, text: bool) -> str:
    """What the model is told of the tools."""
    described = "\n".join(json.dumps(tool.function.model_dump(exclude_none=True), ensure_ascii=False) for tool in tools)
    when = "When one of them helps, call it" if text else "Answer with a call of one of them"
    otherwise = "\nOtherwise answer in words." if text else ""
    form = f'{_OPEN}{{"name": "the function", "arguments": {{...}}}}{_CLOSE}'
    return f"You can call these functions:\n{described}\n{when}, in this form:\n{form}{otherwise}"


def engine_messages(messages: Sequence[Message], told: str, system: str) -> list[dict[str, str]]:
    """The conversation in the three roles that every template has: calls and their results as texts."""
    first = [message.text for message in messages if message.role in ("system", "developer")] or [system]
    text = "\n".join(part for part in (*first, told) if part)
    said = [{"role": "system", "content": text}] if text else []
    for message in messages:
        if message.role in ("user", "assistant", "tool"):
            role = "user" if message.role == "tool" else message.role
            said.append({"role": role, "content": _content(message)})
    return said


def _content(message: Message) -> str:
    if message.role == "tool":
        return f"Result of the call: {message.text}"
    calls = [
        f'{_OPEN}{{"name": "{call.function.name}", "arguments": {call.function.arguments}}}{_CLOSE}'
        for call in message.tool_calls or ()
    ]
    return "\n".join(filter(None, (message.text, *calls)))


class CallParser:
    """Turns what a model writes into the deltas of an answer: pieces of text, and pieces of numbered calls.

    Attributes:
        complete: calls that were written to their end.
    """

    def __init__(self) -> None:
        self._held, self._step = "", self._text
        self._calls, self._depth, self.complete = 0, 0, 0
        self._quoted = self._escaped = False

    @property
    def broken(self) -> bool:
        """Whether it is in the middle of a call: at its end, no call fits what is asked for."""
        return self._step != self._text

    def feed(self, text: str) -> list[dict[str, Any]]:
        """The deltas that `text` completes; what may be the beginning of a call waits."""
        self._held += text
        made: list[dict[str, Any]] = []
        while self._held and (found := self._step()) is not None:
            made += found
        return made

    def end(self) -> list[dict[str, Any]]:
        """What waited, and was no call after all."""
        rest, self._held = self._held, ""
        return [{"content": rest}] if rest and self._step == self._text and not self._calls else []

    # Each step takes what it can of what is held, and gives deltas; None: it needs more.
    def _text(self) -> list[dict[str, Any]] | None:
        tag = _TAG.search(self._held)
        waits = None if tag else _TAG_BEGINS.search(self._held)
        cut = tag.start() if tag else waits.start() if waits else len(self._held)
        said, self._held = self._held[:cut], self._held[tag.end() if tag else cut :]
        if tag:
            self._step = self._head
        told = said if not self._calls else ""  # after a call there are line ends only
        return [{"content": told}] if told else [] if tag else None

    def _head(self) -> list[dict[str, Any]] | None:
        head = _HEAD.match(self._held)
        if head is None:
            return None
        self._held, self._step = self._held[head.end() :], self._arguments
        self._depth, self._quoted, self._escaped = 0, False, False
        function = {"name": head[1], "arguments": ""}
        first = {"index": self._calls, "id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}
        self._calls += 1
        return [{"tool_calls": [first]}]

    def _arguments(self) -> list[dict[str, Any]] | None:
        for at, sign in enumerate(self._held):
            if self._escaped:
                self._escaped = False
            elif self._quoted:
                self._escaped, self._quoted = sign == "\\", sign != '"'
            elif sign == '"':
                self._quoted = True
            elif sign in "{[":
                self._depth += 1
            elif sign in "]}":
                self._depth -= 1
                if self._depth < 0:  # the call itself ends
                    written, self._held, self._step = self._held[:at], self._held[at + 1 :], self._text
                    self.complete += 1
                    return self._written(written.rstrip())
        if not self._quoted and self._held[-1].isspace():  # perhaps the last spaces
            kept = self._held.rstrip()
            waits = self._held[len(kept) :]
            if not kept:
                return None
            made, self._held = self._written(kept), waits
            return made or None
        made, self._held = self._written(self._held), ""
        return made

    def _written(self, text: str) -> list[dict[str, Any]]:
        return [{"tool_calls": [{"index": self._calls - 1, "function": {"arguments": text}}]}] if text else []
