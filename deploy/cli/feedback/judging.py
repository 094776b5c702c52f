"""``fairlead predictions judge``: lists of the log as impressions, and what another model would have earned by them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from deploy.cli.feedback.log_actions import log_of
from deploy.cli.profiles.loading import load_endpoints
from deploy.cli.terminal.output import emit, table

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from services.feedback.joining import Joined

_ESTIMATES = {
    "logged": "what the lists earned",
    "ips": "by inverse propensities",
    "snips": "by normalised ones",
    "dr": "doubly robust",
    "difference": "doubly robust less logged",
}


def judge_lists(profile: str, ref: str, lists: str, write: str, as_json: bool) -> None:
    """Judge a model by a table of impressions, or by those of its log."""
    from contracts.engines import load_engine
    from contracts.registry import Registry
    from pipelines.evaluation.off_policy import off_policy, replayed
    from pipelines.recipes.recommend.impressions import checked

    endpoints = load_endpoints(profile)
    registry = Registry(endpoints)
    version = registry.resolve(ref)
    bundle = registry.fetch(f"{version.name}:{version.version}")
    if bundle.document.modality != "recommend":
        raise PlatformError(
            f"{ref} makes no lists",
            fix="name a model that recommends",
            detail=bundle.document.modality,
            code="bad_model",
        )
    made = datetime.fromisoformat(bundle.document.lineage.created.replace("Z", "+00:00"))
    made = made if made.tzinfo else made.replace(tzinfo=UTC)
    if lists:
        rows = checked(_read(lists))
    else:
        from services.feedback.joining import joined

        folder = log_of(endpoints, version.name)
        start = datetime(2000, 1, 1, tzinfo=UTC) if write else made
        rows = checked(of_log(joined(folder, version.name, start, datetime.now(UTC) + timedelta(minutes=1))))
    if write:
        rows.to_parquet(Path(write).expanduser(), index=False)
    young = rows[rows["time"] >= made.timestamp()].reset_index(drop=True)
    document: dict[str, Any] = {"model": f"{version.name}:{version.version}", "lists": int(rows["list"].nunique())}
    document |= {"judged": None, "written": write or None}
    if len(young):
        document["judged"] = off_policy(young, replayed(load_engine(bundle), young, None)).document()
    elif not write:
        raise PlatformError(
            f"all {document['lists']:,} lists are older than {document['model']}, which may know what was clicked",
            detail=f"it was made at {made.isoformat(timespec='seconds')}",
            fix="give lists that were shown since, or let the gate judge: set impressions.source in the run",
            code="bad_impressions",
        )
    emit(document, as_json, lambda out: _show(out, document))


def of_log(found: Iterable[Joined]) -> pd.DataFrame:
    """Lists of a log as impressions; a list without feedback is one of which nothing was taken.

    Raises:
        PlatformError: the log does not say who asked, or has no lists.
    """
    import pandas as pd

    rows: list[tuple[Any, ...]] = []
    for one in found:
        said, user = one.prediction.answer, one.prediction.inputs.get("user")
        if not isinstance(user, str):
            raise PlatformError(
                "the log does not say who asked",
                detail=f"prediction {one.prediction.id} has user {user!r}",
                fix="serve with FAIRLEAD_SERVICE_PREDICTIONS__TEXT=truncate, and judge the lists from then on",
                code="bad_impressions",
            )
        if said.get("team"):
            continue  # two versions drafted it: neither had a chance of its own for each item
        taken = set(one.label.label) if one.label else set()
        given = zip(said.get("items", ()), said.get("propensity", ()), strict=True)
        for place, (item, chance) in enumerate(given, start=1):
            who = user or f"session {one.prediction.id}"
            seconds = one.prediction.time.timestamp()
            rows.append((one.prediction.id, who, item, place, item in taken, chance, seconds))
    return pd.DataFrame(rows, columns=["list", "user", "item", "place", "clicked", "propensity", "time"])


def _read(lists: str) -> pd.DataFrame:
    import pyarrow as pa

    from pipelines.recipes.recommend.impressions import COLUMNS, OPTIONAL
    from pipelines.recipes.recommend.items import read_columns
    from pipelines.task import DataConfig

    found: pd.DataFrame = pa.concat_tables(
        list(read_columns(lists, DataConfig(), COLUMNS, "impressions", OPTIONAL)), promote_options="permissive"
    ).to_pandas()
    return found


def _show(out: Console, document: dict[str, Any]) -> None:
    judged = document["judged"]
    if document["written"]:
        out.print(f"Written  {document['lists']:,} lists to {document['written']}", soft_wrap=True)
    if judged is None:
        return
    made = table("clicks of a list", "estimate", "95 % interval", "", right=("estimate", "95 % interval"))
    for name, text in _ESTIMATES.items():
        one = judged[name]
        made.add_row(name, f"{one['value']:.4f}", f"{one['low']:.4f} to {one['high']:.4f}", text)
    out.print(made)
    out.print(
        f"{judged['lists']:,} lists, worth {judged['effective']:,.0f} of {document['model']}; "
        f"{judged['matched']:.0%} of the places have its item."
    )
