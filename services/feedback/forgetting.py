"""Takes the records of one entity, and what was said of them, out of all forms of the log: the right to be forgotten.

Labels and annotations go first: after a crash the predictions are still there to say which are meant, and a second call
goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from contracts import storage
from contracts.errors import PlatformError
from services.feedback import line_file
from services.feedback.hashing import hashed
from services.feedback.layout import KINDS, REMOVED, Kind, files, home
from services.feedback.line_file import Unreadable
from services.feedback.reading import logged_annotations, parquet_form, whole
from services.feedback.records import Prediction
from services.feedback.turn import Turn, alone


@dataclass(frozen=True, kw_only=True)
class Forgotten:
    """What was removed."""

    predictions: int
    labels: int
    annotations: int = 0


def forget(
    folder: str, model: str, keys: Mapping[str, str], salt: str, first: Callable[[set[str]], object] | None = None
) -> Forgotten:
    """Remove all records of the entity that has these keys.

    first: gets the ids of their predictions before one is removed, for what else is known by them.

    Raises:
        PlatformError: ``code="compacting"`` when another process replaces files, or the storage's own.
    """
    accepted = _accepted(keys, salt)
    with ExitStack() as stack:
        turns = [stack.enter_context(alone(home(folder, model, kind))) for kind in reversed(KINDS)]
        ids = {one.id for one in _all(folder, model, turns) if _is(one, accepted)}
        if first is not None and ids:
            first(ids)
        gone = {kind: _remove(folder, model, kind, ids, turns) for kind in reversed(KINDS)}
        removed = Forgotten(predictions=len(ids), labels=gone["labels"], annotations=gone["annotations"])
        if ids:
            _note(home(folder, model), removed)
    return removed


def count(folder: str, model: str, keys: Mapping[str, str], salt: str) -> int:
    """How many predictions `forget` would remove."""
    return len(ids(folder, model, keys, salt))


def ids(folder: str, model: str, keys: Mapping[str, str], salt: str) -> set[str]:
    """The predictions that `forget` would remove."""
    accepted = _accepted(keys, salt)
    return {one.id for one in _all(folder, model, []) if _is(one, accepted)}


def annotated(folder: str, model: str, ids: Collection[str]) -> int:
    """How many annotations of these predictions are in the log."""
    return sum(one.id in ids for one in logged_annotations(folder, model)) if ids else 0


def _accepted(keys: Mapping[str, str], salt: str) -> dict[str, set[str]]:
    return {name: {key, hashed(salt.encode(), key)} for name, key in keys.items()}


def removals(folder: str, model: str) -> list[dict[str, Any]]:
    """What was removed of a model so far: when, and how much."""
    return [orjson.loads(line) for line in _notes(home(folder, model)).splitlines()]


def _all(folder: str, model: str, turns: Sequence[Turn]) -> Iterator[Prediction]:
    for file in files(folder, model):
        _renew(turns)
        yield from whole(folder, model, "predictions", file, Prediction, Unreadable())


def _is(one: Prediction, accepted: Mapping[str, set[str]]) -> bool:
    return all(_key(one, name) in values for name, values in accepted.items())


def _key(one: Prediction, name: str) -> str:
    """The key of a record: of its entity, or an input such as the user of recommendations, as far as it was logged."""
    found = one.entities.get(name, one.inputs.get(name))
    return str(found.get("hash") if isinstance(found, Mapping) else found)


def _remove(folder: str, model: str, kind: Kind, ids: set[str], turns: Sequence[Turn]) -> int:
    count = 0
    for file in files(folder, model, kind) if ids else []:
        _renew(turns)
        if file.is_lines:
            count += line_file.rewrite(file, lambda line: _id(line) in ids)
        else:
            count += parquet_form().rewrite(file.uri, lambda value: value in ids)
    return count


def _renew(turns: Sequence[Turn]) -> None:
    for turn in turns:
        turn.renew()


def _id(line: bytes) -> Any:
    try:
        document = orjson.loads(line)
    except ValueError:
        return None
    return document.get("id") if isinstance(document, dict) else None


def _note(base: str, removed: Forgotten) -> None:
    said = {"time": datetime.now(UTC).isoformat(timespec="seconds"), **asdict(removed)}
    line = orjson.dumps(said, option=orjson.OPT_APPEND_NEWLINE)
    storage.write_bytes(storage.join(base, REMOVED), _notes(base) + line)


def _notes(base: str) -> bytes:
    try:
        return storage.read_bytes(storage.join(base, REMOVED))
    except PlatformError as err:
        if err.code != "not_found":
            raise
        return b""
