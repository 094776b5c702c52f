"""``fairlead labels``: a file of what turned out to be true, joined to the log of predictions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from deploy.cli.feedback.label_source import Columns, read_rows
from deploy.cli.feedback.log_actions import log_of
from deploy.cli.profiles.audit_record import note
from deploy.cli.profiles.loading import load_endpoints
from deploy.cli.terminal.output import EXIT_ERROR, emit, table

if TYPE_CHECKING:
    from rich.console import Console

    from contracts.bundle import Signature
    from services.feedback.settling import Settled

_NAMED = 10


def import_labels(profile: str, ref: str, source: str, columns: Columns, as_json: bool) -> None:
    """Keep the new labels of a file, and say what became of each; exit code 1 when rows were refused."""
    from contracts.registry import Registry
    from services.feedback.records import Label
    from services.feedback.settling import Settled, settle

    endpoints = load_endpoints(profile)
    version = Registry(endpoints).resolve(ref)
    folder = log_of(endpoints, version.name)
    signature = Registry(endpoints).fetch(f"{version.name}:{version.version}").document.signature
    settled, now, rows, refused = Settled(), datetime.now(UTC), 0, list[str]()
    count = 0
    for part in read_rows(source, columns):
        given: list[tuple[Label, bool]] = []
        for identifier, label, time in part:
            rows += 1
            try:
                given.append((_label(signature, identifier, label, time, now), time is not None))
            except ValueError as err:
                count += 1
                if len(refused) < _NAMED:
                    refused.append(f"row {rows}: {err}")
        settle(folder, version.name, given, settled, now)
    document = {
        **_document(settled, version.version),
        "model": version.name,
        "rows": rows,
        "refused": count,
        "refused_rows": refused,
    }
    note(endpoints, "import_labels", version.name, evidence={"source": source, **document})
    emit(document, as_json, lambda out: _show(out, document))
    if count:
        raise typer.Exit(EXIT_ERROR)


def _label(signature: Signature, identifier: Any, label: Any, time: Any, now: datetime) -> Any:
    from services.feedback.records import Label, known_since
    from services.problems import get_serving

    if identifier is None:
        raise ValueError("id is empty")
    serving, output = get_serving(signature.problem), signature.output
    try:
        value = serving.label_of_text(output, label) if isinstance(label, str) else _typed(serving, output, label)
    except ValueError as err:
        raise ValueError(f"label: {err}") from None
    try:
        return Label(id=str(identifier), label=value, time=known_since(time, now))
    except ValueError as err:
        raise ValueError(f"time: {err}") from None


def _typed(serving: Any, output: Any, label: Any) -> Any:
    """A label that is no text in the file: a class may be called 1 or true there."""
    try:
        return serving.label(output, label)
    except ValueError:
        if isinstance(label, float) and label.is_integer():
            label = int(label)
        if label is None or not isinstance(label, bool | int):
            raise
        return serving.label_of_text(output, str(label).lower())


def _document(settled: Settled, version: str) -> dict[str, Any]:
    by_version = dict(sorted(settled.joined.items()))
    return {
        "joined": sum(by_version.values()),
        "by_version": by_version,
        "other_versions": sum(count for name, count in by_version.items() if name != version),
        "asked_version": version,
        "corrected": settled.corrected,
        "repeated": settled.repeated,
        "contradicting": settled.contradicting,
        "contradictions": settled.named["contradicting"],
        "waiting": settled.waiting,
        "waiting_ids": settled.named["waiting"],
        "unknown": settled.unknown,
        "unknown_ids": settled.named["unknown"],
    }


def _show(out: Console, document: dict[str, Any]) -> None:
    made = table("labels", "rows", "what it means", right=("rows",))
    made.add_row("joined", f"{document['joined']:,}", "new, and kept")
    for version, count in document["by_version"].items():
        other = "" if version == document["asked_version"] else f"not of version {document['asked_version']}"
        made.add_row(f"  of version {version}", f"{count:,}", other)
    made.add_row(
        "corrected", f"{document['corrected']:,}", "of the joined: there was another label; the later one counts"
    )
    made.add_row("repeated", f"{document['repeated']:,}", "there already")
    made.add_row(
        "contradicting", f"{document['contradicting']:,}", "same id and time, another label: the first is kept"
    )
    made.add_row("waiting", f"{document['waiting']:,}", "no such prediction in the log yet; joined when it comes")
    made.add_row("unknown", f"{document['unknown']:,}", "no such prediction of the last week in the log; not kept")
    made.add_row("refused", f"{document['refused']:,}", "no label of this model, or no time")
    out.print(made)
    for one in document["contradictions"]:
        kept, refused = one["kept"], one["refused"]
        out.print(
            f"Contradicting  {one['id']} at {one['time']}: {kept} is kept, {refused} is not",
            soft_wrap=True,
            markup=False,
        )
    for name in ("waiting", "unknown"):
        if some := document[f"{name}_ids"]:
            more = document[name] - len(some)
            ids = ", ".join(some) + (f" and {more:,} more" if more else "")
            out.print(f"{name.capitalize():<13}  {ids}", soft_wrap=True, markup=False)
    for row in document["refused_rows"]:
        out.print(f"Refused        {row}", soft_wrap=True, markup=False)
