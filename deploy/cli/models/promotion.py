"""``fairlead models``, ``compare``, ``promote`` and ``rollback``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from deploy.cli.profiles.audit_record import note
from deploy.cli.profiles.homes import elsewhere
from deploy.cli.profiles.loading import load_endpoints
from deploy.cli.terminal.output import emit, number, table

if TYPE_CHECKING:
    from rich.console import Console

    from contracts.bundle import Bundle, BundleDocument
    from contracts.endpoints import Endpoints
    from contracts.registry import ModelVersion

# Shown in the table of models, the first ones that a version has.
_OF_SEVERAL = ("accuracy", "macro_f1")
_MAIN_METRICS = ("average_precision", "roc_auc", "accuracy", "macro_f1", "brier", "log_loss")


def show_models(profile: str, name: str | None, as_json: bool) -> None:
    """Every version of one model or of all, newest first."""
    versions, empty = registered(load_endpoints(profile), name)

    def show(out: Console) -> None:
        if not versions:
            for line in empty:
                out.print(line, soft_wrap=True, markup=False)
            return
        rows = table("model", "aliases", "gate", "recipe", "metrics", "created (UTC)")
        for version in versions:
            rows.add_row(
                f"{version.name}:{version.version}",
                ", ".join(version.aliases) or "-",
                _verdict(version),
                version.recipe,
                main_metrics(version.metrics, separator="\n"),
                version.created[:16].replace("T", " "),
            )
        out.print(rows)

    emit([version.as_dict() for version in versions], as_json, show)


def registered(endpoints: Endpoints, name: str | None) -> tuple[list[ModelVersion], list[str]]:
    """Versions of one model or of all, newest first, and lines to say where there is none.

    Raises:
        PlatformError: ``code="unknown_model"``.
    """
    from contracts.registry import Registry
    from contracts.registry_file import place_of

    registry = Registry(endpoints)
    known = registry.names()
    if name is not None and name not in known:
        raise PlatformError(
            f"no model {name!r}",
            detail=f"registered models in {place_of(endpoints.tracking)}: {', '.join(known) or 'none'}",
            fix=f"fairlead run {name}",
            code="unknown_model",
            home=str(endpoints.scratch()),
            model=name,
        )
    empty = [f"No models in {place_of(endpoints.tracking)}. Train one: fairlead run TASK"]
    if not known and (others := elsewhere(endpoints.scratch())):
        empty.append(f"There are {others}")
    return [version for each in ([name] if name else known) for version in registry.versions(each)], empty


def main_metrics(metrics: dict[str, float], count: int = 2, separator: str = ", ") -> str:
    """The first metrics that say how good a model is: ``average_precision 0.734, roc_auc 0.912``."""
    # Of several classes the evaluation has accuracy first, and so have people.
    first = _OF_SEVERAL if next(iter(metrics), "") == _OF_SEVERAL[0] else ()
    names = [name for name in dict.fromkeys((*first, *_MAIN_METRICS)) if name in metrics] or [*metrics]
    return separator.join(f"{name} {number(metrics[name], 3)}" for name in names[:count]) or "-"


def _verdict(version: ModelVersion) -> Any:
    from rich.text import Text

    if version.gate_passed:
        return Text("passed", "green")
    return Text("overridden", "yellow") if version.override else Text("refused", "red")


def show_comparison(profile: str, first: str, second: str, as_json: bool) -> None:
    """Metrics and slices of two versions with their difference (second minus first), gates and lineage."""
    versions, bundles, document = compared(load_endpoints(profile), first, second)
    documents = [bundle.document for bundle in bundles]
    names = [f"{v.name}:{v.version}" for v in versions]

    def show(out: Console) -> None:
        out.print(_facts(names, versions, documents))
        for line in reservations(document):
            out.print(line, style="yellow", markup=False)
        out.print(_differences_table("metrics", names, document["metrics"]))
        primary = (bundles[1].read_json("evaluation.json") or {}).get("primary", "")
        shown = {key: item for key, item in document["slices"].items() if key.endswith(f" {primary}")}
        for line in _held_against(names, documents):
            out.print(line, markup=False)
        if shown:
            out.print(_differences_table("slices", names, shown))
            out.print("Other metrics of the slices: --json")

    emit(document, as_json, show)


def compared(endpoints: Endpoints, first: str, second: str) -> tuple[list[ModelVersion], list[Bundle], dict[str, Any]]:
    """Two versions, their bundles, and what differs between them as a document."""
    from contracts.registry import Registry

    registry = Registry(endpoints)
    versions = [registry.resolve(ref) for ref in (first, second)]
    bundles = [registry.fetch(f"{v.name}:{v.version}") for v in versions]
    documents = [bundle.document for bundle in bundles]
    return (
        versions,
        bundles,
        {
            "versions": [version.as_dict() for version in versions],
            "same_data": documents[0].lineage.data_version == documents[1].lineage.data_version,
            "same_rows": _same_rows(bundles),
            "metrics": differences(documents[0].metrics, documents[1].metrics),
            "slices": differences(_flat_slices(documents[0]), _flat_slices(documents[1])),
            "gates": [each.gate.model_dump() for each in documents],
            "lineage": [each.lineage.model_dump() for each in documents],
        },
    )


def reservations(document: dict[str, Any]) -> list[str]:
    """Why the differences of a comparison may come from the data, and not from the models."""
    lines = [] if document["same_data"] else ["The two were evaluated on different data versions."]
    same_rows = document["same_rows"]
    return lines if same_rows else [*lines, _UNLIKE_ROWS if same_rows is False else _UNKNOWN_ROWS]


_UNLIKE_ROWS = "The two were evaluated on different test rows: the differences come from the rows, too."
_UNKNOWN_ROWS = (
    "It is not recorded whether the two were evaluated on the same test rows: differences may come from the rows."
)


def _same_rows(bundles: list[Bundle]) -> bool | None:
    """Whether the test rows were the same; None when one does not tell."""
    first, second = ((bundle.read_json("evaluation.json") or {}).get("rows_digest") for bundle in bundles)
    return first == second if first and second else None


def _held_against(names: list[str], documents: list[BundleDocument]) -> list[str]:
    """What the gate found when one of the two was the candidate and the other the champion, with its interval."""
    lines = []
    for at, document in enumerate(documents):
        for check in document.gate.checks:
            if check.against != names[1 - at] or check.interval is None or check.difference is None:
                continue
            rows = "its recorded value" if check.rows_compared is None else f"{check.rows_compared} rows new to both"
            low, high = check.interval
            lines.append(
                f"Gate     {check.metric} of {names[at]} minus that of {check.against}: {check.difference:+.4f} "
                f"(95 % {low:+.4f} to {high:+.4f}) on {rows}"
            )
    return lines


def differences(first: dict[str, float], second: dict[str, float]) -> dict[str, dict[str, float | None]]:
    """For every name of either: first, second, and second minus first where both have it."""
    made: dict[str, dict[str, float | None]] = {}
    for name in [*first, *(name for name in second if name not in first)]:
        a, b = first.get(name), second.get(name)
        made[name] = {"first": a, "second": b, "difference": b - a if a is not None and b is not None else None}
    return made


def _flat_slices(document: BundleDocument) -> dict[str, float]:
    return {f"{where} {name}": value for where, kept in document.slices.items() for name, value in kept.items()}


def _facts(names: list[str], versions: list[ModelVersion], documents: list[BundleDocument]) -> Any:
    rows = table("", *names)
    facts = {
        "aliases": [", ".join(v.aliases) or "-" for v in versions],
        "gate": ["passed" if d.gate.passed else "refused" for d in documents],
        "recipe": [d.recipe for d in documents],
        "engine": [d.engine for d in documents],
        "data version": [d.lineage.data_version for d in documents],
        "code version": [d.lineage.code_version[:16] for d in documents],
        "created": [v.created for v in versions],
    }
    for fact, values in facts.items():
        rows.add_row(fact, *values)
    return rows


def _differences_table(title: str, names: list[str], found: dict[str, dict[str, float | None]]) -> Any:
    rows = table(title, *names, "difference", right=(*names, "difference"))
    for name, item in found.items():
        gap = item["difference"]
        rows.add_row(name, number(item["first"]), number(item["second"]), "-" if gap is None else f"{gap:+.4f}")
    return rows


def promote_model(profile: str, ref: str, override: str, as_json: bool) -> None:
    """Make a version the champion, and say what it replaced."""
    before, version = promoted(load_endpoints(profile), ref, override)
    _show_change("is now the champion", before, version, as_json)


def promoted(endpoints: Endpoints, ref: str, override: str = "") -> tuple[ModelVersion | None, ModelVersion]:
    """Make a version the champion, and note it; the champion before and now.

    Raises:
        PlatformError: ``code="gate"``: it was refused, and no reason is given.
    """
    from contracts.registry import Registry

    registry = Registry(endpoints)
    before = _champion(registry, ref)
    version = registry.promote(ref, override=override)
    note(endpoints, "promote", f"{version.name}:{version.version}", reason=override, evidence=_changed(before, version))
    return before, version


def rollback_model(profile: str, name: str, as_json: bool) -> None:
    """Go back to the champion before this one."""
    before, version = rolled_back(load_endpoints(profile), name)
    _show_change("is the champion again", before, version, as_json)


def rolled_back(endpoints: Endpoints, name: str) -> tuple[ModelVersion | None, ModelVersion]:
    """Make the previous champion the champion again, and note it; the champion before and now."""
    from contracts.registry import Registry

    registry = Registry(endpoints)
    before = _champion(registry, name)
    version = registry.rollback(name)
    note(endpoints, "rollback", f"{version.name}:{version.version}", evidence=_changed(before, version))
    return before, version


def _changed(before: ModelVersion | None, after: ModelVersion) -> dict[str, Any]:
    """What the audit log keeps of a change of the champion."""
    return {
        "champion_before": before.version if before else None,
        "digest": after.digest,
        "gate_passed": after.gate_passed,
        "metrics": after.metrics,
    }


def _champion(registry: Any, ref: str) -> ModelVersion | None:
    from contracts.registry import CHAMPION, parse_ref

    versions: list[ModelVersion] = registry.versions(parse_ref(ref)[0])
    return next((version for version in versions if CHAMPION in version.aliases), None)


def _show_change(what: str, before: ModelVersion | None, after: ModelVersion, as_json: bool) -> None:
    def show(out: Console) -> None:
        instead = f" instead of {before.name}:{before.version}" if before and before != after else ""
        out.print(f"[bold]{after.name}:{after.version}[/] {what}{instead}")
        if after.override:
            out.print(f"Override {after.override}", markup=False)
        out.print(f"Running endpoints keep their version; start a new one: fairlead serve {after.name}")

    emit({"champion": after.as_dict(), "previous": before.as_dict() if before else None}, as_json, show)
