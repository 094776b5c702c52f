"""Tool calls by constrained decoding: a schema lets the model write nothing but a call, and the call is parsed.

The model writes ``{"name": ..., "arguments": {...}}``. What it reads of the tools stands in a system message, so that
it works with every chat template.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Sequence
from typing import Any

from services.chat.request import ChatRequest, Message, NamedTool, Tool, refused

_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*"([a-zA-Z0-9_-]{1,64})"\s*,\s*"arguments"\s*:\s*')
_TAIL = re.compile(r"[\s}]*\Z")


def offered(request: ChatRequest) -> list[Tool]:
    """The tools of which the answer has to be a call; none when it is to be a text.

    Raises:
        Problem: 400 when the model should choose between text and call, which is not constrained.
    """
    tools, choice = request.tools or [], request.tool_choice
    if not tools or choice == "none":
        return []
    if request.response_format is not None and request.response_format.type != "text":
        raise refused("response_format", "cannot be asked for together with a tool call")
    if isinstance(choice, NamedTool):
        return [tool for tool in tools if tool.function.name == choice.function.name]
    if choice == "required":
        return tools
    message = "this model cannot choose by itself whether to call a tool: say required, none, or the function"
    raise refused("tool_choice", message, "unsupported_value")


def call_schema(tools: Sequence[Tool]) -> dict[str, Any]:
    """The JSON schema of a call of one of the tools."""
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": tool.function.name},
                "arguments": tool.function.parameters or {"type": "object", "properties": {}},
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in tools
    ]
    found = calls[0] if len(calls) == 1 else {"anyOf": calls}
    definitions: dict[str, Any] = {}
    for tool in tools:
        definitions |= (tool.function.parameters or {}).get("$defs", {})
    return {**found, "$defs": definitions} if definitions else found


def instructions(tools: Sequence[Tool]) -> str:
    """What the model is told of the tools."""
    described = "\n".join(json.dumps(tool.function.model_dump(exclude_none=True), ensure_ascii=False) for tool in tools)
    return (
        f"You can call these functions:\n{described}\n"
        'Answer with one call as JSON: {"name": "the function", "arguments": {...}}'
    )


def engine_messages(messages: Sequence[Message], tools: Sequence[Tool], system: str) -> list[dict[str, str]]:
    """The conversation in the three roles that every template has: calls and their results as texts."""
    first = [message.text for message in messages if message.role in ("system", "developer")] or [system]
    if tools:
        first.append(instructions(tools))
    text = "\n".join(part for part in first if part)
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
        f'{{"name": "{call.function.name}", "arguments": {call.function.arguments}}}'
        for call in message.tool_calls or ()
    ]
    return "\n".join(filter(None, (message.text, *calls)))


class CallParser:
    """Turns the text of one call into the pieces of a streamed tool call."""

    def __init__(self) -> None:
        self._text, self._held = "", ""
        self._begun = self._written = False  # the call, its arguments

    def feed(self, text: str) -> list[dict[str, Any]]:
        """The pieces that `text` completes; the last braces are held back, as one of them ends the call itself."""
        if self._begun:
            return self._arguments(text)
        self._text += text
        head = _HEAD.match(self._text)
        if head is None:
            return []
        self._begun = True
        function = {"name": head[1], "arguments": ""}
        first = {"index": 0, "id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}
        return [first, *self._arguments(self._text[head.end() :])]

    def end(self, complete: bool) -> list[dict[str, Any]]:
        """What was held back: of a `complete` call all but its own last brace."""
        rest = self._held.rstrip() if complete else self._held
        rest = rest.removesuffix("}").rstrip() if complete else rest
        self._held = ""
        return [_piece(rest)] if rest else []

    def _arguments(self, text: str) -> list[dict[str, Any]]:
        text = self._held + text
        if not self._written:
            text = text.lstrip()
        tail = _TAIL.search(text)
        cut = tail.start() if tail else len(text)
        self._held, self._written = text[cut:], self._written or bool(text)
        return [_piece(text[:cut])] if cut else []


def _piece(text: str) -> dict[str, Any]:
    return {"index": 0, "function": {"arguments": text}}
