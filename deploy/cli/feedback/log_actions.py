"""``fairlead predictions``: the log of a model compacted, listed, and without one entity's records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from contracts.errors import PlatformError
from contracts.storage import is_remote
from deploy.cli.profiles.adapters import forget_personal
from deploy.cli.profiles.audit_record import note
from deploy.cli.profiles.loading import load_endpoints
from deploy.cli.profiles.log_salt import salt_of
from deploy.cli.terminal.output import console, emit, table

if TYPE_CHECKING:
    from rich.console import Console

    from contracts.endpoints import Endpoints
    from services.feedback.compaction import Compacted


def log_of(endpoints: Endpoints, model: str) -> str:
    """The folder of the log in which a model has predictions.

    Raises:
        PlatformError: ``code="no_predictions"``, naming the models that have some.
    """
    from services.feedback.layout import models

    folder = endpoints.uri("predictions")
    known = models(folder)
    if model not in known:
        raise PlatformError(
            f"no predictions of {model} are logged",
            detail=f"{folder} has: {', '.join(known) or 'none'}",
            fix=f"fairlead serve {model}, or name the log's profile with --profile",
            code="no_predictions",
        )
    return folder


def compact_log(profile: str, model: str, keep_days: int | None, as_json: bool) -> None:
    """Turn lines of finished days into Parquet, and drop what is older than `keep_days`."""
    from services.feedback.compaction import compact
    from services.feedback.days import drop_before
    from services.feedback.layout import KINDS
    from services.feedback.line_file import Unreadable

    endpoints = load_endpoints(profile)
    folder, unreadable = log_of(endpoints, model), Unreadable()
    with console(stderr=True).status(f"{model}: reading") as status:
        found: dict[str, Compacted] = {
            kind: compact(folder, model, kind, unreadable, tell=lambda day: status.update(f"{model}: {day}"))
            for kind in KINDS
        }
        dropped = [] if keep_days is None else drop_before(folder, model, keep_days)
    document = {
        "model": model,
        "folder": folder,
        **{kind: {"records": done.records, "files": done.files} for kind, done in found.items()},
        "unreadable": {"lines": unreadable.count, "named": unreadable.named},
        "dropped": dropped,
    }
    if dropped:
        note(endpoints, "drop_predictions", model, evidence={"keep_days": keep_days, "files": len(dropped)})

    def show(out: Console) -> None:
        for kind, done in found.items():
            out.print(f"Compacted  {done.records:,} {kind} of {done.files:,} files of lines")
        if keep_days is not None:
            out.print(f"Dropped    {len(dropped):,} Parquet files older than {keep_days} days")
        _show_unreadable(out, unreadable.count, unreadable.named)

    emit(document, as_json, show)


def list_days(profile: str, model: str, count: bool, as_json: bool) -> None:
    """Days with rows, versions, labels and bytes, and what was removed."""
    from services.feedback.days import days
    from services.feedback.forgetting import removals
    from services.feedback.line_file import Unreadable

    endpoints = load_endpoints(profile)
    folder, unreadable = log_of(endpoints, model), Unreadable()
    counted = count or not is_remote(folder)
    found, removed = days(folder, model, unreadable, count=counted), removals(folder, model)
    bad = {"lines": unreadable.count, "named": unreadable.named}
    rows = [day.document() for day in found]
    document = {"model": model, "folder": folder, "days": rows, "unreadable": bad, "removed": removed}

    def show(out: Console) -> None:
        right = ("rows", "labels", "bytes")
        made = table("day", "rows", "versions", "labels", "bytes", "form", right=right)
        for day in rows:
            versions = ", ".join(day["versions"])
            rows_said = "?" if day["uncounted_files"] else f"{day['rows']:,}"
            made.add_row(day["day"], rows_said, versions, f"{day['labels']:,}", f"{day['bytes']:,}", day["form"])
        out.print(made)
        if not counted:
            text = (
                "Lines in S3 are not read: their rows and labels are counted once the day is finished, or with --count."
            )
            out.print(text)
        for one in removed:
            out.print(f"Removed  {one['time']}  {one['predictions']:,} predictions, {one['labels']:,} labels")
        _show_unreadable(out, unreadable.count, unreadable.named)

    emit(document, as_json, show)


def forget_entity(profile: str, model: str, given: list[str], as_json: bool) -> None:
    """Remove all records of the entity with these keys, and say how many there were."""
    from services.feedback.forgetting import forget

    keys, endpoints = _keys(given), load_endpoints(profile)
    folder = log_of(endpoints, model)
    salt = salt_of(endpoints, profile, model)
    adapters = forget_personal(profile, model, keys.values(), salt)  # first: what they learned is of the records
    gone = 0

    def forget_annotations(ids: set[str]) -> None:
        nonlocal gone
        if endpoints.documents:
            from services.feedback.annotation_store import Annotations

            gone = Annotations(endpoints.documents, model).remove(ids)

    removed = forget(folder, model, keys, salt, forget_annotations)
    document = {"model": model, "folder": folder, "predictions": removed.predictions, "labels": removed.labels}
    gone += removed.annotations
    document |= {"annotations": gone, "adapters": adapters}
    note(endpoints, "forget_entity", model, evidence={**document, "keys": sorted(keys)})  # whose is not for a log

    def show(out: Console) -> None:
        out.print(f"Removed  {removed.predictions:,} predictions and {removed.labels:,} labels of {', '.join(keys)}")
        if gone:
            out.print(f"Removed  {gone:,} annotations")
        if adapters:
            out.print(f"Removed  {adapters:,} adapters")
        out.print(
            "Records that a running service holds yet come within seconds, in S3 a minute: run it once more then."
        )

    emit(document, as_json, show)


def _keys(given: list[str]) -> dict[str, str]:
    from feature_repo.stores.keys import canonical_text

    keys: dict[str, str] = {}
    for text in given:
        name, sign, key = text.partition("=")
        if not (name and sign and key) or name in keys:
            raise PlatformError(
                f"not an entity key: {name or text}",
                detail="expected each key of the entity once, as name=KEY",
                fix="write for example --entity card_id=4711",
                code="bad_option",
            )
        keys[name] = canonical_text(key)
    return keys


def _show_unreadable(out: Console, count: int, named: list[str]) -> None:
    if count:
        out.print(f"Unreadable  {count:,} lines are no records: {'; '.join(named)}", soft_wrap=True, markup=False)
