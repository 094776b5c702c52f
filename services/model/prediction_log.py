"""Predictions as JSON lines, sampled and redacted, so that labels can be joined to them by id later.

Where they are is said by `services.feedback.layout`: one writer per file, whole lines only, safe to read while written.
S3 cannot append, so there an object has what gathered in `upload_seconds`. A full disk, a missing folder or an S3 that
is down costs records, never a request.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from datetime import UTC, datetime
from random import Random
from time import monotonic, sleep, time
from typing import Any, NamedTuple

import orjson

from contracts import storage
from contracts.bundle import Signature
from contracts.content import UNKNOWN, Traits, looked_at, size_column, size_traits, traits_of, unknown_share
from contracts.errors import PlatformError
from contracts.out_of_distribution import OOD
from services.feedback import layout
from services.feedback.hashing import hashed
from services.feedback.line_file import append
from services.feedback.records import SCHEMA
from services.logs import log_event
from services.metrics.service_metrics import ServiceMetrics
from services.model.distances import Distances
from services.model.request_schema import Batch
from services.model.scoring import Scored
from services.problems import get_serving
from services.settings import PredictionLogSettings

_random = Random(secrets.randbits(256))  # ids must differ, and need not be hard to guess
_MAX_QUEUED = 10_000
_WAITING_BYTES = 32 << 20  # of texts and pixels that wait to be described; records of more are lost
_PAUSE_SECONDS = 1e-4  # after each record that the thread completes
_FLUSH_SECONDS = 0.25
_OBJECT_BYTES = 4 << 20  # an object of this size is not waited for
_HELD_BYTES = 32 << 20  # of records that S3 has not taken yet; more are lost
_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE


def new_id() -> str:
    """A prediction id: 32 hex digits, the first 12 are the time in ms, so that ids sort by time."""
    return f"{int(time() * 1000):012x}{_random.getrandbits(80):020x}"


class _Content(NamedTuple):
    """The little of a text or an image that waits to be described, by what, and the part of the record for it."""

    part: dict[str, Any]
    describe: Callable[[Any], Mapping[str, Any]]
    value: Any

    @property
    def size(self) -> int:
        """About its bytes."""
        return int(getattr(self.value, "nbytes", 0)) or len(self.value) * (1 if isinstance(self.value, bytes) else 8)


class _Unfinished(NamedTuple):
    """A record without what is said of its texts and images, and the bytes that wait for it."""

    record: dict[str, Any]
    contents: list[_Content]
    size: int


class PredictionLog:
    """Writes the sampled share of the predictions of one model.

    A record is rendered where it is added, about 10 us, and a thread writes what has gathered four times a second:
    a thread that rendered them would take the interpreter from the requests for milliseconds. What is said of texts
    and images takes longer than that: the thread finds it, with a pause after each record for the requests.
    """

    def __init__(
        self,
        settings: PredictionLogSettings,
        signature: Signature,
        about: Mapping[str, str],
        metrics: ServiceMetrics,
        normal: Mapping[str, Any] | None = None,
        unknown_id: int | None = None,
        vector: Callable[[Any], Any] | None = None,
    ) -> None:
        self._settings, self._about = settings, {"schema": SCHEMA, **about}
        self._logged, self._lost = metrics.logged, metrics.lost
        self._folder = layout.home(settings.folder, about["model"])
        self._remote = storage.is_remote(self._folder)
        if self._remote:
            _reachable(self._folder)
        self._salt = (settings.salt or secrets.token_hex(16)).encode()
        self._said = get_serving(signature.problem).recorder(normal or {})
        usual = (normal or {}).get("inputs", {})
        self._traits, self._unknown = traits_of(signature.inputs, usual), unknown_id
        self._distances = {} if vector is None else Distances.of_inputs(vector, usual)
        self._entities, self._stamp = frozenset(signature.entities), signature.timestamp or ""
        # What is not one of the known categories may be anything, a name for example: it counts as free text.
        strings = [item for item in signature.inputs if item.dtype == "string"]
        self._strings = {item.name: frozenset(item.categories or ()) for item in strings}
        self._files = {item.name: size_column(item.name) for item in signature.inputs if item.dtype == "bytes"}
        self._below = int(settings.sample * 2**32)
        self._lines: list[bytes | _Unfinished] = []
        self._taken_bytes = self._done_bytes = 0  # of what is to be described, each counted by one side
        self._held, self._held_bytes = list[bytes](), 0  # taken from the queue, and not in S3 yet
        self._upload_at, self._failing = monotonic() + settings.upload_seconds, False
        self._tried: tuple[str, int] | None = None  # the object that S3 did not confirm, and how much of what is held
        self._complained = -60.0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._write_loop, name="prediction-log", daemon=True)
        self._thread.start()

    def sampled(self, identifier: str) -> bool:
        """Whether a prediction is logged: decided by its id, hence the same everywhere."""
        return int(identifier[-8:], 16) < self._below

    def add(
        self,
        identifier: str,
        row: int,
        batch: Batch,
        scored: Scored,
        latency_ms: float,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        """Queue the record of one prediction if it is sampled; drops it when the writer is far behind.

        more: what the record says of the answer beside what its problem does.
        """
        if not self.sampled(identifier):
            return
        if len(self._lines) >= _MAX_QUEUED or self._taken_bytes - self._done_bytes >= _WAITING_BYTES:
            self._lost.inc()
            return
        contents: list[_Content] = []
        record = self._record(identifier, row, batch, scored, latency_ms, contents) | dict(more or {})
        if not contents:
            self._lines.append(orjson.dumps(record, option=_OPTIONS))
            return
        size = sum(one.size for one in contents)
        self._taken_bytes += size
        self._lines.append(_Unfinished(record, contents, size))

    def close(self) -> None:
        """Write what is queued and end the thread."""
        self._closed.set()
        self._thread.join(timeout=10)

    def _record(
        self, identifier: str, row: int, batch: Batch, scored: Scored, latency_ms: float, contents: list[_Content]
    ) -> dict[str, Any]:
        record = {
            "id": identifier,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            **self._about,
            **self._said(scored.answers, scored.decided, row),
            "inputs": self._inputs(scored.inputs, batch, row, contents),
            "latency_ms": latency_ms,
        }
        if keys := self._keys(batch, row):
            record["entities"] = keys
            if self._stamp in batch.columns:
                record["moment"] = f"{batch.columns[self._stamp][row]}Z"
        if scored.ood:
            record[OOD] = scored.ood[row][0]
        if batch.flags[row]:
            record["flags"] = batch.flags[row]
        return record

    def _inputs(self, columns: Mapping[str, Any], batch: Batch, row: int, contents: list[_Content]) -> dict[str, Any]:
        inputs: dict[str, Any] = {}
        tokens = batch.prepared[row] if batch.prepared else None
        for name, values in columns.items():
            value = values[row]
            if name in self._entities:
                continue
            if name in self._files or (name in self._strings and value not in self._strings[name]):
                kept = self._file(name, batch, row, value, contents) if name in self._files else self._text(value)
                if name in self._traits and isinstance(kept, dict) and len(value):
                    contents.append(_Content(kept, self._traits[name], looked_at(value)))
                    whole = value if name in self._files else tokens
                    if tokens is not None and self._unknown is not None:
                        contents.append(_Content(kept, self._unknown_share, tokens))
                    if whole is not None and name in self._distances and self._distances[name].is_due():
                        contents.append(_Content(kept, self._distances[name], copy(whole)))
                    tokens = None  # they are of all texts together
                inputs[name] = kept
            else:
                inputs[name] = value
        return inputs

    def _text(self, value: str) -> dict[str, Any] | str:
        if self._settings.text == "truncate":
            return value[: self._settings.text_chars]
        hashes = {"hash": self._hash(value)} if self._settings.text == "hash" else {}
        return {**hashes, "chars": len(value)}

    def _unknown_share(self, tokens: Sequence[int]) -> Traits:
        assert self._unknown is not None
        return {UNKNOWN: unknown_share(tokens, self._unknown)}

    def _keys(self, batch: Batch, row: int) -> dict[str, Any]:
        if self._settings.entities == "drop":
            return {}
        keys = {name: batch.columns[name][row] for name in self._entities if name in batch.columns}
        return keys if self._settings.entities == "keep" else {name: self._hash(key) for name, key in keys.items()}

    def _file(self, name: str, batch: Batch, row: int, pixels: Any, contents: list[_Content]) -> dict[str, Any]:
        """A file is never logged: its size where it is an image, and at most the hash of what was decoded from it."""
        sizes = batch.columns.get(self._files[name])
        kept: dict[str, Any] = {} if sizes is None else dict(size_traits(sizes[row]))
        if self._settings.text == "hash":
            contents.append(_Content(kept, lambda data: {"hash": self._hash(data)}, pixels.tobytes()))
        return kept

    def _hash(self, value: Any) -> str:
        return hashed(self._salt, value)

    def _write_loop(self) -> None:
        closed = False
        while not closed:
            closed = self._closed.wait(_FLUSH_SECONDS)
            if count := len(self._lines):  # the list grows meanwhile: take this many, lose none
                taken = self._lines[:count]
                del self._lines[:count]
                lines = [one if isinstance(one, bytes) else self._finished(one) for one in taken]
                if self._remote:
                    self._held += lines
                    self._held_bytes += sum(map(len, lines))
                else:
                    self._append(lines)
            if self._held:
                self._upload(closed)
        self._lost.inc(len(self._held))  # the process ends before S3 is back

    def _finished(self, one: _Unfinished) -> bytes:
        """The line of a record, with what is said of its texts and images."""
        for content in one.contents:
            content.part.update(content.describe(content.value))
        self._done_bytes += one.size
        sleep(_PAUSE_SECONDS)
        return orjson.dumps(one.record, option=_OPTIONS)

    def _upload(self, closed: bool) -> None:
        """Write what is held as one object, when it is time or much; a failure keeps it for the next time."""
        much = self._held_bytes >= _OBJECT_BYTES and not self._failing
        if not (closed or much or monotonic() >= self._upload_at):
            return
        # A server that did not answer may have taken it: the same again, so that no record is there twice.
        uri, count = self._tried or ("", 0)
        if f"/{datetime.now(UTC):%Y-%m-%d}/" not in uri:  # days that are over are not looked at again
            uri, count = layout.new_object(self._folder), len(self._held)
        try:
            storage.write_bytes(uri, b"".join(self._held[:count]))
        except PlatformError as err:
            lost = 0
            while self._held_bytes > _HELD_BYTES:
                self._held_bytes -= len(self._held[lost])
                lost += 1
            del self._held[:lost]
            self._tried = (uri, count - lost) if count > lost else None
            self._failing = True
            self._complain(uri, f"{err.headline}: {err.detail}", lost, err.fix)
        else:
            self._logged.inc(count)
            self._held_bytes -= sum(map(len, self._held[:count]))
            del self._held[:count]
            self._failing, self._tried = False, None
            if closed and self._held:
                self._upload(closed)
        self._upload_at = monotonic() + self._settings.upload_seconds

    def _append(self, lines: list[bytes]) -> None:
        file = layout.own_file(self._folder)
        try:
            append(file, b"".join(lines))
        except OSError as err:
            fix = "free space or correct predictions.folder"
            self._complain(str(file), err.strerror or "disk full", len(lines), fix)
        else:
            self._logged.inc(len(lines))

    def _complain(self, file: str, error: str, lost: int, fix: str) -> None:
        """Count `lost` records, and say so at most once a minute."""
        self._lost.inc(lost)
        if monotonic() - self._complained > 60:
            self._complained = monotonic()
            log_event(
                "prediction_log_failed", logging.ERROR, file=file, error=error, lost=int(self._lost.value), fix=fix
            )


def _reachable(uri: str) -> None:
    """Say at the start when S3 cannot be reached, and load its library before there are requests to keep."""
    try:
        storage.exists(uri)
    except PlatformError as err:
        log_event("prediction_log_failed", logging.ERROR, file=uri, lost=0, error=err.headline, fix=err.fix)
