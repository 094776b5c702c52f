"""``fairlead audit``: what was done to models, by whom and why; whether the log is whole; all of it as JSON lines."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import typer

from contracts.audit import AuditLog, Entry
from deploy.cli.profiles.loading import load_endpoints
from deploy.cli.terminal.output import EXIT_ERROR, emit, table

if TYPE_CHECKING:
    from rich.console import Console

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_SHOWN = 60  # characters of evidence


def show_entries(profile: str, subject: str | None, since: str, as_json: bool) -> None:
    """The entries of one subject or of all, oldest first."""
    log = AuditLog.of(load_endpoints(profile))
    found = entries(log, subject, since)

    def show(out: Console) -> None:
        if not found:
            out.print(f"Nothing in the audit log {log.place}", soft_wrap=True, markup=False)
            return
        rows = table("no.", "time (UTC)", "who", "did", "to", "why", right=("no.",))
        for entry in found:
            moment = entry.time[:19].replace("T", " ")
            rows.add_row(str(entry.sequence), moment, entry.actor, entry.action, entry.subject, why(entry))
        out.print(rows)
        out.print("Evidence: --json. Whether the log is whole: fairlead audit verify", markup=False)

    emit([entry.as_dict() for entry in found], as_json, show)


def entries(log: AuditLog, subject: str | None, since: str) -> list[Entry]:
    """The entries of one subject or of all, oldest first; `since` is a moment, or 90m, 12h, 7d, 2w ago."""
    return log.read(since=_start(since), subject=subject)


def why(entry: Entry) -> str:
    """The reason of an entry, else its evidence in a few words."""
    return entry.reason or _short(entry.evidence)


def verify_log(profile: str, as_json: bool) -> None:
    """Whether the log is whole; exit code 1 where it is not."""
    log = AuditLog.of(load_endpoints(profile))
    verdict = log.verify()

    def show(out: Console) -> None:
        if verdict.intact:
            out.print(f"[green]whole[/]: {verdict.entries} entries in {log.place}", soft_wrap=True)
            out.print(f"Hash of the last: {verdict.hash}; keep it elsewhere", soft_wrap=True)
        else:
            out.print(f"[bold red]not whole[/]: entry {verdict.broken}: {verdict.reason}", soft_wrap=True)
            out.print(f"Before it {verdict.entries} entries are as they were written; the log: {log.place}")
        if verdict.torn and verdict.intact:
            out.print("A crash left the beginning of an entry that nobody was told of; the next one takes its place")

    document = {
        "intact": verdict.intact,
        "entries": verdict.entries,
        "broken": verdict.broken,
        "reason": verdict.reason,
        "torn": verdict.torn,
        "hash": verdict.hash,
        "log": log.place,
    }
    emit(document, as_json, show)
    if not verdict.intact:
        raise typer.Exit(EXIT_ERROR)


def export_entries(profile: str, subject: str | None, since: str) -> None:
    """Each entry as one line of JSON on stdout."""
    for entry in entries(AuditLog.of(load_endpoints(profile)), subject, since):
        sys.stdout.write(json.dumps(entry.as_dict(), ensure_ascii=False) + "\n")


def _start(since: str) -> datetime | str | None:
    """A moment as it is written, or so long ago: ``90m``, ``12h``, ``7d``, ``2w``."""
    number, unit = since[:-1], since[-1:]
    if number.isdigit() and unit in _UNITS:
        return datetime.now(UTC) - timedelta(**{_UNITS[unit]: int(number)})
    return since or None


def _short(evidence: dict[str, Any]) -> str:
    text = ", ".join(f"{key} {value}" for key, value in evidence.items() if not isinstance(value, dict | list))
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
