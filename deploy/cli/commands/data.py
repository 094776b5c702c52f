"""Commands about data and where it is from: inspect, anonymity, documents, redact, sources, forget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from contracts.errors import PlatformError
from deploy.cli.terminal.options import DEFAULT_PROFILE, Json, Profile
from deploy.cli.terminal.output import emit, guarded, table

if TYPE_CHECKING:
    from rich.console import Console

_data = typer.Typer(no_args_is_help=True, help="Look at a file before anything is trained on it.")


def register(app: typer.Typer) -> None:
    """Add the commands of this file to the command line."""
    app.add_typer(_data, name="data", rich_help_panel="Train")
    for command in (redact, sources, forget):
        app.command(command.__name__, rich_help_panel="Govern")(command)


@_data.command()
@guarded
def inspect(
    source: Annotated[str, typer.Argument(metavar="FILE", help="A file, a folder, s3://... or mongodb://...")],
    task: Annotated[str, typer.Option("--task", "-t", help="What it is for; see: fairlead tasks.")] = "",
    overrides: Annotated[list[str] | None, typer.Option("--set", help="How it is read, data.KEY=value.")] = None,
    as_json: Json = False,
) -> None:
    """Show what a file holds and how it would be read: encoding, delimiter, types, ranges, suspicious columns.

    Looks at the first 20,000 rows. With --task it looks for the task's columns and prints the run to start.

    [bold]Examples[/]
      fairlead data inspect payments.csv
      fairlead data inspect payments.csv --task fraud
      fairlead data inspect export.txt --set 'data.delimiter=;' --json
    """
    from dataclasses import asdict

    from pipelines.data.inspection import inspect, run_command
    from pipelines.settings import parse_setting
    from pipelines.tasks import get_task

    given = dict(map(parse_setting, overrides or []))
    found = inspect(source, get_task(task) if task else None, given)
    command = run_command(found, source, task or "TASK", given)
    emit({**asdict(found), "run": command}, as_json, lambda to: _show(to, found, command, task))


@_data.command()
@guarded
def anonymity(
    source: Annotated[str, typer.Argument(metavar="FILE", help="What is to be given away.")],
    by: Annotated[list[str], typer.Option("--by", help="A column by which others may know somebody; again for more.")],
    secret: Annotated[str, typer.Option("--secret", help="The column that they are to learn nothing of.")] = "",
    overrides: Annotated[list[str] | None, typer.Option("--set", help="How it is read, data.KEY=value.")] = None,
    as_json: Json = False,
) -> None:
    """Measure how well people hide among each other in all rows of a file: k-anonymity, and l-diversity of a secret.

    Rows that are alike in all columns of --by are a group: k is the size of the smallest, l the fewest different values
    of --secret in one. Values are not shown.

    [bold]Examples[/]
      fairlead data anonymity published.csv --by age --by town
      fairlead data anonymity published.csv --by age --by town --secret diagnosis --json
    """
    from pipelines.data.anonymity import FEW, measure
    from pipelines.settings import parse_setting
    from pipelines.task import data_config

    found = measure(source, by, secret, data_config({}, dict(map(parse_setting, overrides or []))))
    lines = [
        f"k = {found['k']}: the smallest of {found['groups']:,} groups of {found['rows']:,} rows",
        f"{found['alone']:,} rows are alone, {found['few']:,} are in groups of fewer than {FEW}",
    ]
    if secret:
        lines.append(f"l = {found['l']}: {found['same']:,} rows are in groups that give {secret} away")
    emit(found, as_json, lambda to: to.print("\n".join(lines), markup=False, soft_wrap=True))


@_data.command()
@guarded
def documents(
    task: Annotated[str, typer.Argument(help="A task; see: fairlead tasks.")],
    key: Annotated[str, typer.Argument(help="What is looked for: the row's id, or a value of --column.")],
    column: Annotated[str, typer.Option("--column", help="The column of the key; default: the task's id.")] = "",
    version: Annotated[str, typer.Option("--version", help="Only in this version of the data; default: all.")] = "",
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """Show a row of the data by its key: as it came and as it was cleaned, in each version of the data that has it.

    Rows are looked up in the document store, which the profile names: documents: mongodb://HOST/DATABASE. At most 100.

    [bold]Examples[/]
      fairlead data documents fraud P000017
      fairlead data documents news 65f000000000000000000001 --version 0123456789abcdef --json
    """
    from dataclasses import asdict

    from deploy.cli.profiles.loading import document_store
    from pipelines.data.document_store import DocumentStore
    from pipelines.tasks import get_task

    address, found = document_store(profile), get_task(task)
    rows = [asdict(each) for each in DocumentStore(address, found.name).find(column or found.id, key, version)]
    if not rows:
        raise PlatformError(
            f"no document of task {found.name} has {column or found.id} {key!r}",
            fix="name another --column or --version, or run the task with this profile, which writes them",
            code="not_found",
        )
    emit({"documents": rows}, as_json, lambda to: _show_documents(to, rows))


def _show_documents(to: Console, rows: list[dict[str, Any]]) -> None:
    for each in rows:
        to.print(f"Version {each['version']}, row {each['row']:,}")
        made = table("column", "as it came", "cleaned")
        raw, clean = each["raw"], each["clean"] or {}
        for name in dict.fromkeys([*(raw or {}), *clean]):
            made.add_row(name, "(not kept)" if raw is None else str(raw.get(name, "")), str(clean.get(name, "")))
        to.print(made)


@guarded
def redact(
    files: Annotated[list[str] | None, typer.Argument(metavar="[FILE]...", help="Text in UTF-8; none: stdin.")] = None,
    operator: Annotated[
        str, typer.Option("--operator", "-o", help="label, mask, drop, hash, encrypt or surrogate.")
    ] = "label",
    kind: Annotated[
        list[str] | None, typer.Option("--kind", "-k", help="Only this kind, such as phone; may be given again.")
    ] = None,
    tagger: Annotated[
        str,
        typer.Option("--tagger", help="Finds names, places and organisations: a model, a bundle's folder, presidio."),
    ] = "",
    out: Annotated[str, typer.Option(metavar="FOLDER", help="Where the files go; default: stdout.")] = "",
    check: Annotated[bool, typer.Option("--check", help="Change nothing, tell lines and kinds.")] = False,
    reveal: Annotated[bool, typer.Option("--reveal", help="Decrypt what the operator encrypt wrote.")] = False,
    as_json: Json = False,
) -> None:
    """Take personal data out of texts, English and Chinese.

    Finds e-mail, telephone, Chinese ID, bank card, IBAN, IP, passport, plate, social credit code, US social security
    number, addresses, keys and passwords; names only beside a title or a word such as 姓名, or what --tagger finds
    (`fairlead run names` trains one). The same value gets the same hash, token or surrogate everywhere, by the key
    FAIRLEAD_PII_KEY. With --check the exit code is 3 where something is found, and values are not shown.

    [bold]Examples[/]
      fairlead redact letters.txt > clean.txt
      fairlead redact logs/a.log logs/b.log --operator hash --out clean/
      fairlead redact --check src/config.yaml
      fairlead redact letters.txt --tagger names > clean.txt
      echo "call 13812345678" | fairlead redact --operator mask
    """
    from deploy.cli.privacy.redacting import check_files, redact_files, reveal_files

    given, kinds = files or [], kind or []
    if check:
        check_files(given, kinds, as_json, tagger)
    elif reveal:
        reveal_files(given, out)
    else:
        redact_files(given, operator, kinds, out, as_json, tagger)


@guarded
def sources(
    task: Annotated[str, typer.Argument(help="A task; default: all that have a register.")] = "",
    source: Annotated[str, typer.Option("--source", help="May this path or address be learned from?")] = "",
    as_json: Json = False,
) -> None:
    """Show what the register of a task says of its data sources: sources.yaml in the task's folder.

    A run refuses a source that is not registered, was given for another purpose, whose consent has ended, or that is
    kept for too long; so does this command, with exit code 3, for --source, and for a task that has such an entry.

    [bold]Examples[/]
      fairlead sources
      fairlead sources credit --json
      fairlead sources credit --source s3://bank/applications/2026-11.parquet
    """
    from deploy.cli.privacy.sources import show_sources

    if source and not task:
        raise PlatformError("for which task?", fix="fairlead sources TASK --source ...", code="bad_input")
    show_sources(task, source, as_json)


def _show(to: Console, found: Any, command: str, task: str) -> None:
    from rich.markup import escape

    from pipelines.settings import setting

    how = [found.kind, found.packed]
    if found.kind == "text":
        how += [found.reading.encoding or "UTF-8", f"delimiter {found.reading.delimiter!r}"]
    rows = f"{found.rows:,}{'' if found.whole else ' first'} rows"
    to.print(f"{escape(found.file)}  {', '.join(filter(None, how))}; {rows}, {len(found.columns)} columns")
    if found.unreadable:
        to.print(f"{found.unreadable:,} rows cannot be read", style="yellow")
    made = table("column", "type", "missing", "distinct", "range", "examples", right=("missing", "distinct"))
    for column in found.columns:
        span = f"{column.low} to {column.high}" if column.low else ""
        cells = (column.name, column.kind, f"{column.missing:.0%}", f"{column.distinct:,}", span)
        made.add_row(*map(escape, cells), escape(", ".join(column.examples)))
    to.print(made)
    for column in found.columns:
        for remark in column.remarks:
            to.print(f"  {escape(column.name)}: {escape(remark)}", style="yellow", soft_wrap=True)
    if found.settings:
        to.print(f"Guessed  {escape(' '.join(setting(*item) for item in found.settings.items()))}", soft_wrap=True)
    if found.lacking:
        to.print(f"Lacking  {', '.join(found.lacking)}: say which column each one is", style="yellow", soft_wrap=True)
    to.print(f"Run      {escape(command)}" + ("" if task else "   (tasks: fairlead tasks)"), soft_wrap=True)


@guarded
def forget(
    entity: Annotated[
        str, typer.Option("--entity", metavar="[COLUMN=]KEY", help="Who: a key of the task's entity, or of its rows.")
    ],
    task: Annotated[str, typer.Option("--task", "-t", help="Only in this task; default: in all that have data.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing, say what there is.")] = False,
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """Take a person's rows out of all that is kept: data, features, online store, predictions, labels, caches, logs.

    Versions of the data are replaced by ones without the rows, and the person is left out whenever a source is read
    again. Models that were trained with the rows are named, with what to do. The audit log notes it by a keyed hash. It
    may be ended at any time; the next call goes on.

    [bold]Examples[/]
      fairlead forget --entity customer_id=C000017 --dry-run
      fairlead forget --entity customer_id=C000017
      fairlead forget --entity A0004711 --task credit --json
    """
    from deploy.cli.privacy.forgetting import forget

    forget(profile, entity, task, dry_run, as_json)
