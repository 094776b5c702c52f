"""``fairlead cost``: what runs cost, or the steps of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from deploy.cli.profiles.loading import load_profile
from deploy.cli.terminal.output import emit, seconds, table
from deploy.cli.training.cost import run_cost
from deploy.cli.training.run_listing import found_run, latest_runs

if TYPE_CHECKING:
    from rich.console import Console


def costs(profile: str, run_id: str | None, limit: int) -> list[dict[str, Any]]:
    """The cost of one run, or of each of the latest."""
    where = load_profile(profile)
    on_cluster = where.cluster is not None
    # A cluster's list does not say what each step took: its runs are looked at one by one.
    known = [] if run_id else latest_runs(profile, limit)[0]
    ids = [run_id] if run_id else [run["run_id"] for run in known]
    runs = [found_run(profile, each)[0] for each in ids] if run_id or on_cluster else known
    return [
        {
            "run_id": run["run_id"],
            "task": run.get("task"),
            "recipe": run.get("recipe"),
            "status": run.get("status"),
            **run_cost(run, where.prices, on_cluster=on_cluster),
        }
        for run in runs
    ]


def show_costs(profile: str, run_id: str | None, limit: int, as_json: bool) -> None:
    """Cost of runs, or of the steps of one."""
    found = costs(profile, run_id, limit)

    def show(out: Console) -> None:
        if not found:
            out.print("No runs, and so no cost.")
            return
        money = found[0]["currency"] or "money"
        lines = found[0]["steps"] if run_id else found
        first = "step" if run_id else "run"
        columns = ("core hours", "GiB hours", "GPU hours", money, "idle")
        rows = table(first, "time" if run_id else "status", *columns, right=columns)
        for line in lines:
            rows.add_row(*_cells(line, run_id is not None))
        if len(lines) > 1:
            rows.add_row("all", "", *_figures(_sum(lines)))
        out.print(rows)
        if found[0]["currency"] is None:
            out.print("No prices: put prices: {core_hour: 0.03, gib_hour: 0.004, gpu_hour: 2.0} into a profile's YAML,")
            out.print("or export FAIRLEAD_PRICES__CORE_HOUR=0.03", markup=False)

    emit(found, as_json, show)


def _cells(line: Mapping[str, Any], of_step: bool) -> list[str]:
    first = [line["step"], seconds(line["seconds"])] if of_step else [line["run_id"], str(line["status"])]
    return [*first, *_figures(line)]


def _figures(line: Mapping[str, Any]) -> list[str]:
    found = (line[name] for name in ("core_hours", "gib_hours", "gpu_hours", "money", "idle_money"))
    return ["-" if value is None else f"{value:.3g}" for value in found]


def _sum(lines: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    names = ("core_hours", "gib_hours", "gpu_hours", "money", "idle_money")
    return {name: None if lines[0][name] is None else sum(line[name] for line in lines) for name in names}
