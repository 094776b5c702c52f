"""What a search has found, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from deploy.cli.terminal.output import number, seconds, table

if TYPE_CHECKING:
    from rich.console import Console

_SHOWN = 8  # trials of the table, the best ones
_LONGEST = 60  # characters of what a trial failed for


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
