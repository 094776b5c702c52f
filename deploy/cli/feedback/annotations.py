"""``fairlead predictions annotate``: what people say of predictions in no form of a label, kept as documents.

An annotation is any JSON with the id of a prediction: ``{"id": ..., "annotation": ..., "time": ...}``, a line each. It
has no place in the log of predictions, whose labels have one form; the document store of the profile keeps it in
``MODEL.annotations``, once however often it is given.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import typer

from contracts.errors import PlatformError
from deploy.cli.profiles.audit_record import note
from deploy.cli.profiles.loading import document_store, load_endpoints
from deploy.cli.terminal.output import EXIT_ERROR, emit, table
from pipelines.data.document_store import Annotations

if TYPE_CHECKING:
    from rich.console import Console

_NAMED = 10
_AT_ONCE = 1_000  # documents of one request
_MOST = 1 << 20  # bytes of a line
_DEEPEST = 80  # levels; a server refuses 100
_FORM = '{"id": "32 hexadecimal digits", "annotation": ...}'


def annotate(profile: str, model: str, source: str, as_json: bool) -> None:
    """Keep the annotations of a file of JSON lines; exit code 1 when some were refused.

    Raises:
        PlatformError: no document store is set, there is no such file, or the server refuses.
    """
    kept = Annotations(document_store(profile), model)
    now, rows, count, refused, new = datetime.now(UTC), 0, 0, list[str](), 0
    batch: list[dict[str, Any]] = []
    for line in _lines(source):
        rows += 1
        try:
            batch.append(_document(line, model, now))
        except ValueError as err:
            count += 1
            if len(refused) < _NAMED:
                refused.append(f"row {rows}: {err}")
        if len(batch) >= _AT_ONCE:
            new += kept.write(batch)
            batch.clear()
    new += kept.write(batch)
    said = {"model": model, "rows": rows, "kept": new, "repeated": rows - count - new}
    document = {**said, "refused": count, "refused_rows": refused}
    note(load_endpoints(profile), "annotate_predictions", model, evidence={"source": source, **document})
    emit(document, as_json, lambda out: _show(out, document))
    if count:
        raise typer.Exit(EXIT_ERROR)


def _lines(source: str) -> Iterator[bytes]:
    file = Path(source).expanduser()
    if not file.is_file():
        raise PlatformError(f"no such file: {source}", fix=f"give a file of JSON lines: {_FORM}", code="not_found")
    with file.open("rb") as stream:
        yield from (line for line in stream if line.strip())


def _document(line: bytes, model: str, now: datetime) -> dict[str, Any]:
    """An annotation as it is kept.

    Raises:
        ValueError: what is wrong.
    """
    from services.feedback.records import is_id, known_since

    if len(line) > _MOST:
        raise ValueError(f"{len(line):,} bytes, and at most {_MOST:,} are kept")
    try:
        given = orjson.loads(line)
    except orjson.JSONDecodeError as err:
        raise ValueError(f"no JSON: {err}") from None
    if not isinstance(given, dict) or not {"id", "annotation"} <= given.keys() <= {"id", "annotation", "time"}:
        raise ValueError(f"expected {_FORM} and, if it is not now, time")
    if not isinstance(given["id"], str) or not is_id(given["id"]):
        raise ValueError('expected the "id" of a prediction, 32 hexadecimal digits')
    try:
        time = known_since(given.get("time"), now)
    except ValueError as err:
        raise ValueError(f"time: {err}") from None
    _storable(given["annotation"])
    content = orjson.dumps([given["annotation"], given.get("time")], option=orjson.OPT_SORT_KEYS)
    name = f"{given['id']}:{hashlib.sha256(content).hexdigest()[:16]}"
    return {"_id": name, "prediction": given["id"], "model": model, "time": time, "annotation": given["annotation"]}


def _storable(value: Any, depth: int = 0) -> None:
    """Raises ValueError for what a document cannot hold."""
    if depth > _DEEPEST:
        raise ValueError(f"annotation: nested more than {_DEEPEST} levels deep")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError(f"annotation: {value} is no number of 64 bits: write it as text")
    if isinstance(value, dict):
        for key in value:
            if key.startswith("$") or "\0" in key:
                raise ValueError(f"annotation: a key cannot be called {key!r}")
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _storable(each, depth + 1)


def show(profile: str, model: str, prediction: str, as_json: bool) -> None:
    """Print the annotations of a prediction.

    Raises:
        PlatformError: no document store is set, or there are none.
    """
    found = Annotations(document_store(profile), model).of(prediction)
    if not found:
        raise PlatformError(
            f"prediction {prediction} of {model} has no annotations",
            fix="look whether model and id are right, or keep some: fairlead predictions annotate MODEL --source FILE",
            code="not_found",
        )
    document = {"prediction": prediction, "annotations": [{**each, "time": each["time"].isoformat()} for each in found]}
    emit(document, as_json, lambda out: _list(out, document["annotations"]))


def _list(out: Console, rows: Any) -> None:
    made = table("time", "annotation")
    for each in rows:
        made.add_row(each["time"], orjson.dumps(each["annotation"]).decode())
    out.print(made)


def _show(out: Console, document: dict[str, Any]) -> None:
    out.print(f"{document['kept']:,} annotations are kept, {document['repeated']:,} were there before")
    for line in document["refused_rows"]:
        out.print(f"refused  {line}", style="yellow", markup=False, soft_wrap=True)
    if document["refused"] > len(document["refused_rows"]):
        out.print(f"and {document['refused'] - len(document['refused_rows']):,} more are refused", style="yellow")
