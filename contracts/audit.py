"""The audit log: who or what did something to a model, when, why and on which evidence; append-only, a hash chain.

Each entry holds the hash of the one before it (Haber and Stornetta 1991), so a change anywhere breaks the chain from
there on. In a folder the log is one file of JSON lines, in S3 one object for each entry. `head.json` beside them has
number and hash of an entry that was written whole: it tells a line that a crash tore from one that somebody cut, and
finds a missing end. Who may write both can write another history: keep the hash that `verify` gives elsewhere, or the
log in a bucket that refuses to overwrite.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from contracts import storage
from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from contracts.file_lock import file_lock

START = "0" * 64
"""The hash before the first entry."""

_FILE, _HEAD, _LOCK = "audit.jsonl", "head.json", ".lock"
_FIELDS = {"sequence": int, "time": str, "actor": str, "action": str, "subject": str, "reason": str, "evidence": dict}
_HEAD_FIELDS = {"sequence": int, "hash": str, "bytes": int}
_EMPTY: dict[str, Any] = {"sequence": 0, "hash": START, "bytes": 0}
_TRIES = 1000  # to find a free number in S3


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One action.

    Attributes:
        sequence: its number, from 1 on.
        time: UTC, ISO 8601.
        actor: who or what acted: ``user:NAME`` or ``controller``, for example.
        action: what was done, such as ``promote`` or ``start_run``.
        subject: what it was done to: ``MODEL`` or ``MODEL:VERSION``.
        evidence: what the reason rests on; JSON.
        previous: the hash of the entry before; `START` for the first.
        hash: sha256 of all other fields as canonical JSON.
    """

    sequence: int
    time: str
    actor: str
    action: str
    subject: str
    reason: str = ""
    evidence: dict[str, Any] = field(default_factory=dict)
    previous: str
    hash: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The entry as JSON has it."""
        return asdict(self)

    def digest(self) -> str:
        """What `hash` must be."""
        return hashlib.sha256(_canonical({k: v for k, v in self.as_dict().items() if k != "hash"})).hexdigest()

    def about(self, subject: str) -> bool:
        """Whether it is of `subject`, or of a version of the model that `subject` names."""
        return self.subject == subject or self.subject.partition(":")[0] == subject


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What `AuditLog.verify` found.

    Attributes:
        entries: how many are whole, from the first on.
        broken: number of the first entry that is not as it was written; None where all are.
        reason: what is wrong with it.
        torn: whether a crash left the beginning of an entry that nobody was told of; the next append removes it.
        hash: of the last whole entry.
    """

    entries: int
    broken: int | None = None
    reason: str = ""
    torn: bool = False
    hash: str = START

    @property
    def intact(self) -> bool:
        """Whether nothing was changed, removed or reordered."""
        return self.broken is None


class AuditLog:
    """A log in a local folder or below ``s3://bucket/prefix``. Safe to append to from several processes at once."""

    def __init__(self, place: str | Path) -> None:
        self.place = str(place)
        self._log: _File | _Objects = _Objects(self.place) if storage.is_remote(self.place) else _File(Path(place))

    @classmethod
    def of(cls, endpoints: Endpoints) -> AuditLog:
        """The log of a platform, which is beside its models."""
        return cls(storage.join(endpoints.uri("artifacts"), ".audit"))

    def append(
        self, *, actor: str, action: str, subject: str, reason: str = "", evidence: Mapping[str, Any] | None = None
    ) -> Entry:
        """Write an entry; it is on disk, or in the store, when this returns.

        Raises:
            PlatformError: ``code="audit_broken"``: the end of the log is not as it was written; or the storage fails.
        """
        told = {"actor": actor, "action": action, "subject": subject, "reason": reason}
        return self._log.append(_plain({**told, "evidence": dict(evidence or {})}))

    def read(self, *, since: datetime | str | None = None, subject: str | None = None) -> list[Entry]:
        """The entries, oldest first: those from `since` on, of `subject` or a version of it; no chain is checked.

        since: a moment, or its ISO form; without a zone it is UTC.

        Raises:
            PlatformError: ``code="audit_broken"``: a line that is no entry.
        """
        start = _moment(since) if isinstance(since, str) else since
        found = []
        for number, record in enumerate(self._log.all()[1], 1):
            entry = _entry(record)
            if entry is None:
                raise _broken(self.place, f"entry {number} cannot be read")
            if (start is None or _moment(entry.time) >= start) and (subject is None or entry.about(subject)):
                found.append(entry)
        return found

    def verify(self) -> Verdict:
        """Check every entry against the one before; names the first that is changed, missing or not in its place."""
        head, records, torn = self._log.all()
        known = [_entry(record) for record in records]
        numbers = {entry.sequence for entry in known if entry is not None}
        previous = START
        for number, (record, entry) in enumerate(zip(records, known, strict=True), 1):
            if reason := _fault(number, record, entry, previous, numbers):
                return Verdict(entries=number - 1, broken=number, reason=reason, torn=torn, hash=previous)
            previous = entry.hash if entry else previous
        reason, at = "", len(records) + 1
        if head is None:
            reason = f"{_HEAD} is missing, or not as it was written"
        elif head["sequence"] > len(records):
            reason = f"it is {'cut off' if torn else 'missing'}: {head['sequence']} entries were written"
        elif head["hash"] != ([START, *(entry.hash for entry in known if entry)])[head["sequence"]]:
            at, reason = head["sequence"], f"it is another one than {_HEAD} says"
        return Verdict(entries=len(records), broken=at if reason else None, reason=reason, torn=torn, hash=previous)


class _File:
    """One file; a lock keeps writers apart, and each line is on disk before the head that counts it."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._file, self._head = folder, folder / _FILE, folder / _HEAD

    def append(self, told: dict[str, Any]) -> Entry:
        self._folder.mkdir(parents=True, exist_ok=True)
        with file_lock(self._folder / _LOCK), self._file.open("a+b") as log:
            head = self._mended(log)
            entry = _made(head["sequence"] + 1, head["hash"], told)
            log.write(_canonical(entry.as_dict()) + b"\n")
            log.flush()
            os.fsync(log.fileno())
            self._write_head({"sequence": entry.sequence, "hash": entry.hash, "bytes": log.tell()})
        return entry

    def all(self) -> tuple[dict[str, Any] | None, list[bytes], bool]:
        head = self._head.read_bytes() if self._head.exists() else None  # first: the log may grow meanwhile
        *lines, rest = (self._file.read_bytes() if self._file.exists() else b"").split(b"\n")
        if head is None:  # then there is at most the entry that was written as a crash came
            return _EMPTY if len(lines) < 2 else None, lines, bool(rest)
        found = _head(head)
        if found and found["bytes"] != sum(len(line) + 1 for line in lines[: found["sequence"]]):
            found = found if found["sequence"] > len(lines) else None
        return found, lines, bool(rest)

    def _mended(self, log: Any) -> dict[str, Any]:
        """The head, after what a crash between line and head left: a whole line counts, a torn one goes."""
        head = _head(self._head.read_bytes()) if self._head.exists() else _EMPTY
        size = log.seek(0, os.SEEK_END)
        if head is None or size < head["bytes"]:
            what = f"{_HEAD} is" if head is None else f"the end, with entry {head['sequence']}, is"
            raise _broken(str(self._folder), f"{what} not as it was written")
        log.seek(head["bytes"])
        *lines, rest = log.read().split(b"\n")
        for line in lines:
            entry = _entry(line)
            if entry is None or _fault(head["sequence"] + 1, line, entry, head["hash"], set()):
                raise _broken(str(self._folder), f"entry {head['sequence'] + 1} is not as it was written")
            head = {"sequence": entry.sequence, "hash": entry.hash, "bytes": head["bytes"] + len(line) + 1}
        if rest:
            log.truncate(head["bytes"])
        return head

    def _write_head(self, document: dict[str, Any]) -> None:
        staged = self._head.with_name(f".{_HEAD}")
        with staged.open("wb") as file:
            file.write(_canonical(document))
            file.flush()
            os.fsync(file.fileno())
        os.replace(staged, self._head)


class _Objects:
    """One object for each entry, put on condition that its number is free; the head says where to look for the end."""

    def __init__(self, place: str) -> None:
        self._place, self._head = place, storage.join(place, _HEAD)

    def append(self, told: dict[str, Any]) -> Entry:
        head = _head(_found(self._head))
        if head is None:
            raise _broken(self._place, f"{_HEAD} is not as it was written")
        number, previous, written = head["sequence"] + 1, head["hash"], b""
        for _ in range(_TRIES):
            made = None
            record = _found(self._name(number))
            if not record:
                made = _made(number, previous, told)
                written = _canonical(made.as_dict())
                if not storage.write_new(self._name(number), written):
                    continue  # somebody was first, or this is a retry of a put that did arrive
            elif record == written:
                made = _entry(record)
            if made is not None:
                document = {"sequence": number, "hash": made.hash, "bytes": 0}
                storage.write_bytes(self._head, _canonical(document))
                return made
            entry = _entry(record)
            if entry is None or _fault(number, record, entry, previous, set()):
                raise _broken(self._place, f"entry {number} is not as it was written")
            number, previous = number + 1, entry.hash
        raise PlatformError(
            f"the audit log in {self._place} is too busy",
            detail=f"others took the place of an entry {_TRIES} times",
            fix="try again",
            code="audit_busy",
        )

    def all(self) -> tuple[dict[str, Any] | None, list[bytes], bool]:
        head = _head(_found(self._head))
        names = [name for name in storage.list_names(self._place) if name != _HEAD]
        storage.ready(self._place)
        with ThreadPoolExecutor(16) as readers:
            return head, list(readers.map(lambda name: _found(storage.join(self._place, name)), names)), False

    def _name(self, number: int) -> str:
        return storage.join(self._place, f"{number:012d}.json")


def _found(uri: str) -> bytes:
    """The content of an object; nothing where it is not there."""
    try:
        return storage.read_bytes(uri)
    except PlatformError as err:
        if err.code != "not_found":
            raise
        return b""


def _made(number: int, previous: str, told: Mapping[str, Any]) -> Entry:
    entry = Entry(sequence=number, time=datetime.now(UTC).isoformat(timespec="milliseconds"), previous=previous, **told)
    return Entry(**{**entry.as_dict(), "hash": entry.digest()})


def _entry(record: bytes) -> Entry | None:
    """The entry of a record; None where it is none."""
    try:
        document = json.loads(record)
        _canonical(document)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or set(document) != set(_FIELDS) | {"previous", "hash"}:
        return None
    typed = all(isinstance(document[name], kind) for name, kind in _FIELDS.items())
    return Entry(**document) if typed else None


def _fault(number: int, record: bytes, entry: Entry | None, previous: str, numbers: set[int]) -> str:
    """What is wrong with the record in place `number`; empty where nothing is."""
    if entry is None:
        return "it cannot be read"
    if entry.sequence != number:
        return f"it is {'not in its place' if number in numbers else 'missing'}: number {entry.sequence} is there"
    if entry.digest() != entry.hash or _canonical(entry.as_dict()) != record:
        return "it was changed"
    return "" if entry.previous == previous else "it does not follow the entry before it"


def _head(text: bytes) -> dict[str, Any] | None:
    """The document of a head; that of an empty log where it is empty, None where it is not one of ours."""
    if not text:
        return _EMPTY
    try:
        document = json.loads(text)
    except ValueError:
        return None
    if not isinstance(document, dict) or {key: type(value) for key, value in document.items()} != _HEAD_FIELDS:
        return None
    return document if _canonical(document) == text and min(document["sequence"], document["bytes"]) >= 0 else None


def _canonical(document: Mapping[str, Any]) -> bytes:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def _plain(told: Mapping[str, Any]) -> dict[str, Any]:
    """The same as JSON gives it back; numbers that JSON lacks become null, halves of characters a question mark."""
    text = json.dumps(told, default=str, ensure_ascii=False).encode("utf-8", "replace")
    made: dict[str, Any] = json.loads(text, parse_constant=lambda _: None)
    return made


def _moment(text: str) -> datetime:
    """A moment of its ISO form; without a zone it is UTC.

    Raises:
        PlatformError: ``code="bad_moment"``.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as err:
        raise PlatformError(
            f"not a moment: {text!r}",
            detail=str(err),
            fix="write 2026-01-31 or 2026-01-31T12:00:00Z",
            code="bad_moment",
        ) from err
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _broken(place: str, detail: str) -> PlatformError:
    return PlatformError(
        f"the audit log in {place} is broken",
        detail=detail,
        fix="look what happened: fairlead audit verify; then keep the folder as evidence elsewhere, a new log begins",
        code="audit_broken",
    )
