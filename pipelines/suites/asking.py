"""Asks models: an endpoint with OpenAI's protocol, or an engine in this process; answers are kept, so work resumes."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, CancelledError, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from contracts.engine import Engine
from contracts.errors import PlatformError
from contracts.prompts import content_version
from pipelines.io.files import write_json
from pipelines.suites.document import Message, Request

TIMEOUT = 300.0
FILTERED = "content_filter"
_TRIES, _LONGEST_WAIT = 6, 20.0
_LATER = frozenset({408, 409, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer.

    Attributes:
        text: "" where it was refused.
        error: code of a refusal of this request, such as ``content_filter``; "" without one.
        finish: why it ended: ``stop``, ``length`` ...
        prompt_tokens, tokens: read and written; 0 where the endpoint does not say.
        seconds: from request to whole answer.
    """

    text: str
    error: str = ""
    finish: str = ""
    prompt_tokens: int = 0
    tokens: int = 0
    seconds: float = 0.0


class Asker(Protocol):
    """A model that can be asked.

    Attributes:
        name: what people call it.
        identity: by which its answers are kept: other weights, or another address, have other ones.
    """

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> str: ...

    def ask(self, messages: Sequence[Message], options: Mapping[str, Any]) -> Answer:
        """The answer to a conversation; safe to call from several threads."""
        ...


class Endpoint:
    """A model behind ``/v1/chat/completions``. See `Asker`.

    Args:
        url: with or without ``/v1``.
        key: sent as bearer token.
        model: its name there; by default the first one of ``/v1/models``.
        name, identity: by default made of the address.
        deadline: seconds for one answer, with all tries; 0: `TIMEOUT` for each wait.

    Raises:
        PlatformError: nothing answers there, or it is no such service.
    """

    def __init__(
        self, url: str, key: str = "", model: str = "", name: str = "", identity: str = "", deadline: float = 0.0
    ) -> None:
        self._deadline = deadline
        self._url = urlsplit(url.rstrip("/").removesuffix("/v1"))
        if self._url.scheme not in ("http", "https") or not self._url.hostname:
            raise PlatformError(f"{url} is no address", fix="give http://HOST:PORT", code="bad_input")
        self._headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
        if not model:
            status, listed = self._call("GET", "/v1/models", None)
            try:
                model = listed["data"][0]["id"]
            except (LookupError, TypeError):
                detail = f"status {status} for /v1/models: {_said(listed)}"
                fix = "name a service with OpenAI's protocol, and its key in FAIRLEAD_API_KEY"
                raise PlatformError(f"no chat service at {url}", detail=detail, fix=fix, code="bad_input") from None
        self.model = model
        self.name = name or f"{model} at {self._url.netloc}{self._url.path}"
        self.identity = identity or f"{self._url.geturl()} {model}"

    def ask(self, messages: Sequence[Message], options: Mapping[str, Any]) -> Answer:
        """See `Asker.ask`; tries again when the service is busy or away.

        Raises:
            PlatformError: ``code="no_answer"``: it does not answer; ``code="refused"``: it refuses the key, or does not
                know the model.
        """
        body = {"model": self.model, "messages": [one.model_dump() for one in messages], **options}
        until = time.monotonic() + (self._deadline or float("inf"))
        for at in range(_TRIES):
            began, pause = time.monotonic(), min(_LONGEST_WAIT, 0.2 * 2**at)
            try:
                status, found = self._call("POST", "/v1/chat/completions", body, until - began)
            except PlatformError:
                if at + 1 == _TRIES or time.monotonic() + pause >= until:
                    raise
                status, found = 503, {}
            taken = time.monotonic() - began
            if status == 200:
                return _answer(found, taken)
            if status not in _LATER or at + 1 == _TRIES or began + taken + pause >= until:
                break
            time.sleep(pause)
        error = found.get("error") if isinstance(found, dict) else None
        if status in (400, 413, 422) and isinstance(error, dict):
            return Answer(text="", error=str(error.get("code") or "refused"), seconds=taken)
        code = "refused" if status < 500 and status != 429 else "no_answer"
        fix = "see its log; answers so far are kept, and the same command goes on from there"
        detail = f"status {status}: {_said(found)}"
        raise PlatformError(f"{self.name} does not answer", detail=detail, fix=fix, code=code)

    def _call(self, method: str, path: str, document: Any, most: float = float("inf")) -> tuple[int, Any]:
        """Status and document; `most` seconds for the whole of it, however slowly it comes."""
        kind = http.client.HTTPSConnection if self._url.scheme == "https" else http.client.HTTPConnection
        most = min(most, self._deadline or most)
        connection = kind(self._url.hostname or "", self._url.port, timeout=max(0.001, min(TIMEOUT, most)))
        body = None if document is None else json.dumps(document).encode()
        began = time.monotonic()
        try:
            connection.connect()
            with _cut_after(connection.sock, most - (time.monotonic() - began)) as is_cut:
                connection.request(method, self._url.path + path, body, self._headers)
                response = connection.getresponse()
                text, status = response.read(), response.status
            if is_cut.is_set():
                raise TimeoutError
        except (OSError, http.client.HTTPException) as err:
            where, late = self._url.geturl(), time.monotonic() - began >= most
            raise PlatformError(
                f"no answer in {most:.3g} s from {where}" if late else f"no chat service at {where}",
                detail=str(err),
                fix="start one: fairlead serve chat",
                code="no_answer",
            ) from err
        finally:
            connection.close()
        try:
            return status, json.loads(text)
        except ValueError:
            return status, {"error": text[:200].decode(errors="replace")}


@contextmanager
def _cut_after(sock: socket.socket, seconds: float) -> Iterator[threading.Event]:
    """End a connection after that time; the event says that it was. A wait alone bounds only the time between bytes."""
    done = threading.Event()

    def cut() -> None:
        done.set()
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(0.0, seconds), cut)
    timer.daemon = True
    if seconds < float("inf"):
        timer.start()
    try:
        yield done
    finally:
        timer.cancel()


class InProcess:
    """The engine of a bundle whose problem is generation, as `Asker`.

    llama.cpp gets whole conversations; other engines the last message, as a row.
    """

    def __init__(self, engine: Engine, column: str, name: str, identity: str) -> None:
        self._engine, self._column = engine, column
        self.name, self.identity = name, identity

    def bits_per_byte(self, texts: Sequence[str]) -> float | None:
        """Of texts, see `LlamaEngine.bits_per_byte`; None where the engine tells none of all texts."""
        from contracts.engines.llamacpp import LlamaEngine

        if not texts or not isinstance(self._engine, LlamaEngine):
            return None
        try:
            return self._engine.bits_per_byte(texts)
        except PlatformError as err:
            if err.code != "llama_refused":
                raise
            return None

    def ask(self, messages: Sequence[Message], options: Mapping[str, Any]) -> Answer:
        """See `Asker.ask`; options are for models that write, others have none."""
        import numpy as np

        from contracts.engines.llamacpp import LlamaEngine, opened

        began = time.monotonic()
        if isinstance(self._engine, LlamaEngine):
            given = opened([one.model_dump() for one in messages], self._engine.spec.system)
            try:
                found = self._engine.process.call("POST", "/v1/chat/completions", {"messages": given, **options})
            except PlatformError as err:
                if err.code != "llama_refused":
                    raise
                return Answer(text="", error="refused", seconds=time.monotonic() - began)
            return _answer(found, time.monotonic() - began)
        row = np.empty(1, dtype=object)
        row[0] = messages[-1].content
        text = str(self._engine.predict({self._column: row})[0])
        return Answer(text=text, finish="stop", seconds=time.monotonic() - began)


class KeptAnswers:
    """Answers below a folder, each in a file of its own that appears whole; `folder` None keeps nothing.

    Args:
        again: what was kept before is asked again, once.
    """

    def __init__(self, folder: Path | None, again: bool = False) -> None:
        self._folder, self._again = folder, again
        self._asked: set[str] = set()

    def ask(self, asker: Asker, messages: Sequence[Message], options: Mapping[str, Any]) -> tuple[Answer, bool]:
        """The answer, and whether it was there already."""
        key = _key(asker.identity, messages, options)
        if kept := self._kept(key):
            return kept, True
        answer = asker.ask(messages, options)
        if self._folder:
            write_json(self._folder / f"{key}.json", asdict(answer))
            self._asked.add(key)
        return answer, False

    def missing(self, identity: str, requests: Sequence[Request]) -> int:
        """How many of the requests have no answer of that model yet."""
        return sum(self._kept(_key(identity, one.messages, one.options)) is None for one in requests)

    def _kept(self, key: str) -> Answer | None:
        known = self._folder and (not self._again or key in self._asked)
        return _read(self._folder / f"{key}.json") if self._folder and known else None


def ask_all(
    asker: Asker,
    requests: Sequence[Request],
    kept: KeptAnswers,
    at_once: int,
    tell: Callable[[bool], None] = lambda cached: None,
) -> list[Answer]:
    """Answers in the order of the requests, `at_once` of them asked together; `tell` hears of each.

    Raises:
        PlatformError: the model stops answering; what it has answered is kept.
    """

    failed = threading.Event()

    def one(request: Request) -> Answer:
        if failed.is_set():
            raise CancelledError
        try:
            answer, cached = kept.ask(asker, request.messages, request.options)
        except BaseException:
            failed.set()
            raise
        tell(cached)
        return answer

    with ThreadPoolExecutor(max(1, at_once)) as pool:
        waiting = [pool.submit(one, request) for request in requests]
        try:
            wait(waiting, return_when=FIRST_EXCEPTION)
        except BaseException:  # Ctrl-C
            failed.set()
            raise
    first = next((err for each in waiting if (err := each.exception()) and not isinstance(err, CancelledError)), None)
    if first:
        raise first
    return [each.result() for each in waiting]


def _answer(found: Any, seconds: float) -> Answer:
    try:
        choice, usage = found["choices"][0], found.get("usage") or {}
        finish = str(choice.get("finish_reason") or "")
        return Answer(
            text=(choice["message"].get("content") or "").strip(),
            error=FILTERED if finish == FILTERED else "",
            finish=finish,
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            tokens=int(usage.get("completion_tokens") or 0),
            seconds=seconds,
        )
    except (LookupError, TypeError, AttributeError) as err:
        detail = f"no choices in {json.dumps(found)[:200]}"
        fix = "name a service with OpenAI's protocol"
        raise PlatformError("an answer has another form", detail=detail, fix=fix, code="no_answer") from err


def _key(identity: str, messages: Sequence[Message], options: Mapping[str, Any]) -> str:
    asked = {"model": identity, "messages": [one.model_dump() for one in messages], "options": dict(options)}
    return content_version(asked)


def _read(file: Path) -> Answer | None:
    try:
        return Answer(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _said(found: Any) -> str:
    error = found.get("error", found.get("title", "")) if isinstance(found, dict) else found
    return str(error.get("message", error) if isinstance(error, dict) else error)[:300]
