"""Annotations: what people say of predictions in no form of a label, as they come to an endpoint or in a file.

An annotation is a text or any other JSON. Of an object four members have a meaning, and all others are the sender's:
``text`` (a remark), ``tags`` (texts), ``answer`` (what would have been right) and ``spans`` (places in a text that was
asked or answered: ``{"start": 0, "end": 5, ...}``, characters counted from 0, the end not included).
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from contracts import storage
from services.feedback.layout import LogFile, files, home
from services.feedback.line_file import Unreadable, locked
from services.feedback.reading import whole
from services.feedback.records import Annotation, is_id, known_since
from services.feedback.turn import alone

FORM = '{"id": "32 hexadecimal digits", "annotation": ...}'
MOST_BYTES = 1 << 20  # of one annotation; a document has at most 16 MiB
_DEEPEST = 80  # levels; a document store refuses 100
_AT_ONCE = 1_000  # annotations that are given away together
_CHAT = ("chatcmpl-", "cmpl-")  # before the ids of OpenAI's interface
_TAKEN = ".taken-"


def checked(given: Any, now: datetime, version: str = "") -> Annotation:
    """An annotation of ``{"id": ..., "annotation": ..., "time": ...}``; `now` where it has no time.

    Raises:
        ValueError: two arguments: the field that is wrong, "" for the whole, and what is accepted.
    """
    if type(given) is not dict or not {"id", "annotation"} <= given.keys() <= {"id", "annotation", "time"}:
        raise ValueError("", f"expected {FORM} and, if it is not now, time")
    identifier = given["id"]
    if type(identifier) is str:
        for prefix in _CHAT:
            identifier = identifier.removeprefix(prefix)
    if type(identifier) is not str or not is_id(identifier):
        raise ValueError("id", 'expected the "id" of a prediction, 32 hexadecimal digits')
    try:
        time = known_since(given.get("time"), now)
    except ValueError as err:
        raise ValueError("time", str(err)) from None
    try:
        _check(given["annotation"])
        # Sorted, so that the same JSON has one key however it was written.
        content = orjson.dumps([given["annotation"], given.get("time")], option=orjson.OPT_SORT_KEYS)
    except (ValueError, TypeError) as err:
        raise ValueError("annotation", str(err)) from None
    if len(content) > MOST_BYTES:
        raise ValueError("annotation", f"has {len(content):,} bytes, and at most {MOST_BYTES:,} are kept")
    key = hashlib.sha256(content).hexdigest()[:16]
    return Annotation(id=identifier, annotation=given["annotation"], time=time, key=key, version=version)


def _check(value: Any) -> None:
    if value in (None, "", {}, []):
        raise ValueError("is empty: expected a text, or any other JSON that says something")
    _storable(value, 0)
    if isinstance(value, dict):
        for name, is_right, form in _MEMBERS:
            if name in value and not is_right(value[name]):
                raise ValueError(f"{name}: expected {form}")


def _is_span(one: Any) -> bool:
    start, end = (one.get("start"), one.get("end")) if isinstance(one, dict) else (None, None)
    return type(start) is int and type(end) is int and 0 <= start < end


_MEMBERS: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("text", lambda said: type(said) is str, "a text"),
    ("tags", lambda said: type(said) is list and all(type(one) is str and one for one in said), "a list of texts"),
    (
        "spans",
        lambda said: type(said) is list and all(map(_is_span, said)),
        'a list of objects with 0 <= "start" < "end", characters, and what you want to say of each',
    ),
)


def _storable(value: Any, depth: int) -> None:
    """Raises ValueError for what a document cannot hold."""
    if depth > _DEEPEST:
        raise ValueError(f"is nested more than {_DEEPEST} levels deep")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError(f"{value} is no number of 64 bits: write it as text")
    if isinstance(value, dict):
        for key in value:
            if key.startswith("$") or "\0" in key:
                raise ValueError(f"a key cannot be called {key!r}")
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _storable(each, depth + 1)


def schema() -> dict[str, Any]:
    """The JSON schema of what an annotation says, without the id that it is of."""
    text = {"type": "string"}
    place = {"type": "integer", "minimum": 0}
    span = {"type": "object", "required": ["start", "end"], "properties": {"start": place, "end": place}}
    members = {
        "text": {**text, "description": "a remark"},
        "tags": {"type": "array", "items": {**text, "minLength": 1}},
        "answer": {"description": "what would have been right"},
        "spans": {"type": "array", "items": span, "description": "of characters, the end not included"},
    }
    return {"description": f"any JSON of at most {MOST_BYTES} bytes; members with a meaning:", "properties": members}


@dataclass(kw_only=True)
class Taken:
    """What was taken out of the log: files that are gone, annotations, and of them those that were kept anew."""

    files: int = 0
    records: int = 0
    new: int = 0
    unreadable: Unreadable = field(default_factory=Unreadable)


def take(folder: str, model: str, keep: Callable[[Sequence[Annotation]], int]) -> Taken:
    """Give the annotations of a log away; each file goes once all of it is kept, and one with unreadable lines stays.

    Ended at any point it loses nothing: what is in the log yet is given away again, hence `keep` has to know by `id`
    and `key` what it has. What services write meanwhile is in files of its own.

    Args:
        keep: keeps some, and returns how many it did not have.

    Raises:
        PlatformError: ``code="compacting"`` when another process replaces files, the storage's own, or that of `keep`.
    """
    done, base = Taken(), home(folder, model, "annotations")
    if not files(folder, model, "annotations"):
        return done
    with alone(base) as turn:
        for found in files(folder, model, "annotations"):
            file, bad, batch = _set_aside(found), Unreadable(), list[Annotation]()
            for one in whole(folder, model, "annotations", file, Annotation, bad):
                batch.append(one)
                if len(batch) == _AT_ONCE:
                    turn.renew()
                    done.records, done.new = done.records + len(batch), done.new + keep(batch)
                    batch = []
            done.records, done.new = done.records + len(batch), done.new + (keep(batch) if batch else 0)
            done.unreadable.count += bad.count
            done.unreadable.named += bad.named
            if not bad.count:
                storage.remove(file.uri)
                done.files += 1
    return done


def _set_aside(file: LogFile) -> LogFile:
    """The file under a name that no service appends to; an object, and Parquet, is never appended to."""
    if storage.is_remote(file.uri) or not file.is_lines or _TAKEN in file.name:
        return file
    name = f"{file.name.removesuffix('.jsonl')}{_TAKEN}{secrets.token_hex(4)}.jsonl"
    with locked(Path(file.uri)):
        target = Path(file.uri).with_name(name)
        os.rename(file.uri, target)
    return replace(file, name=name, uri=str(target))


def document(one: Annotation, model: str) -> Mapping[str, Any]:
    """An annotation as a document store keeps it."""
    said = {"prediction": one.id, "model": model, "time": one.time, "annotation": one.annotation}
    return {"_id": f"{one.id}:{one.key}", **said, **({"version": one.version} if one.version else {})}
