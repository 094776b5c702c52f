"""``fairlead features``: what is known about features, what is served, and whether the two agree."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts import storage
from contracts.errors import PlatformError
from deploy.cli.profiles.loading import load_endpoints
from deploy.cli.terminal.output import console, emit, number, table

if TYPE_CHECKING:
    from rich.console import Console

    from contracts.endpoints import Endpoints

_PLAN = "features.json"


@dataclass(frozen=True, kw_only=True)
class History:
    """The newest feature history of a task: where it is and its plan."""

    task: str
    address: str
    plan: dict[str, Any]

    @property
    def views(self) -> list[str]:
        return [view["name"] for view in self.plan["views"]]


def histories(endpoints: Endpoints) -> list[History]:
    """The newest history of every task that has one."""
    found = []
    for task in storage.list_names(endpoints.uri("features")):
        root = storage.join(endpoints.uri("features"), task)
        plans = []
        for name in _folders(root):
            address = storage.join(root, name)
            if storage.exists(storage.join(address, _PLAN)) and (plan := _plan(address)):
                plans.append((plan, address))
        if plans:
            plan, address = max(plans, key=lambda item: (item[0]["known_until"], item[1]))
            found.append(History(task=task, address=address, plan=plan))
    return found


def _folders(root: str) -> list[str]:
    if not storage.is_remote(root) and not Path(root).is_dir():
        return []
    return [name for name in storage.list_names(root) if not name.startswith(".")]


def _plan(address: str) -> dict[str, Any] | None:
    """The plan of a history; None for a file of somebody else's that has its name."""
    import json

    try:
        plan = json.loads(storage.read_bytes(storage.join(address, _PLAN)))
    except ValueError:
        return None
    return plan if isinstance(plan, dict) and {"views", "known_until"} <= set(plan) else None


def history_of(endpoints: Endpoints, task: str) -> History:
    """The newest history of a task.

    Raises:
        PlatformError: it has none.
    """
    known = histories(endpoints)
    for history in known:
        if history.task == task:
            return history
    raise PlatformError(
        f"task {task!r} has no features yet",
        detail=f"tasks with features: {', '.join(history.task for history in known) or 'none'}",
        fix=f"fairlead run {task}",
        code="unknown_features",
        model=task,
    )


def show_views(profile: str, as_json: bool) -> None:
    """Every view of every task."""
    document = all_views(load_endpoints(profile))

    def show(out: Console) -> None:
        if not document:
            out.print("No features yet. A run writes those of its task: fairlead run TASK")
            return
        rows = table("view", "task", "by", "features", "time to live", "known until (UTC)", right=("features",))
        for item in document:
            known = str(item["known_until"])[:16].replace("T", " ")
            values = [
                item["task"],
                ", ".join(item["keys"]),
                str(item["features"]),
                duration(item["ttl_seconds"]),
                known,
            ]
            rows.add_row(str(item["view"]), *map(str, values))
        out.print(rows)

    emit(document, as_json, show)


def all_views(endpoints: Endpoints) -> list[dict[str, Any]]:
    """Every view of every task: keys, number of features, time to live, service, until when it is known."""
    return [
        {
            "task": history.task,
            "view": view["name"],
            "keys": [key["name"] for key in view["join_keys"]],
            "features": len(view["features"]),
            "ttl_seconds": view["ttl_seconds"],
            "service": history.plan["service"],
            "known_until": history.plan["known_until"],
        }
        for history in histories(endpoints)
        for view in history.plan["views"]
    ]


def duration(seconds: float | None) -> str:
    """A time for a table, in its largest unit."""
    if not seconds:
        return "-"
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"


def show_view(profile: str, name: str, as_json: bool) -> None:
    """One view with values as they are served when it was last known."""
    document = one_view(load_endpoints(profile), name)

    def show(out: Console) -> None:
        keys, service = ", ".join(document["keys"]), document["service"]
        out.print(f"[bold]{name}[/]  by {keys}  of task {document['task']}, service {service}")
        newest = duration(document["newest_seconds_ago"])
        out.print(f"Entities  {document['entities']:,} online; the newest value is {newest} old")
        out.print(f"Lives     {duration(document['ttl_seconds'])}; known until {document['known_until']}")
        out.print(f"Used by   {', '.join(document['used_by']) or '-'}")
        rows = table("feature", "type", "missing", "values", right=("missing",))
        for item in document["features"]:
            values = "  ".join(number(value, 3) for value in item["values"])
            rows.add_row(item["name"], item["dtype"], f"{item['missing']:.1%}", values)
        out.print(rows)

    emit(document, as_json, show)


def one_view(endpoints: Endpoints, name: str) -> dict[str, Any]:
    """A view with its features, some values as they are served, how fresh they are, and which models use them.

    Raises:
        PlatformError: there is none of the name.
    """
    from deploy.cli.features.online_check import served_sample

    for history in histories(endpoints):
        if name in history.views:
            break
    else:
        known = [view for history in histories(endpoints) for view in history.views]
        raise PlatformError(
            f"no feature view {name!r}", detail=f"views: {', '.join(known) or 'none'}", fix="fairlead features list"
        )
    view = next(view for view in history.plan["views"] if view["name"] == name)
    sample = served_sample(history.plan, view, endpoints.uri("online"), 200)
    return {
        "view": name,
        "task": history.task,
        "service": history.plan["service"],
        "keys": [key["name"] for key in view["join_keys"]],
        "ttl_seconds": view["ttl_seconds"],
        "schema": view["schema"],
        "known_until": history.plan["known_until"],
        "entities": sample.entities,
        "newest_seconds_ago": sample.newest,
        "features": [
            {"name": f["name"], "dtype": f["dtype"], "values": sample.shown(f["name"], 3), "missing": sample.missing(f)}
            for f in view["features"]
        ],
        "used_by": _users(endpoints, history),
    }


def _users(endpoints: Endpoints, history: History) -> list[str]:
    """Registered models of the task, which all read its features, newest first."""
    from contracts.registry import Registry

    registry = Registry(endpoints)
    versions = registry.versions(history.task) if history.task in registry.names() else []
    return [f"{version.name}:{version.version}" for version in versions]


def bring_online(profile: str, task: str, since: str, until: str, views: list[str] | None, as_json: bool) -> None:
    """Materialise an interval, view by view."""
    endpoints = load_endpoints(profile)
    history = history_of(endpoints, task)
    if unknown := [name for name in views or [] if name not in history.views]:
        raise PlatformError(f"no feature view {unknown[0]!r}", detail=f"views of {task}: {', '.join(history.views)}")
    begin = moment(since) if since else datetime(1970, 1, 1, tzinfo=UTC)
    end = moment(until) if until else datetime.fromisoformat(history.plan["known_until"])
    if begin > end:
        raise PlatformError(f"the interval ends before it begins: {begin} to {end}", fix="swap --since and --until")
    left_out = _by_view(endpoints, history, begin, end, views or history.views)
    document = {"task": task, "views": views or history.views, "since": begin.isoformat(), "until": end.isoformat()}
    document["left_out"] = left_out

    def show(out: Console) -> None:
        out.print(f"Online    {', '.join(document['views'])} as of {end:%Y-%m-%d %H:%M:%S} UTC")
        for some in left_out:
            out.print(f"Left out  {some}")

    emit(document, as_json, show)


def _by_view(endpoints: Endpoints, history: History, begin: datetime, end: datetime, views: list[str]) -> list[str]:
    from rich.progress import Progress

    from pipelines.steps.materialise import to_online

    left_out: list[str] = []
    with Progress(console=console(stderr=True), transient=True) as progress, folder_of(history) as folder:
        bar = progress.add_task("materialise", total=len(views))
        for name in views:
            progress.update(bar, description=name)
            with contextlib.redirect_stderr(io.StringIO()):  # what Feast has to say about it
                left_out += to_online(history.plan, folder, endpoints.uri("online"), end, begin, [name])
            progress.advance(bar)
    return left_out


@contextmanager
def folder_of(history: History) -> Iterator[Path]:
    """The history on this machine."""
    from pipelines.io.remote import folder_here

    with folder_here(history.address, last=_PLAN) as folder:
        yield folder


def moment(text: str) -> datetime:
    """A moment that somebody typed; without a zone it is UTC.

    Raises:
        PlatformError: it is none.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise PlatformError(
            f"{text!r} is no moment", detail="accepted: ISO 8601", fix="write 2026-01-31 or 2026-01-31T12:00:00"
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def check_features(profile: str, task: str, sample: int, metrics: str, as_json: bool) -> None:
    """Compare what is served with the history.

    Raises:
        PlatformError: a value that is served is not what the history says.
    """
    from deploy.cli.features.online_check import compare, write_metrics

    endpoints = load_endpoints(profile)
    history = history_of(endpoints, task)
    with folder_of(history) as folder:
        reports = [
            compare(history.plan, view, folder, endpoints.uri("online"), sample) for view in history.plan["views"]
        ]
    if metrics:
        write_metrics(Path(metrics), task, reports)
    wrong = [report for report in reports if report["different"]]

    def show(out: Console) -> None:
        rows = table("view", "entities", "different", "newest", "missing", "drift", right=("entities", "different"))
        for report in reports:
            drift = f"{number(report['drift'], 3)} {report['drifted'] or ''}"
            newest, missing = duration(report["newest_seconds_ago"]), f"{report['missing']:.1%}"
            rows.add_row(report["view"], str(report["entities"]), str(report["different"]), newest, missing, drift)
        out.print(rows)
        out.print("Drift is the largest population stability index of a feature, online against all history.")

    if not (wrong and as_json):
        emit(reports, as_json, show)
    if wrong:
        raise PlatformError(
            f"{wrong[0]['different']} of {wrong[0]['entities']} entities of {wrong[0]['view']} are served otherwise "
            "than the history says",
            detail=f"for example {wrong[0]['example']}",
            fix=f"fairlead features materialise {task}",
            code="parity",
        )
