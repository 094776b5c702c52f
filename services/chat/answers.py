"""What clients get: chunks of a stream, and whole answers that are made of the same chunks."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.budgets import ANYBODY
from services.chat.adapters import Chosen
from services.chat.guard import Watcher
from services.chat.tools import CallParser


@dataclass(kw_only=True)
class Choice:
    """One of the answers to a request, as far as it is written.

    Attributes:
        calls: parses tool calls, where the answer may have some.
        called: whether it has to be a call.
        prompt: what a completion begins with, where it is asked for.
        watcher: looks at what is written before it is told.
        finish: why it ended, in OpenAI's words; "" while it goes on.
        moment: at which the last token came.
        tokens: of it, as the engine counts them at its end; 0 before.
    """

    calls: CallParser | None = None
    called: bool = False
    watcher: Watcher | None = None
    prompt: str = ""
    texts: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    arguments: list[dict[str, Any]] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    finish: str = ""
    begun: bool = False
    offset: int = 0
    moment: float = 0.0
    tokens: int = 0

    @property
    def text(self) -> str:
        """What is written, tool calls as the model wrote them."""
        return "".join(self.texts)

    @property
    def unmet(self) -> bool:
        """Whether it ended without the call that it has to be, or in the middle of one."""
        return self.calls is not None and (self.calls.broken or (self.called and not self.calls.complete))

    def take(self, deltas: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Keep what a parser found, for the whole answer; returns it."""
        for one in deltas:
            self.said += [one["content"]] if "content" in one else []
            self.arguments += one.get("tool_calls", ())
        return deltas

    def called_tools(self) -> list[dict[str, Any]]:
        """The whole calls, of their pieces."""
        calls: list[dict[str, Any]] = []
        for piece in self.arguments:
            if "id" in piece:
                function = dict(piece["function"])
                calls.append({"id": piece["id"], "type": "function", "function": function})
            else:
                calls[-1]["function"]["arguments"] += piece["function"]["arguments"]
        return calls


class Form:
    """The documents of one request: of chats, or of completions.

    Args:
        identifier: of its first choice in the log.
    """

    prefix, kind, whole = "chatcmpl-", "chat.completion.chunk", "chat.completion"

    def __init__(self, identifier: str, model: str, version: str, usage: bool) -> None:
        self.identifier = identifier
        self._about = {"id": f"{self.prefix}{identifier}", "created": int(time.time()), "model": model}
        self._about["system_fingerprint"] = version
        self._usage = {"usage": None} if usage else {}

    def chunk(self, choices: Sequence[Mapping[str, Any]], usage: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """One document of a stream."""
        told = {"usage": usage} if usage is not None else self._usage
        return {**self._about, "object": self.kind, "choices": choices, **told}

    def document(self, choices: Sequence[Choice], usage: Mapping[str, Any]) -> dict[str, Any]:
        """The whole answer."""
        told = [self.told(at, choice) for at, choice in enumerate(choices)]
        return {**self._about, "object": self.whole, "choices": told, "usage": usage}

    def pieces(self, at: int, choice: Choice, text: str, logprobs: Any) -> list[dict[str, Any]]:
        """The ``choices`` of chunks that tell new text."""
        deltas: list[dict[str, Any]] = []
        if not choice.begun:
            deltas.append({"role": "assistant", "content": None if choice.called else ""})
        if choice.calls is not None:
            deltas += choice.take(choice.calls.feed(text))
        elif text:
            deltas.append({"content": text})
        told = _logprobs(logprobs)
        if told:
            choice.logprobs += told["content"]
        last = len(deltas) - 1
        return [_delta(at, one, told if number == last else None) for number, one in enumerate(deltas)]

    def ends(self, at: int, choice: Choice) -> list[dict[str, Any]]:
        """The ``choices`` of chunks that end an answer."""
        rest: list[dict[str, Any]] = []
        if choice.calls is not None:
            rest = [_delta(at, one, None) for one in choice.take(choice.calls.end())]
            if choice.finish == "stop" and choice.calls.complete:
                choice.finish = "tool_calls"
        return [*rest, {**_delta(at, {}, None), "finish_reason": choice.finish}]

    def told(self, at: int, choice: Choice) -> dict[str, Any]:
        """A choice of the whole answer."""
        message: dict[str, Any] = {"role": "assistant", "content": choice.text, "refusal": None}
        if choice.calls is not None:
            message["content"] = "".join(choice.said) or (None if choice.called else "")
            if choice.arguments:
                message["tool_calls"] = choice.called_tools()
        told = {"content": choice.logprobs, "refusal": None} if choice.logprobs else None
        return {"index": at, "message": message, "logprobs": told, "finish_reason": choice.finish}


class CompletionForm(Form):
    """The documents of a completion."""

    prefix, kind, whole = "cmpl-", "text_completion", "text_completion"

    def pieces(self, at: int, choice: Choice, text: str, logprobs: Any) -> list[dict[str, Any]]:
        """The ``choices`` of a chunk that tells new text."""
        if not choice.begun and choice.prompt:
            text = choice.prompt + text
        made = _legacy(_logprobs(logprobs), choice.offset)
        choice.offset += len(text)
        if made:
            choice.logprobs.append(made)
        return [{"index": at, "text": text, "logprobs": made, "finish_reason": None}] if text or made else []

    def ends(self, at: int, choice: Choice) -> list[dict[str, Any]]:
        """The ``choices`` of the chunk that ends an answer."""
        return [{"index": at, "text": "", "logprobs": None, "finish_reason": choice.finish}]

    def told(self, at: int, choice: Choice) -> dict[str, Any]:
        """A choice of the whole answer."""
        names = choice.logprobs[0] if choice.logprobs else ()
        joined = {name: [one for part in choice.logprobs for one in part[name]] for name in names}
        return {
            "index": at,
            "text": choice.prompt + choice.text,
            "logprobs": joined or None,
            "finish_reason": choice.finish,
        }


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A checked request.

    Attributes:
        path, body: as llama.cpp takes it.
        form: of the answer.
        choices: that are asked for.
        prompt: the text that the log describes, and does not keep.
        hits: rules of the guard that held in what was said.
        tokens: about as many will be read and written, at most.
        read: about as many will be read.
        reserved: as many are taken from the budget of the key until it has ended.
        caller: whose key asks.
        usage: whether a stream ends with it.
        each: choices of one prompt.
        adapter: that the answers are made with; None: the base.
    """

    path: str
    body: dict[str, Any]
    form: Form
    choices: list[Choice]
    prompt: str
    tokens: int
    usage: bool = False
    each: int = 1
    hits: tuple[str, ...] = ()
    adapter: Chosen | None = None
    read: int = 0
    reserved: int = 0
    caller: str = ANYBODY


def _delta(at: int, delta: Mapping[str, Any], logprobs: Any) -> dict[str, Any]:
    return {"index": at, "delta": delta, "logprobs": logprobs, "finish_reason": None}


def _logprobs(given: Any) -> dict[str, Any] | None:
    """As OpenAI has them: llama.cpp adds the numbers of tokens, and vLLM has those of completions in their old form."""
    if not given:
        return None
    if "content" not in given:
        columns = zip(given["tokens"], given["token_logprobs"], given.get("top_logprobs") or (), strict=False)
        given = {"content": [_content(token, value, top or {}) for token, value, top in columns]}
    content = [_token(one) | {"top_logprobs": list(map(_token, one["top_logprobs"]))} for one in given["content"]]
    return {"content": content}


def _content(token: str, value: float, top: Mapping[str, float]) -> dict[str, Any]:
    def told(name: str, logprob: float) -> dict[str, Any]:
        return {"token": name, "logprob": logprob, "bytes": list(name.encode())}

    return told(token, value) | {"top_logprobs": [told(name, one) for name, one in top.items()]}


def _token(one: Mapping[str, Any]) -> dict[str, Any]:
    return {name: one[name] for name in ("token", "logprob", "bytes")}


def _legacy(given: Mapping[str, Any] | None, offset: int) -> dict[str, Any] | None:
    """In the older form of completions: lists by what they hold."""
    if given is None:
        return None
    tokens = [one["token"] for one in given["content"]]
    offsets = [offset + len("".join(tokens[:at])) for at in range(len(tokens))]
    return {
        "tokens": tokens,
        "token_logprobs": [one["logprob"] for one in given["content"]],
        "top_logprobs": [{top["token"]: top["logprob"] for top in one["top_logprobs"]} for one in given["content"]],
        "text_offset": offsets,
    }
