"""Commands about the audit log: show, verify, export."""

from __future__ import annotations

from typing import Annotated

import typer

from contracts.errors import PlatformError
from deploy.cli.terminal.options import DEFAULT_PROFILE, Json, Profile
from deploy.cli.terminal.output import guarded

_Subject = Annotated[
    str | None, typer.Option("--model", "--subject", "-m", metavar="NAME", help="Of this model, task or NAME:VERSION.")
]
_Since = Annotated[str, typer.Option(help="From then on: 2026-01-31, 2026-01-31T12:00, or 90m, 12h, 7d, 2w ago.")]
_audit = typer.Typer(invoke_without_command=True)


def register(app: typer.Typer) -> None:
    """Add ``audit`` to the command line."""
    app.add_typer(_audit, name="audit", rich_help_panel="Govern")


@_audit.callback()
@guarded
def audit(
    context: typer.Context,
    subject: _Subject = None,
    since: _Since = "",
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """Who or what did something to a model, when, why, on which evidence.

    People's commands (promote, rollback, deploy) and the loop's actions are in it. It is append-only: each entry holds
    the hash of the one before, so what is changed, removed or reordered is found by: fairlead audit verify

    [bold]Examples[/]
      fairlead audit
      fairlead audit --model fraud --since 7d
      fairlead audit --json
    """
    if context.invoked_subcommand is None:
        from deploy.cli.loop.audit_trail import show_entries

        show_entries(profile, subject, since, as_json)
        return
    source = context.get_parameter_source("profile")
    if source is not None and source.name == "COMMANDLINE":  # it would be taken for the command's, and is not
        words = " ".join(["fairlead audit", context.invoked_subcommand, "--profile", profile])
        raise PlatformError("--profile stands behind the command", fix=words, code="bad_option")


@_audit.command()
@guarded
def verify(profile: Profile = DEFAULT_PROFILE, as_json: Json = False) -> None:
    """Check the whole chain; names the first entry that is changed, missing or out of place, with exit code 1.

    A line that a crash tore is told from a change. Who can write the log's folder can write another history: keep the
    hash that this prints where they cannot.

    [bold]Examples[/]
      fairlead audit verify
      fairlead audit verify --json
    """
    from deploy.cli.loop.audit_trail import verify_log

    verify_log(profile, as_json)


@_audit.command()
@guarded
def export(subject: _Subject = None, since: _Since = "", profile: Profile = DEFAULT_PROFILE) -> None:
    """Write the entries as JSON lines, one each, with hashes and evidence; as one document: fairlead audit --json.

    [bold]Examples[/]
      fairlead audit export > audit.jsonl
      fairlead audit export --model fraud --since 2026-01-01
    """
    from deploy.cli.loop.audit_trail import export_entries

    export_entries(profile, subject, since)
