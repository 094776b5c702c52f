"""``fairlead plan``: what a training will need, from a few small ones, before it is paid for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from contracts.quantities import memory, shown
from deploy.cli.profiles.loading import load_endpoints, load_profile
from deploy.cli.runs.run_files import list_runs
from deploy.cli.runs.workflow import RunOptions, plan_run
from deploy.cli.terminal.output import console, emit, number, seconds, table

if TYPE_CHECKING:
    from rich.console import Console

    from pipelines.run import Run

_SHARES = ((0.1, 3), (0.2, 3), (0.4, 1))  # of the training rows, and how many fits
_FEWEST = 3  # fits, of which no time limit keeps it
_ROOM = 1.3  # memory of a step on a cluster, beside what it took


def plan_task(task: str, recipe: str | None, most: float, options: RunOptions, as_json: bool) -> None:
    """Measure, forecast, keep the plan, and print it; `most` seconds are spent on small fits."""
    if load_profile(options.profile).cluster is not None:
        raise PlatformError(
            "a plan is measured on this machine",
            detail=f"profile {options.profile} is of a cluster",
            fix="plan here, and give the memory that it says to the cluster: --set resources.train.memory=...",
            code="bad_option",
        )
    run = plan_run(load_endpoints(options.profile), task, recipe, options)
    out = console()
    say = (lambda text: None) if as_json else (lambda text: out.print(text, markup=False, soft_wrap=True))
    plan = made_plan(run, most, say)
    emit(plan, as_json, lambda on: show_plan(on, plan))


def made_plan(run: Run, most: float, say: Callable[[str], None]) -> dict[str, Any]:
    """The plan of a run, which is kept for it.

    Raises:
        PlatformError: what the data or a small training raise; ``code="plan_failed"`` for a process that died.
    """
    from contracts.model_memory import memory_limit
    from pipelines.planned import correction, key_of, write_plan, wrong_before
    from pipelines.task import dump_config
    from pipelines.tasks import get_task, load_config

    task = get_task(run.task)
    config = load_config(task, json.dumps(run.config))
    with tempfile.TemporaryDirectory(prefix="fairlead-plan-") as name:
        folder = Path(name)
        job = {"run": run.document(), "folder": str(folder / "shares"), "shares": _SHARES}
        data = measured_apart("prepare", job, folder)
        say(f"ok data           {seconds(data['seconds']):>12}  {data['rows']['train']:,} training rows")
        fits, began = [], time.monotonic()
        wanted = sorted(data["fits"], key=lambda one: (one["repeat"], one["share"]))
        for at, one in enumerate(wanted):
            if at >= _FEWEST and time.monotonic() - began > most:
                break
            fit = measured_apart(
                "fit",
                {
                    "task": run.task,
                    "config": dump_config(config.training_part()),
                    "dataset": one["dataset"],
                    "folder": str(folder / f"fit-{at}"),
                    "metric": config.gate.primary,
                },
                folder,
            )
            fits.append({**fit, "share": one["share"]})
            say(f"ok fit of {fit['rows']:>7,} {seconds(fit['seconds']):>12}  {shown(fit['memory_peak'] or 0, 'Mi')}")
    wrong = wrong_before(run.where, run.task, config.recipe, list_runs(run.where))
    factors = {name: correction(wrong, name) for name in ("seconds", "memory_peak")}
    plan = forecast(data, fits, config.gate.primary, _higher(task, config.gate.primary), factors)
    limit = memory_limit()
    others = _others(run, list_runs(run.where))
    plan |= {
        "need": max(plan["train"]["memory_peak"]["likely"], *(one["memory_peak"] for one in others.values()), 0),
        "task": run.task,
        "recipe": config.recipe,
        "source": run.source or "built-in",
        "key": (key := key_of(run)),
        "made": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "limit": limit,
        "wrong": wrong,
        "corrected": factors,
        "others": others,
    }
    write_plan(run.where, key, plan)
    return plan


def forecast(
    data: Mapping[str, Any], fits: list[dict[str, Any]], metric: str, higher: bool, factors: Mapping[str, float]
) -> dict[str, Any]:
    """The numbers of a plan: bands at all rows from small fits, multiplied by how wrong plans were before."""
    from pipelines.forecast import amount, learning_curve

    rows = data["rows"]["train"] + data["rows"]["valid"]
    sizes = [float(fit["rows"]) for fit in fits]
    train = {
        name: amount(sizes, [float(fit[name] or 1.0) for fit in fits], rows).times(factors[name]).as_dict()
        for name in ("seconds", "memory_peak")
    }
    model = amount(sizes, [float(fit["model_bytes"]) for fit in fits], rows)
    errors: dict[float, list[float]] = {}
    for fit in fits:
        if fit["value"] is not None and (error := 1 - fit["value"] if higher else fit["value"]) > 0:
            errors.setdefault(float(round(fit["share"] * rows)), []).append(error)
    curve = []
    if len(errors) >= _FEWEST:
        for factor, band in zip((1, 2, 4), learning_curve(errors, [rows, 2 * rows, 4 * rows]), strict=True):
            ends = sorted(1 - end if higher else end for end in (band.low, band.high))
            likely = 1 - band.likely if higher else band.likely
            curve.append({"rows": factor * rows, "low": ends[0], "likely": likely, "high": ends[1]})
    return {
        "rows": data["rows"],
        "bytes": data["bytes"],
        "data": {"seconds": data["seconds"], "memory_peak": data["memory_peak"]},
        "fits": fits,
        "train": train,
        "disk": 2 * data["bytes"] + 3 * model.high,
        "resources": memory(int(_ROOM * train["memory_peak"]["likely"])),
        "metric": metric,
        "learning": curve,
    }


def measured_apart(what: str, job: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The result of a process of `pipelines.planning`, of `what` it does: prepare or fit."""
    given, result, log = folder / f"{what}.json", folder / f"{what}-result.json", folder / f"{what}.log"
    result.unlink(missing_ok=True)
    given.write_text(json.dumps(job), encoding="utf-8")
    with log.open("w") as said:
        command = [sys.executable, "-m", "pipelines.planning", what, str(given), str(result)]
        process = subprocess.run(command, stdout=said, stderr=said, check=False, env=os.environ)
    if result.exists():
        found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        if "error" in found:
            raise PlatformError.from_dict(found["error"])
        return found
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    for line in lines:
        if line.startswith('{"event": "step_failed"'):
            raise PlatformError.from_dict(json.loads(line)["error"])
    detail = " | ".join(lines[-4:])[:800] or "it said nothing; memory may have run out"
    what = "the data" if what == "prepare" else "a small training"
    raise PlatformError(
        f"the process that measures {what} ended with {process.returncode}",
        detail=detail,
        fix="give less data, or a machine with more memory",
        code="plan_failed",
    )


def _others(run: Run, records: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Seconds and memory of the steps after the training, in the newest run of the task that recorded them."""
    for record in records:
        steps = record.get("steps") or {}
        found = {name: steps.get(name) or {} for name in ("evaluate", "gate", "register")}
        if record.get("task") == run.task and all(one.get("memory_peak") for one in found.values()):
            return {name: {key: one[key] for key in ("seconds", "memory_peak")} for name, one in found.items()}
    return {}


def _higher(task: Any, metric: str) -> bool:
    from pipelines.evaluation import get_evaluation
    from pipelines.task import problem_of

    return get_evaluation(problem_of(task)).higher_is_better(metric)


def show_plan(out: Console, plan: Mapping[str, Any]) -> None:
    """The plan for people."""
    from pipelines.planned import FULL

    rows = plan["rows"]
    out.print(f"\nPlan of [bold]{plan['task']}[/], recipe {plan['recipe']}, source {plan['source']}", soft_wrap=True)
    said = table("", "likely", "from", "to", "how it is known", right=("likely", "from", "to"))
    time_, size = plan["train"]["seconds"], plan["train"]["memory_peak"]
    small = f"{len(plan['fits'])} fits of {plan['fits'][0]['rows']:,} to {max(f['rows'] for f in plan['fits']):,} rows"
    said.add_row("rows", f"{rows['train']:,}", "", "", f"measured; {rows['valid']:,} valid, {rows['test']:,} test")
    said.add_row("data set", shown(plan["bytes"], "Mi"), "", "", "measured")
    said.add_row("data steps", seconds(plan["data"]["seconds"]), "", "", "measured; in the cache for the run")
    said.add_row("training", *(seconds(time_[key]) for key in ("likely", "low", "high")), small)
    said.add_row("memory", *(shown(int(size[key]), "Mi") for key in ("likely", "low", "high")), "the same")
    said.add_row("disk", shown(int(plan["disk"]), "Mi"), "", "", "data set twice, model three times")
    after = plan["others"].values()
    held = f", {shown(int(max(one['memory_peak'] for one in after)), 'Mi')} of memory" if after else ""
    took = seconds(sum(one["seconds"] for one in after)) if after else "-"
    said.add_row("steps after", took, "", "", f"the last run{held}" if after else "no run yet")
    for point in plan["learning"]:
        name = f"{plan['metric']}, {point['rows']:,} rows"
        said.add_row(name, *(number(point[key]) for key in ("likely", "low", "high")), "both curve forms")
    out.print(said)
    for one in plan["wrong"][-3:]:
        named = (("seconds", "time"), ("memory_peak", "memory"))
        parts = [f"{name} {one[key]['off']:+.0%}" for key, name in named if key in one]
        out.print(f"Before   {one['run']} took beside its plan: {', '.join(parts)}", markup=False, soft_wrap=True)
    fits = plan["need"] <= FULL * plan["limit"]
    verdict = "it fits here" if fits else "it does not fit here, and fairlead run refuses it"
    out.print(f"Fit      {verdict}: {shown(plan['limit'])} of memory; a plan takes at most {FULL:.0%} of it")
    out.print(f"Cluster  --set resources.train.memory={plan['resources']}", markup=False)
