"""The format of the prediction log: one JSON object per line, and the typed record that it is read as."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar

import orjson

SCHEMA = 2  # lines without a number are of the first one, which has no latency
_ID = re.compile(r"[0-9a-f]{32}")
_IN_LINE = re.compile(rb'"id": ?"([0-9a-f]{32})"')
AHEAD = timedelta(minutes=5)  # clocks differ; a time that is further ahead is a mistake
_END_OF_TIME = 253_402_300_800_000  # milliseconds since 1970
_FRAME = frozenset(
    ("schema", "id", "time", "model", "version", "digest", "inputs", "entities", "flags", "latency_ms", "moment")
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """One logged prediction.

    Attributes:
        time: the event time, with its zone.
        answer: what `services.problems` records of it, such as label and score.
        inputs: as the log keeps them: free text is redacted.
        entities: entity keys, hashed unless the log was told to keep them.
        latency_ms: from arrival to encoding; None in records of the first schema.
        moment: at which features were asked for; None where none were, and in older records.
    """

    id: str
    time: datetime
    model: str
    version: str
    digest: str
    answer: Mapping[str, Any]
    inputs: Mapping[str, Any]
    entities: Mapping[str, Any]
    flags: tuple[str, ...]
    latency_ms: float | None
    schema: int
    moment: datetime | None = None

    @classmethod
    def of(cls, document: Any) -> Prediction:
        """The record of a line's document, of any schema.

        Raises:
            ValueError: what is missing or wrong.
        """
        fields = _object(document)
        try:
            return cls(
                id=str(fields["id"]),
                time=moment(fields["time"]),
                model=str(fields["model"]),
                version=str(fields["version"]),
                digest=fields.get("digest", ""),
                answer={name: value for name, value in fields.items() if name not in _FRAME},
                inputs=_object(fields["inputs"]),
                entities=_object(fields.get("entities", {})),
                flags=tuple(fields.get("flags", ())),
                latency_ms=fields.get("latency_ms"),
                schema=fields.get("schema", 1),
                moment=moment(fields["moment"]) if "moment" in fields else None,
            )
        except KeyError as err:
            raise ValueError(f"has no {err.args[0]}") from None

    def document(self) -> dict[str, Any]:
        """The document of its line."""
        given: dict[str, Any] = {
            "entities": dict(self.entities),
            "flags": list(self.flags),
            "latency_ms": self.latency_ms,
            "moment": self.moment and stamp(self.moment),
        }
        return {
            **({"schema": self.schema} if self.schema > 1 else {}),
            "id": self.id,
            "time": stamp(self.time),
            "model": self.model,
            "version": self.version,
            **({"digest": self.digest} if self.digest else {}),
            **self.answer,
            "inputs": dict(self.inputs),
            **{name: value for name, value in given.items() if value not in (None, {}, [])},
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Label:
    """What turned out to be true of one prediction.

    Attributes:
        id: of the prediction.
        label: in the form of the model's problem.
        time: when it was known; of several the latest wins.
        version: of the model that took it, empty for a label from a file.
    """

    id: str
    label: Any
    time: datetime
    version: str = ""

    @classmethod
    def of(cls, document: Any) -> Label:
        """The label of a line's document.

        Raises:
            ValueError: what is missing or wrong.
        """
        fields = _object(document)
        try:
            at, version = moment(fields["time"]), fields.get("version", "")
            return cls(id=str(fields["id"]), label=fields["label"], time=at, version=version)
        except KeyError as err:
            raise ValueError(f"has no {err.args[0]}") from None

    def document(self) -> dict[str, Any]:
        """The document of its line."""
        version = {"version": self.version} if self.version else {}
        return {"id": self.id, "label": self.label, "time": stamp(self.time), **version}


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotation:
    """What somebody says of one prediction, in no form of a label.

    Attributes:
        id: of the prediction.
        annotation: any JSON that a document can hold, see `services.feedback.annotating`.
        time: when it was said.
        key: of what was sent, so that the same is kept once however often it comes.
        version: of the model that took it, empty for one from a file.
    """

    id: str
    annotation: Any
    time: datetime
    key: str
    version: str = ""

    @classmethod
    def of(cls, document: Any) -> Annotation:
        """The annotation of a line's document.

        Raises:
            ValueError: what is missing or wrong.
        """
        fields = _object(document)
        try:
            at, said, version = moment(fields["time"]), fields["annotation"], fields.get("version", "")
            return cls(id=str(fields["id"]), annotation=said, time=at, key=str(fields["key"]), version=version)
        except KeyError as err:
            raise ValueError(f"has no {err.args[0]}") from None

    def document(self) -> dict[str, Any]:
        """The document of its line."""
        version = {"version": self.version} if self.version else {}
        said = {"id": self.id, "annotation": self.annotation, "time": stamp(self.time), "key": self.key}
        return {**said, **version}


R = TypeVar("R", Prediction, Label, Annotation)


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed(Generic[R]):
    """A record, the name of the file of lines that it came from, and the byte at which its line began there."""

    record: R
    source: str
    at: int


def line_of(record: Prediction | Label | Annotation) -> bytes:
    """The line of a record, with its end."""
    return orjson.dumps(record.document(), option=orjson.OPT_APPEND_NEWLINE)


def is_id(text: str) -> bool:
    """Whether a text has the form of a prediction id, with a time before the year 10000."""
    return _ID.fullmatch(text) is not None and int(text[:12], 16) < _END_OF_TIME


def id_in(line: bytes) -> str:
    """The id of a line as services write it; "" where there is none."""
    found = _IN_LINE.search(line)
    return "" if found is None else found[1].decode()


def id_time(identifier: str) -> datetime:
    """When the prediction of this id was made: its first 12 digits are milliseconds since 1970."""
    return datetime.fromtimestamp(int(identifier[:12], 16) / 1e3, UTC)


def moment(text: Any) -> datetime:
    """A time in UTC.

    Raises:
        ValueError: it is none, or has no zone.
    """
    if not isinstance(text, str):
        raise ValueError("time is no text")
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is None:
            raise ValueError("time has no zone")
        return at.astimezone(UTC)
    except OverflowError:
        raise ValueError("time is out of range") from None


def known_since(given: Any, now: datetime) -> datetime:
    """The time of a label, given as text or as a moment; `now` where it is None.

    Raises:
        ValueError: it is no time, has no zone, or lies in the future.
    """
    if given is None:
        return now
    try:
        at = moment(given.isoformat() if isinstance(given, datetime) else given)
    except ValueError:
        raise ValueError("expected RFC 3339 with a zone, for example 2026-02-01T10:00:00Z") from None
    if at > now + AHEAD:
        raise ValueError("lies in the future")
    return at


def stamp(at: datetime) -> str:
    """A time as it is written."""
    return at.astimezone(UTC).isoformat(timespec="microseconds" if at.microsecond % 1000 else "milliseconds")


def _object(document: Any) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise ValueError("expected an object")
    return document
