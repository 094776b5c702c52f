"""``fairlead prompts``: versions of prompts, tested against a model and promoted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from contracts.prompts import PromptDocument, Prompts, parse_prompt
from deploy.cli.profiles.audit_record import note
from deploy.cli.profiles.loading import load_endpoints
from deploy.cli.terminal.output import console, emit, number, table

if TYPE_CHECKING:
    from rich.console import Console


def list_prompts(profile: str, name: str | None, as_json: bool) -> None:
    """All versions, or those of one prompt."""
    prompts = Prompts(load_endpoints(profile))
    names = [name] if name else prompts.names()
    found = [one for each in names for one in prompts.versions(each)]
    if name and not found:
        prompts.resolve(name)

    def show(out: Console) -> None:
        if not found:
            out.print("No prompts. Test one: fairlead prompts test FILE")
            return
        rows = table("prompt", "version", "champion since (UTC)", "tested with", "value", "minimum", "test")
        for one in found:
            test = one.test
            verdict = "-" if test is None else "passed" if test["passed"] else "not passed"
            since = one.champion[:16].replace("T", " ") or "-"
            value = number(test["value"], 3) if test else "-"
            told = test["model"] if test else "-"
            rows.add_row(one.document.name, one.version, since, told, value, number(one.document.minimum, 3), verdict)
        out.print(rows)

    emit([one.as_dict() for one in found], as_json, show)


def show_prompt(profile: str, ref: str, as_json: bool) -> None:
    """The document of a version."""
    one = Prompts(load_endpoints(profile)).resolve(ref)
    document = {"version": one.version, **one.document.model_dump(mode="json")}

    def show(out: Console) -> None:
        out.print(f"{one.document.name}:{one.version}  {one.document.title}", markup=False)
        if one.document.system:
            out.print(f"System   {one.document.system}", markup=False, soft_wrap=True)
        out.print(one.document.template, markup=False, soft_wrap=True)

    emit(document, as_json, show)


def examine_prompt(profile: str, named: str, model: str, at_once: int, again: bool, as_json: bool) -> None:
    """Keep a prompt of a file, or take a version that is kept, and test it with its model."""
    from deploy.cli.evaluation.reaching import bar, reach
    from pipelines.suites.asking import KeptAnswers
    from pipelines.suites.prompt_trial import suite_of, try_prompt

    endpoints = load_endpoints(profile)
    prompts = Prompts(endpoints)
    document = (
        _read(Path(named).expanduser()) if Path(named).expanduser().is_file() else prompts.resolve(named).document
    )
    examples = len(suite_of(document).tasks[0].items)
    champion = next((one for one in prompts.versions(document.name) if one.champion), None)
    kept = KeptAnswers(endpoints.scratch("evaluations", "answers", "prompts"), again)
    reached = reach(profile, model or document.model)
    with reached.open() as asker, bar(console(stderr=True), document.name, examples) as tell:
        evidence = try_prompt(document, champion, asker, kept, at_once, tell)
    version = prompts.add(document)
    prompts.keep_test(document.name, version, evidence)
    found = {"name": document.name, "version": version, **evidence}
    emit(found, as_json, lambda out: _show_test(out, found))


def promote_prompt(profile: str, ref: str, override: str, as_json: bool) -> None:
    """Make a version the champion."""
    endpoints = load_endpoints(profile)
    one = Prompts(endpoints).promote(ref, override)
    subject = f"prompt {one.document.name}:{one.version}"
    value = one.test["value"] if one.test else None
    note(endpoints, "promote", subject, reason=override or "its test passed", evidence={"value": value})
    text = f"{one.document.name}:{one.version} is the champion."
    emit(one.as_dict(), as_json, lambda out: out.print(text, markup=False))


def _read(file: Path) -> PromptDocument:
    import yaml

    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as err:
        detail = " ".join(str(err).split())
        raise PlatformError(f"no prompt: {file}", detail=detail, fix="correct the file", code="bad_prompt") from err
    return parse_prompt(document, str(file))


def _show_test(out: Console, found: dict[str, Any]) -> None:
    spread = f" (95 % {found['interval'][0]:.3f} to {found['interval'][1]:.3f})" if found["interval"] else ""
    verdict = "passed" if found["passed"] else "not passed"
    made = table("example", "value", "answer", right=("value",))
    for row in found["rows"]:
        made.add_row(row["id"], number(row["value"], 3), (row["error"] or row["answer"])[:70])
    out.print(made)
    out.print(f"Version  {found['name']}:{found['version']} with {found['model']}", markup=False, soft_wrap=True)
    least = f"at least {found['minimum']:.3f} is needed"
    out.print(
        f"Value    {found['metric']} {found['value']:.3f}{spread}, {least}: {verdict}", markup=False, soft_wrap=True
    )
    if against := found["against"]:
        text = f"{against['difference']:+.3f} against the champion {against['version']}: {against['shown']}"
        out.print(f"Paired   {text}", markup=False, soft_wrap=True)
    if found["not_compared"]:
        out.print(f"Paired   not compared: {found['not_compared']}", markup=False, soft_wrap=True)
    if found["passed"]:
        out.print(f"Promote  fairlead prompts promote {found['name']}:{found['version']}", markup=False, soft_wrap=True)
