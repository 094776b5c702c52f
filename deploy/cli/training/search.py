"""``fairlead search``: a run that trains the best of a search, and what the search has found."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from deploy.cli.profiles.loading import load_endpoints, load_profile
from deploy.cli.runs.workflow import RunOptions
from deploy.cli.terminal.output import number, seconds, table
from deploy.cli.training.start_run import run_task
from pipelines.settings import setting

if TYPE_CHECKING:
    from rich.console import Console

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}
_SHOWN = 8  # trials of the table, the best ones
_LONGEST = 60  # characters of what a trial failed for


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """What the command is told of the search itself; what is left out is the recipe's (`SearchConfig`)."""

    trials: int
    time: str = ""
    metrics: Sequence[str] = ()
    workers: int = 1
    name: str = ""


def search_task(task: str, recipe: str | None, search: SearchOptions, options: RunOptions, as_json: bool) -> None:
    """Search and train, and exit with 3 when the gate refused the best."""
    here = load_profile(options.profile).cluster is None
    if here and importlib.util.find_spec("optuna") is None:
        raise PlatformError(
            "a search needs Optuna, which is not installed",
            fix="pip install 'fairlead[search]'",
            code="missing_package",
        )
    told: dict[str, Any] = {"search.trials": search.trials, "search.workers": search.workers}
    told |= {"search.metrics": list(search.metrics)} if search.metrics else {}
    told |= {"search.seconds": duration(search.time)} if search.time else {}
    told |= {"search.name": search.name} if search.name else {}
    if studies := load_endpoints(options.profile).studies:
        told["search.storage"] = studies
    words = [setting(key, value).removeprefix("--set ") for key, value in told.items()]
    given = [*(_unquoted(word) for word in words), *options.overrides]
    run_task(task, recipe, None, replace(options, overrides=given), as_json)


def duration(text: str) -> float:
    """Seconds of ``90``, ``90s``, ``10m`` or ``1.5h``.

    Raises:
        PlatformError: ``code="bad_option"``.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if not found or not float(found[1]):
        raise PlatformError(f"--time {text!r} is no duration", fix="write it as 90s, 10m or 1.5h", code="bad_option")
    return float(found[1]) * _UNITS[found[2]]


def _unquoted(word: str) -> str:
    import shlex

    return shlex.split(word)[0]


def show_search(out: Console, search: Mapping[str, Any]) -> None:
    """The best trials, what mattered, and default beside best on validation and on test."""
    counts = ", ".join(f"{count} {state}" for state, count in search["counts"].items() if count)
    out.print(f"\nSearch   {counts}, {seconds(search['seconds'])}", markup=False)
    metrics = search["metrics"]
    rows = table("trial", *metrics, "settings", right=metrics)
    for one in _best(search):
        mark = "*" if one["number"] == search["best"]["number"] else ""
        values = [number(one["values"].get(name)) for name in metrics]
        rows.add_row(f"{one['number']}{mark}", *values, _said(one["settings"]))
    out.print(rows)
    if failed := [one for one in search["trials"] if one.get("error")]:
        said = failed[0]["error"]
        out.print(f"         {len(failed)} failed, the first: {said[:_LONGEST]}", markup=False, soft_wrap=True)
    if search["importance"]:
        shares = [f"{key} {share:.0%}" for key, share in [*search["importance"].items()][:4]]
        out.print(f"         what mattered: {', '.join(shares)}", markup=False, soft_wrap=True)
    tested = [name for name in metrics if name in search["best"].get("test", {})]
    parts = [(name, part) for name in metrics for part in (("valid", "test") if name in tested else ("valid",))]
    headings = [f"{name}, {'validation' if part == 'valid' else part}" for name, part in parts]
    both = table("", *headings, right=headings)
    for key, said in (("default", "recipe as it is"), ("best", "best on validation")):
        cells = [number(search[key].get(part, {}).get(name)) for name, part in parts]
        both.add_row(said, *cells)
    out.print(both)
    if verdict := search.get("verdict"):
        out.print(f"         {verdict}", markup=False, soft_wrap=True)
    out.print(f"Again    {search['best']['command']}", markup=False, soft_wrap=True)


def _best(search: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The front of a search for several metrics, else the best trials of the one."""
    metric, up = search["metrics"][0], search["higher"][0]
    known = [one for one in search["trials"] if metric in one["values"]]
    known.sort(key=lambda one: one["values"][metric], reverse=up)
    front = [one for one in known if one["number"] in search["front"]]
    return (front or known)[:_SHOWN]


def _said(settings: Mapping[str, Any]) -> str:
    short = {key.rpartition(".")[2]: value for key, value in settings.items()}
    return ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in short.items()
    )
