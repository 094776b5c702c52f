"""``fairlead predictions annotate``: what people say of predictions in no form of a label, kept as documents.

An annotation is any JSON with the id of a prediction: ``{"id": ..., "annotation": ..., "time": ...}``. It comes in a
file, a line each, or to an endpoint, which keeps it beside the log of predictions until it is moved from there. The
document store of the profile keeps it in ``MODEL.annotations``, once however often and by whatever way it comes.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import typer

from contracts.errors import PlatformError
from deploy.cli.feedback.log_actions import log_of
from deploy.cli.profiles.audit_record import note
from deploy.cli.profiles.loading import document_store, load_endpoints
from deploy.cli.terminal.output import EXIT_ERROR, emit, table
from services.feedback.annotation_store import Annotations

if TYPE_CHECKING:
    from rich.console import Console

    from services.feedback.records import Annotation

_NAMED = 10
_AT_ONCE = 1_000  # documents of one request


def annotate(profile: str, model: str, source: str, as_json: bool) -> None:
    """Keep the annotations of a file of JSON lines, else those that endpoints got; exit code 1 when some were refused.

    Raises:
        PlatformError: no document store is set, there is no such file or log, or the server refuses.
    """
    kept = Annotations(document_store(profile), model)
    endpoints = load_endpoints(profile)
    said = _of_file(kept, model, source) if source else _of_log(kept, model, log_of(endpoints, model))
    document = {"model": model, **said}
    note(endpoints, "annotate_predictions", model, evidence={"source": source or "(log)", **document})
    emit(document, as_json, lambda out: _show(out, document))
    if document["refused"]:
        raise typer.Exit(EXIT_ERROR)


def _of_file(kept: Annotations, model: str, source: str) -> dict[str, Any]:
    from services.feedback import annotating

    now, rows, count, refused, new = datetime.now(UTC), 0, 0, list[str](), 0
    batch: list[Any] = []
    for line in _lines(source):
        rows += 1
        try:
            batch.append(annotating.document(_checked(line, now), model))
        except ValueError as err:
            count += 1
            if len(refused) < _NAMED:
                refused.append(f"row {rows}: {err}")
        if len(batch) >= _AT_ONCE:
            new += kept.write(batch)
            batch.clear()
    new += kept.write(batch)
    return {"rows": rows, "kept": new, "repeated": rows - count - new, "refused": count, "refused_rows": refused}


def _of_log(kept: Annotations, model: str, folder: str) -> dict[str, Any]:
    """Move what endpoints were sent from the log to the document store."""
    from services.feedback.annotating import document, take

    done = take(folder, model, lambda some: kept.write([document(one, model) for one in some]))
    bad = done.unreadable
    counts = {"rows": done.records + bad.count, "kept": done.new, "repeated": done.records - done.new}
    return {**counts, "refused": bad.count, "refused_rows": bad.named[:_NAMED]}


def _lines(source: str) -> Iterator[bytes]:
    from services.feedback.annotating import FORM

    file = Path(source).expanduser()
    if not file.is_file():
        raise PlatformError(f"no such file: {source}", fix=f"give a file of JSON lines: {FORM}", code="not_found")
    with file.open("rb") as stream:
        yield from (line for line in stream if line.strip())


def _checked(line: bytes, now: datetime) -> Annotation:
    """The annotation of a line.

    Raises:
        ValueError: what is wrong.
    """
    from services.feedback import annotating

    try:
        return annotating.checked(orjson.loads(line), now)
    except orjson.JSONDecodeError as err:
        raise ValueError(f"no JSON: {err}") from None
    except ValueError as err:
        raise ValueError(": ".join(filter(None, err.args))) from None


def show(profile: str, model: str, prediction: str, as_json: bool) -> None:
    """Print the annotations of a prediction: of the document store, if there is one, and those that are in the log yet.

    Raises:
        PlatformError: there are none, or the server refuses.
    """
    endpoints = load_endpoints(profile)
    found = {one["_id"]: one for one in _in_log(endpoints.uri("predictions"), model, prediction)}
    if endpoints.documents:
        found |= {one["_id"]: one for one in Annotations(endpoints.documents, model).of(prediction)}
    if not found:
        raise PlatformError(
            f"prediction {prediction} of {model} has no annotations",
            detail="" if endpoints.documents else f"profile {profile} has no key documents, so only the log was read",
            fix="look whether model and id are right, or keep some: fairlead predictions annotate MODEL --source FILE",
            code="not_found",
        )
    rows = sorted(found.values(), key=lambda one: (one["time"], one["_id"]))
    told = [{"time": each["time"].isoformat(), "annotation": each["annotation"]} for each in rows]
    emit({"prediction": prediction, "annotations": told}, as_json, lambda out: _list(out, told))


def _in_log(folder: str, model: str, prediction: str) -> list[Any]:
    from services.feedback.annotating import document
    from services.feedback.reading import logged_annotations
    from services.feedback.records import id_time, is_id

    since = id_time(prediction).date() - timedelta(days=1) if is_id(prediction) else None
    return [document(one, model) for one in logged_annotations(folder, model, since=since) if one.id == prediction]


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
