"""``fairlead monitor``: the monitor on this machine, once or until Ctrl-C."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import typer

from contracts.errors import PlatformError
from deploy.cli.profiles.loading import load_endpoints
from deploy.cli.terminal.output import EXIT_ERROR, EXIT_REFUSED, console, number, table, write_json

if TYPE_CHECKING:
    from rich.console import Console

    from contracts.endpoints import Endpoints
    from services.monitor.service import Monitor

Report = Mapping[str, Any]
_DAY = 86_400.0  # seconds
_SKEWED = 0.05  # share of rows; as the alert


def monitor_models(
    profile: str,
    model: str | None,
    every_model: bool,
    once: bool,
    port: int,
    every: float,
    keep_days: int,
    as_json: bool,
    daily: Callable[[str], None],
    groups: str = "",
) -> None:
    """Watch one model, or all that have a log; with `once` show what there is and end.

    Args:
        daily: is called with each model that is watched, once a day.
        groups: a folder with tables of groups, see `services.monitor.settings`.
    """
    if (model is None) != every_model:
        raise PlatformError(
            "which models?" if model is None else f"{model} or all?",
            fix="name one model, for example fairlead monitor fraud, or give --all",
            code="bad_input",
        )
    endpoints = load_endpoints(profile)
    monitor = _monitor(endpoints, model, port, every, keep_days, groups)
    if once:
        _show_once(_looked(endpoints, monitor, model), as_json)
        return
    end = monitor.serve() if port else lambda: None
    stop, out = threading.Event(), console()
    if port and not as_json:
        out.print(f"Metrics  http://127.0.0.1:{port}/metrics")
        out.print("Ctrl-C ends it.")
    told, done = dict[str, Any](), dict[str, float]()

    def tell(reports: Mapping[str, Report]) -> None:
        for name, report in reports.items():
            if "standing_by" not in report and time.monotonic() - done.get(name, -_DAY) >= _DAY:
                done[name] = time.monotonic()
                daily(name)
            news = (report.get("drifted"), report.get("error", {}).get("headline"), report.get("standing_by"))
            if as_json:
                write_json(report)
            elif told.get(name) != news:
                told[name] = news
                show_report(out, report)

    try:
        monitor.run(stop, tell)
    except KeyboardInterrupt:
        if not as_json:
            out.print("\nStopped.")
    finally:
        end()


def _monitor(
    endpoints: Endpoints, model: str | None, port: int, every: float, keep_days: int, groups: str = ""
) -> Monitor:
    from contracts.settings import load
    from services.monitor.service import Monitor
    from services.monitor.settings import MonitorSettings

    given = {
        "predictions": endpoints.uri("predictions"),
        "artifacts": endpoints.uri("artifacts"),
        "models": [model] if model else [],
        "host": "127.0.0.1",
        "port": port,
        "every_seconds": every,
        "keep_days": keep_days,
        "groups": groups,
        "documents": endpoints.documents,
    }
    return Monitor(load(MonitorSettings, environ={}, overrides=given))


def look_once(endpoints: Endpoints, model: str | None) -> Mapping[str, Report]:
    """The report of one model, or of all that have a log, with what is new in their logs.

    Raises:
        PlatformError: there is no log of the model, or of any.
    """
    return _looked(endpoints, _monitor(endpoints, model, 0, 5.0, 0), model)


def _looked(endpoints: Endpoints, monitor: Monitor, model: str | None) -> Mapping[str, Report]:
    try:
        reports = monitor.look()
    finally:
        monitor.release()
    empty = not any(
        report.get("versions") or report.get("error") or report.get("standing_by") for report in reports.values()
    )
    if empty:
        raise PlatformError(
            f"no predictions of {model} are logged" if model else "no predictions are logged",
            detail=f"looked in {endpoints.uri('predictions')}",
            fix=f"fairlead serve {model or 'MODEL'}, and ask it",
            code="no_predictions",
        )
    return reports


def _show_once(reports: Mapping[str, Report], as_json: bool) -> None:
    """The reports; exit code 3 where something has changed, 1 where a log cannot be read."""
    if as_json:
        write_json({"models": reports})
    else:
        for report in reports.values():
            show_report(console(), report)
    if any(report.get("error") for report in reports.values()):
        raise typer.Exit(EXIT_ERROR)
    dropped = [item for report in reports.values() for one in report["versions"].values() for item in _dropped(one)]
    if dropped or any(report["drifted"] for report in reports.values()):
        raise typer.Exit(EXIT_REFUSED)


def show_report(out: Console, report: Report) -> None:
    """A table for each version: its inputs now, beside what was normal."""
    if error := report.get("error"):
        out.print(f"[bold red]{report['model']}[/]: {error['headline']}; what follows is from {report.get('time')}")
    if holder := report.get("standing_by"):
        out.print(
            f"[bold]{report['model']}[/]: another monitor watches it ({holder}); what follows is its report of "
            f"{report.get('time', 'no time yet')}",
            soft_wrap=True,
        )
    if error := report.get("groups_error"):
        out.print(f"Groups are not measured: {error['headline']}; {error['fix']}", style="yellow", markup=False)
    for version, one in report.get("versions", {}).items():
        out.print(
            f"[bold]{report['model']}:{version}[/]  {one['rows']:,} rows until {one['newest']}, "
            f"against {one['reference']} ({one['reference_rows']:,} rows)",
            soft_wrap=True,
        )
        if one["note"]:
            out.print(one["note"], style="yellow", soft_wrap=True, markup=False)
        if one["inputs"]:
            out.print(_table(one))
        if one["quality"]:
            out.print(_quality_table(one))
        if estimate := one["estimate"]:
            out.print(_expected(estimate), soft_wrap=True, markup=False)
        if skewed := {name: ratio for name, ratio in one.get("skew", {}).items() if ratio > _SKEWED}:
            said = ", ".join(f"{name} {ratio:.0%}" for name, ratio in skewed.items())
            out.print(f"Served otherwise than the history says, share of rows: {said}", soft_wrap=True, style="yellow")
        for check in (one.get("groups") or {}).get("checks", ()):
            if not check["passed"]:
                sure = "" if check["sure"] else ", which may be chance"
                said = f"{check['metric']} is {number(check['value'])}, and {check['rule']} {number(check['limit'])}"
                out.print(f"Groups: {said} is asked for{sure}", style="yellow", markup=False)
        for name, reason in one["unwatched"].items():
            out.print(f"{name} is not watched: {reason}", soft_wrap=True, markup=False)


def _table(version: Report) -> Any:
    numbers = ("rows", "PSI", "noise", "JS", "missing")
    made = table("input", *numbers, "verdict", right=numbers)
    for name, one in version["inputs"].items():
        figures = [f"{one[key]:.3f}" for key in ("psi", "noise_floor", "js")]
        missing = f"{one['missing'] + one['absent']:.1%}"
        made.add_row(name, f"{one['rows']:,}", *figures, missing, verdict(one, quiet=version["quiet"]))
    return made


def _quality_table(version: Report) -> Any:
    numbers = ("rows", "value", "low", "high", "bundle")
    made = table("metric", "slice", *numbers, "verdict", right=numbers)
    for one in version["quality"]:
        if not one["slice"] or one["dropped"]:
            figures = [number(one[key], 3) for key in ("value", "low", "high", "reference")]
            said = "[bold red]dropped[/]" if one["dropped"] else ""
            made.add_row(one["metric"], one["slice"] or "(all)", f"{one['rows']:,}", *figures, said)
    return made


def _dropped(version: Report) -> list[Report]:
    """What is worse than it was tested with, and limits on groups that are not kept, and not by chance."""
    apart = [one for one in (version.get("groups") or {}).get("checks", ()) if one["sure"]]
    return [*(one for one in version["quality"] if one["dropped"]), *apart]


def _expected(estimate: Report) -> str:
    """The estimate before labels are there, as one line."""
    parts = []
    for name, one in estimate["metrics"].items():
        error = "" if one["error"] is None else f" (was off by {one['error']:.3f})"
        parts.append(f"{name} {one['value']:.3f}{error}")
    of = f"To be expected of {estimate['rows']:,} answers of {estimate['day']}, by their own confidence"
    return f"{of}: {', '.join(parts)}"


def verdict(found: Report, *, quiet: bool) -> str:
    """What is to be said of one input, in a few words."""
    if quiet:
        return "no traffic"
    if not found["rows"]:
        return "the log keeps nothing of it"
    if found["drifted"]:
        return f"[bold red]changed[/] {found['since'][:16].replace('T', ' ')}{_why(found)}"
    if found["psi"] > found["noise_floor"]:
        return "tolerated, or too few rows yet"
    return "as before"


def _why(found: Report) -> str:
    """The most telling share of values that the reference lacks."""
    foreign = "new categories" if found["kind"] == "category" else "out of range"
    shares = {
        "without a value": found["missing"] - found["missing_then"],
        "absent": found["absent"],
        "of another type": found["other_type"],
        foreign: found["new_or_out_of_range"],
    }
    words, share = max(shares.items(), key=lambda item: item[1])
    return f", {share:.0%} {words}" if share >= 0.05 else ""
