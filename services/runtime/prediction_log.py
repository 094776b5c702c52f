"""Predictions as JSON lines, sampled and redacted, so that labels can be joined to them by id later.

Files are ``<folder>/<model>/<day>.<pid>.jsonl``: one writer per file, whole lines only, safe to read while written.
A full disk or a missing folder costs records, never a request.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import secrets
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from time import monotonic, time
from typing import Any

import orjson

from contracts.bundle import Signature
from services.runtime.forms import Batch
from services.runtime.logs import log_event
from services.runtime.scoring import Scored
from services.runtime.settings import PredictionLogSettings

_random = Random(secrets.randbits(256))  # ids must differ, and need not be hard to guess
_MAX_QUEUED = 10_000
_FLUSH_SECONDS = 0.25
_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE


def new_id() -> str:
    """A prediction id: 32 hex digits, the first 12 are the time in ms, so that ids sort by time."""
    return f"{int(time() * 1000):012x}{_random.getrandbits(80):020x}"


class PredictionLog:
    """Writes the sampled share of the predictions of one model.

    A record is rendered where it is added, about 10 us, and a thread writes what has gathered four times a second:
    a thread that rendered them would take the interpreter from the requests for milliseconds.
    """

    def __init__(self, settings: PredictionLogSettings, signature: Signature, about: Mapping[str, str]) -> None:
        self._settings, self._about = settings, dict(about)
        self._folder = Path(settings.folder).expanduser().absolute() / about["model"]
        self._salt = (settings.salt or secrets.token_hex(16)).encode()
        self._entities = frozenset(signature.entities)
        # What is not one of the known categories may be anything, a name for example: it counts as free text.
        strings = [item for item in signature.inputs if item.dtype == "string"]
        self._strings = {item.name: frozenset(item.categories or ()) for item in strings}
        self._below = int(settings.sample * 2**32)
        self._lines: list[bytes] = []
        self._lost, self._complained = 0, -60.0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._write_loop, name="prediction-log", daemon=True)
        self._thread.start()

    def sampled(self, identifier: str) -> bool:
        """Whether a prediction is logged: decided by its id, hence the same everywhere."""
        return int(identifier[-8:], 16) < self._below

    def add(self, identifier: str, row: int, batch: Batch, scored: Scored) -> None:
        """Queue the record of one prediction if it is sampled; drops it when the writer is far behind."""
        if not self.sampled(identifier):
            return
        if len(self._lines) >= _MAX_QUEUED:
            self._lost += 1
            return
        self._lines.append(orjson.dumps(self._record(identifier, row, batch, scored), option=_OPTIONS))

    def close(self) -> None:
        """Write what is queued and end the thread."""
        self._closed.set()
        self._thread.join(timeout=10)

    def _record(self, identifier: str, row: int, batch: Batch, scored: Scored) -> dict[str, Any]:
        record = {
            "id": identifier,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            **self._about,
            "label": scored.labels[row],
            "score": scored.scores[row],
            "probabilities": scored.probabilities[row],
            "inputs": self._inputs(scored.inputs, row),
        }
        if keys := self._keys(batch, row):
            record["entities"] = keys
        if batch.flags[row]:
            record["flags"] = batch.flags[row]
        return record

    def _inputs(self, columns: Mapping[str, Any], row: int) -> dict[str, Any]:
        inputs: dict[str, Any] = {}
        for name, values in columns.items():
            value = values[row]
            if name in self._entities:
                continue
            if name not in self._strings or value in self._strings[name]:
                inputs[name] = value
            elif self._settings.text == "hash":
                inputs[name] = {"hash": self._hash(value), "chars": len(value)}
            elif self._settings.text == "truncate":
                inputs[name] = value[: self._settings.text_chars]
            else:
                inputs[name] = {"chars": len(value)}
        return inputs

    def _keys(self, batch: Batch, row: int) -> dict[str, Any]:
        if self._settings.entities == "drop":
            return {}
        keys = {name: batch.columns[name][row] for name in self._entities if name in batch.columns}
        return keys if self._settings.entities == "keep" else {name: self._hash(key) for name, key in keys.items()}

    def _hash(self, value: Any) -> str:
        return hmac.new(self._salt, str(value).encode(), hashlib.sha256).hexdigest()[:32]

    def _write_loop(self) -> None:
        closed = False
        while not closed:
            closed = self._closed.wait(_FLUSH_SECONDS)
            if count := len(self._lines):  # the list grows meanwhile: take this many, lose none
                lines = self._lines[:count]
                del self._lines[:count]
                self._append(lines)

    def _append(self, lines: list[bytes]) -> None:
        data = b"".join(lines)
        file = self._folder / f"{datetime.now(UTC):%Y-%m-%d}.{os.getpid()}.jsonl"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            before = file.stat().st_size if file.exists() else 0
            with file.open("ab", buffering=0) as stream:
                if stream.write(data) != len(data):
                    stream.truncate(before)  # a full disk takes part of a line
                    raise OSError("short write")
        except OSError as err:
            self._lost += len(lines)
            if monotonic() - self._complained > 60:
                self._complained = monotonic()
                log_event(
                    "prediction_log_failed",
                    logging.ERROR,
                    file=str(file),
                    error=err.strerror or "disk full",
                    lost=self._lost,
                    fix="free space or correct predictions.folder",
                )
