"""``fairlead schedules`` and ``fairlead run --cron``: what is done, for people and for programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from deploy.cli.profiles.loading import load_cluster_profile
from deploy.cli.terminal.output import console, emit, table, write_json

if TYPE_CHECKING:
    from rich.console import Console

    from deploy.cli.cluster.cluster_settings import Profile
    from deploy.cli.runs.workflow import RunOptions
    from pipelines.run import Run

_STATUS = {"succeeded": "green", "refused": "yellow", "failed": "red", "running": "cyan"}


def make_schedule(profile: Profile, run: Run, options: RunOptions, as_json: bool) -> None:
    """Make a schedule and say when it runs."""
    from deploy.cli.schedules.recurring_runs import create

    made = create(profile, run, options)
    if as_json:
        write_json(made)
        return
    out = console()
    out.print(f"[bold]{made['name']}[/] runs task {made['task']} {made['words']} ({made['timezone']})")
    out.print(f"Next     {', '.join(_local(moment) for moment in made['next'])}", soft_wrap=True)
    if made["copied"]:
        out.print(f"Data     copied to {made['copied']}; later changes of the file are not seen", soft_wrap=True)
    out.print("Look     fairlead schedules; stop it: fairlead schedules pause NAME".replace("NAME", made["name"]))


def show_schedules(profile: str, as_json: bool) -> None:
    """List the schedules of a cluster."""
    from deploy.cli.schedules.schedule_state import listed

    found = listed(load_cluster_profile(profile))
    emit(found, as_json, lambda out: _show(out, found))


def _show(out: Console, found: list[dict[str, Any]]) -> None:
    from rich.text import Text

    if not found:
        out.print('No schedules yet. Make one: fairlead run TASK --profile cluster --cron "0 3 * * *"', markup=False)
        return
    rows = table("name", "task", "when", "next", "last", "")
    for each in found:
        last = each["last"] or {}
        status = Text(last.get("status", "-"), _STATUS.get(last.get("status", ""), ""))
        next_ = Text("paused", "yellow") if each["paused"] else Text(_local(each["next"]))
        what = f"{each['task']} ({each['recipe']})" if each["recipe"] else each["task"]
        when = f"{each['words']} ({each['timezone']})"
        rows.add_row(each["name"], what, when, next_, status, Text(_local(last.get("started"))))
    out.print(rows)
    for each in found:
        if each["outdated"]:
            again = f"; make it again: {each['again']}" if each["again"] else "; make it again"
            out.print(Text.assemble((each["name"], "bold"), f": {each['outdated']}{again}"), soft_wrap=True)


def change_schedule(action: str, profile: str, name: str, as_json: bool) -> None:
    """Pause, resume, delete, or run a schedule now."""
    from deploy.cli.schedules import recurring_runs

    actions: Mapping[str, Callable[[Profile, str], dict[str, Any]]] = {
        "pause": recurring_runs.pause,
        "resume": recurring_runs.resume,
        "run": recurring_runs.run_now,
        "delete": recurring_runs.delete,
    }
    done = actions[action](load_cluster_profile(profile), name)
    emit(done, as_json, lambda out: out.print(_said(action, done), markup=False, soft_wrap=True))


def _said(action: str, done: Mapping[str, Any]) -> str:
    name = done["name"]
    if action == "pause":
        return f"{name} is paused; a run in progress goes on. Go on: fairlead schedules resume {name}"
    if action == "delete":
        return f"{name} is deleted; its runs stay, and one in progress goes on"
    if action == "run":
        return f"{name}: run {done['run_id']} is started. Follow it: fairlead runs {done['kfp_run']} --follow"
    late = "; a time that passed in the pause starts one run now" if done["late_run"] else ""
    next_ = f"; next {_local(done['next'])} ({done['timezone']})" if done["next"] else ""
    return f"{name} goes on{next_}{late}"


def _local(moment: str | None) -> str:
    """A moment as its own zone shows it."""
    if not moment:
        return "-"
    when = datetime.fromisoformat(moment)
    return f"{when if when.tzinfo else when.replace(tzinfo=UTC):%Y-%m-%d %H:%M}"
