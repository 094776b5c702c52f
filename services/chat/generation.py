"""One request on its way: it waits for slots, its tokens are passed on as they come, and its end is always recorded."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Hashable
from time import perf_counter
from typing import TYPE_CHECKING, Any

import orjson

from contracts.errors import PlatformError
from services.budgets import Reserved
from services.chat.adapters import Lease
from services.chat.answers import Asked, Choice, Form
from services.chat.errors import away, gone, no_adapter, of_engine
from services.chat.llama import EngineGoneError, EngineRefusedError, EngineStream
from services.errors import Problem, openai_document
from services.request_options import RequestOptions
from services.server.streams import ClosedWith

if TYPE_CHECKING:
    from services.chat.runtime import ChatRuntime

_DONE = b"data: [DONE]\n\n"
FILTERED = "content_filter"  # ended by the guard
REFUSED = "refused"  # by the engine, before the first token


class Generation:
    """The work on one request; `close` may be called at any moment, and more than once."""

    def __init__(self, runtime: ChatRuntime, asked: Asked, options: RequestOptions) -> None:
        self._runtime, self._asked, self._options = runtime, asked, options
        self._stream: EngineStream | None = None
        self._lease: Lease | None = None
        self._first: dict[str, Any] | None = None
        self._entered, self._computes = 0.0, False
        self._group: Hashable = None  # see `Admission`
        self._reserved: Reserved | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._late = False
        self._read: dict[int, tuple[int, int]] = {}  # by prompt: its tokens, and those that a slot had read before
        self._told: dict[int, int] = {}  # by choice: its tokens, as the engine counts them
        self.usage: dict[str, Any] = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}

    async def begin(self) -> None:
        """Wait for slots, and for the first event, so that what is refused gets a status of its own.

        Raises:
            Problem: 400, 429, 500 and 503.
        """
        asked, runtime = self._asked, self._runtime
        holder = runtime.adapters.holder if asked.adapter is not None and runtime.adapters is not None else None
        if holder is not None and asked.adapter is not None:
            self._group = holder.expect(asked.adapter)
        self._reserved = await runtime.reserve(asked.caller, asked.reserved)
        try:
            await runtime.admission.enter(self._places, asked.tokens, self._options.priority, self._group)
        except BaseException:
            runtime.settle(self._reserved, 0)
            raise
        self._entered, self._computes = perf_counter(), True
        if math.isfinite(self._options.deadline):  # also of a client that does not read: it holds a slot
            left = max(0.0, self._options.deadline - self._entered)
            self._timer = asyncio.get_running_loop().call_later(left, self._expire)
        try:
            if holder is not None and asked.adapter is not None:
                self._lease = await holder.lease(asked.adapter)
            process, more = (self._lease.process, self._lease.members) if self._lease else (runtime.process, {})
            if len(asked.choices) > 1:  # which have a slot each
                more = {name: value for name, value in more.items() if name != "id_slot"}
            self._stream = await EngineStream.open(process, asked.path, asked.body | more)
            self._stream.when_ended(self._computed)
            self._first = await self._stream.next()
        except EngineRefusedError as err:
            self.close(REFUSED)
            if err.error.get("code") == 404 and holder is not None and asked.adapter is not None:
                await holder.lost(asked.adapter.key)
            raise of_engine(err, runtime.window) from err
        except EngineGoneError as err:
            self.close("failed")
            raise self._gone() from err
        except PlatformError as err:
            self.close("failed")
            raise no_adapter(err) from err
        except BaseException:
            self.close("cancelled")
            raise

    async def chunks(self) -> AsyncIterator[dict[str, Any]]:
        """The documents of a stream, the last one with what it took.

        Raises:
            EngineRefusedError, EngineGoneError: in the middle.
        """
        form, choices = self._asked.form, self._asked.choices
        assert self._stream is not None
        event, last = self._first, 0
        while event is not None:
            for one in event.get("choices", ()):
                at = last = one["index"]
                choice = choices[at]
                text = one.get("text") or one.get("delta", {}).get("content") or ""
                if text or one.get("logprobs"):
                    self._count(choice)
                pieces = _told(form, at, choice, text, one)
                if choice.finish == "stop" and choice.unmet:
                    choice.finish = "failed"
                    raise EngineRefusedError({"message": "the grammar has no end"})
                for piece in pieces:
                    yield form.chunk([piece])
            if all(choice.finish == FILTERED for choice in choices):
                break  # nobody waits for more
            if found := event.get("usage"):
                self._use(last, found)
            while (left := self._first_waits()) is not None:
                try:
                    async with asyncio.timeout(left):
                        event = await self._stream.next()
                    break
                except TimeoutError:
                    for piece in self._released():
                        yield form.chunk([piece])
            else:
                event = await self._stream.next()
        self.close("failed")  # of choices that were never ended
        if self._asked.usage:
            yield form.chunk([], self.usage)

    async def whole(self) -> dict[str, Any]:
        """The answer in one document.

        Raises:
            Problem: 500 and 503.
        """
        try:
            async for _ in self.chunks():
                pass
        except EngineRefusedError as err:
            raise of_engine(err, self._runtime.window) from err
        except EngineGoneError as err:
            raise self._gone() from err
        finally:
            self.close("cancelled")
        return self._asked.form.document(self._asked.choices, self.usage)

    def lines(self) -> ClosedWith:
        """The answer as server-sent events."""
        return ClosedWith(self.events(), self)

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The chunks as events, those together that came together; what fails in the middle is told by the last one."""
        held = b""
        assert self._stream is not None
        try:
            async for chunk in self.chunks():
                held += b"data: " + orjson.dumps(chunk) + b"\n\n"
                if self._stream.waits:
                    yield held
                    held = b""
            yield held + _DONE
        except EngineRefusedError as err:
            self.close("failed")
            yield held + _error(openai_document(of_engine(err, self._runtime.window)))
        except EngineGoneError:
            self.close("failed")
            yield held + _error(openai_document(self._gone()))

    def close(self, finish: str) -> None:
        """Give the slots back, and record the answers; those without an end of their own ended as `finish`."""
        if not self._entered:
            return
        seconds, self._entered = perf_counter() - self._entered, 0.0
        if self._timer is not None:
            self._timer.cancel()
        if self._stream is not None:
            self._stream.close()
        if self._lease is not None:
            self._lease.release()
        choices = self._asked.choices
        self._computed()
        self._runtime.admission.leave(self._places, self.usage["completion_tokens"], seconds)
        # Who leaves before the engine has counted has had it read all the same.
        used = (
            0 if finish == REFUSED else self.usage["total_tokens"] or self._asked.read + self.usage["completion_tokens"]
        )
        self._runtime.settle(self._reserved, used)
        for choice in choices:
            choice.finish = choice.finish or finish
        if finish != REFUSED:
            self._runtime.record(self._asked, self.usage, self._options.arrived)

    def _computed(self) -> None:
        """Let other adapters be computed: the engine has written all, which this client may read when it likes."""
        if self._computes:
            self._computes = False
            self._runtime.admission.computed(self._places, self._group)

    def _expire(self) -> None:
        self._late = True
        self.close("failed")

    def _gone(self) -> Problem:
        """Why the engine's stream has no end: we left it, as the time is over, or it ended."""
        if self._late:
            return Problem(504, "timeout", "the answer took too long", fix="ask for fewer tokens, or allow more time")
        if self._runtime.process.remote:
            return away()
        if self._asked.adapter is not None:  # which is not the process of the base
            return no_adapter()
        self._runtime.ended()
        return gone()

    def _first_waits(self) -> float | None:
        """Seconds until a first token that the guard holds is to be told; None: it holds none."""
        watchers = [choice.watcher for choice in self._asked.choices if choice.watcher is not None]
        return min((left for one in watchers if (left := one.left) is not None), default=None)

    def _released(self) -> list[dict[str, Any]]:
        """The ``choices`` of chunks of first tokens that waited long enough."""
        made: list[dict[str, Any]] = []
        for at, choice in enumerate(self._asked.choices):
            if choice.watcher is not None and (text := choice.watcher.release()):
                made += self._asked.form.pieces(at, choice, text, None)
                choice.texts.append(text)
        return made

    def _count(self, choice: Choice) -> None:
        now, tokens = perf_counter(), self._runtime.tokens
        if choice.moment:
            tokens.between.observe(now - choice.moment)
        else:
            tokens.first.observe(now - self._options.arrived)
        choice.moment = now
        tokens.written.inc()
        self.usage["completion_tokens"] += 1

    @property
    def _places(self) -> int:
        """Slots that the choices take; of many prompts the engine begins some when others have ended."""
        return min(len(self._asked.choices), self._runtime.admission.slots)

    def _use(self, at: int, found: dict[str, Any]) -> None:
        """Take the engine's count of choice `at`: ours has pieces of text, of which a token may give none."""
        tokens = self._runtime.tokens
        self._told[at] = self._asked.choices[at].tokens = found["completion_tokens"]
        written = max(self.usage["completion_tokens"], sum(self._told.values()))
        tokens.written.inc(written - self.usage["completion_tokens"])
        prompt = at // self._asked.each
        if prompt not in self._read:
            had = (found.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
            self._read[prompt] = found["prompt_tokens"], had
            tokens.cached.inc(had)
        read, cached = (sum(column) for column in zip(*self._read.values(), strict=True))
        self.usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
        self.usage["prompt_tokens_details"] = {"cached_tokens": cached}


def _told(form: Form, at: int, choice: Choice, text: str, event: dict[str, Any]) -> list[dict[str, Any]]:
    """The ``choices`` of chunks that an event of the engine gives."""
    if choice.finish:
        return []
    finish = event.get("finish_reason") or ""
    if choice.watcher is not None:
        text = choice.watcher.feed(text, last=bool(finish))
        finish = FILTERED if choice.watcher.refused else finish
    made = form.pieces(at, choice, text, event.get("logprobs"))
    choice.begun = True
    choice.texts.append(text)
    if finish:
        choice.finish = finish
        made += form.ends(at, choice)
    return made


def _error(document: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(document) + b"\n\n"
