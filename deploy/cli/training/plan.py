"""``fairlead plan``: what a training will need, from a few small ones, before it is paid for."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from contracts.quantities import memory, shown
from deploy.cli.profiles.loading import load_endpoints, load_profile
from deploy.cli.runs.run_files import list_runs
from deploy.cli.runs.workflow import RunOptions, plan_run
from deploy.cli.terminal.output import console, emit, number, seconds, table
from deploy.cli.training.plan_places import too_large
from pipelines.data_engines import enough

if TYPE_CHECKING:
    from rich.console import Console

    from pipelines.run import Run

SHARES = ((0.05, 3), (0.1, 3), (0.2, 1), (0.4, 1))  # of the training rows, and how many fits
_SMALL = 2000  # training rows, of fewer of which shares are twice as large
_MUCH, _LONG = 0.5, 1800.0  # share of the memory, and seconds, that the data steps of one process should stay below
_FEWEST = 3  # fits, of which no time limit keeps it
_ROOM = 1.3  # memory of a step on a cluster, beside what it took


def plan_task(task: str, recipe: str | None, most: float, options: RunOptions, as_json: bool) -> None:
    """Measure, forecast, keep the plan, and print it; `most` seconds are spent on small fits."""
    out = console()
    say = (lambda text: None) if as_json else (lambda text: out.print(text, markup=False, soft_wrap=True))
    plan = planned(task, recipe, most, options, say)
    emit(plan, as_json, lambda on: show_plan(on, plan))


def planned(
    task: str, recipe: str | None, most: float, options: RunOptions, say: Callable[[str], None]
) -> dict[str, Any]:
    """The plan of a run, with what it costs and, of a cluster's profile, the nodes that take it.

    It is measured on this machine in any case: of a cluster's profile with data below that profile's home.
    """
    from contracts.endpoints import Endpoints
    from deploy.cli.profiles.homes import find_home
    from deploy.cli.training.plan_places import cluster_records, money, places, planned_needs

    profile = load_profile(options.profile)
    if profile.cluster is None:
        run = plan_run(load_endpoints(options.profile), task, recipe, options)
        plan = made_plan(run, most, say)
        return {**plan, "money": money(plan, None, profile.prices)}
    home = profile.home if "FAIRLEAD_HOME" in os.environ else str(find_home(profile.home))
    run = plan_run(Endpoints(home=home).resolved(), task, recipe, options)
    plan = made_plan(run, most, say, cluster_records(profile, run, say))
    needs = planned_needs(run, plan)
    return {**plan, "money": money(plan, needs, profile.prices), "places": places(profile, run, plan)}


def made_plan(
    run: Run, most: float, say: Callable[[str], None], elsewhere: Sequence[Mapping[str, Any]] | None = None
) -> dict[str, Any]:
    """The plan of a run, which is kept for it.

    Args:
        elsewhere: records of runs of the cluster that the plan is for; None of a plan for this machine.

    Raises:
        PlatformError: what the data or a small training raise; ``code="plan_failed"`` for a process that died.
    """
    from contracts.model_memory import memory_limit
    from pipelines.planned import CLUSTER, HERE, correction, key_of, read_plan, write_plan, wrong_before
    from pipelines.tasks import get_task, load_config

    task = get_task(run.task)
    config = load_config(task, json.dumps(run.config))
    records, place = (list_runs(run.where), HERE) if elsewhere is None else (elsewhere, CLUSTER)
    wrong = wrong_before(run.where, run.task, config.recipe, records, place)
    factors = {name: correction(wrong, name) for name in ("seconds", "memory_peak")}
    with tempfile.TemporaryDirectory(prefix="fairlead-plan-") as name:
        folder = Path(name)
        job = {"run": run.document(), "folder": str(folder / "shares"), "shares": SHARES, "small": _SMALL}
        if hasattr(config, "planned_steps"):
            plan = _by_steps(run, config, folder, {**job, "shares": [], "keep": str(folder / "whole")}, factors, say)
        else:
            plan = _by_fits(run, config, folder, job, factors, most, say)
    limit = memory_limit()
    others = _others(run, records)
    before = read_plan(run.where, key := key_of(run)) or {}
    same = before.get("rows") == plan["rows"] and before["data"].get("workers", 0) == plan["data"]["workers"]
    if same:  # the data may have come from the cache, which takes next to nothing
        for name in ("seconds", "memory_peak"):
            plan["data"][name] = max(plan["data"][name], before["data"][name])
    plan |= {
        "need": max(_memory_of(plan), *(one["memory_peak"] for one in others.values()), 0),
        "task": run.task,
        "recipe": config.recipe,
        "source": run.source or "built-in",
        "key": key,
        "made": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "limit": limit,
        "wrong": wrong,
        "corrected": factors,
        "others": others,
    }
    write_plan(run.where, key, plan)
    return plan


def _by_fits(
    run: Run,
    config: Any,
    folder: Path,
    job: Mapping[str, Any],
    factors: Mapping[str, float],
    most: float,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """A plan from real trainings of parts of the rows."""
    from pipelines.task import dump_config
    from pipelines.tasks import get_task

    data = _data(job, folder, say)
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
    metric = config.gate.primary
    return forecast(data, fits, metric, _higher(get_task(run.task), metric), factors)


def _by_steps(
    run: Run,
    config: Any,
    folder: Path,
    job: Mapping[str, Any],
    factors: Mapping[str, float],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """A plan from a formula and a few real steps, of a recipe whose smallest training would cost too much."""
    from contracts.model_memory import memory_limit
    from pipelines.task import dump_config

    data = _data(job, folder, say)
    told = {
        "task": run.task,
        "config": dump_config(config.training_part()),
        "dataset": job["keep"],
        "folder": str(folder / "steps"),
    }
    found = measured_apart("steps", {**told, "limit": memory_limit()}, folder)
    train = {}
    for name in ("seconds", "memory_peak"):
        if found[name]:
            train[name] = {
                end: value * factors[name] for end, value in zip(("low", "likely", "high"), found[name], strict=True)
            }
    say(f"ok real steps     {found['why'] or 'the longest batch, four more, and a whole tuning of a few'}")
    need = train["memory_peak"]["likely"] if train else found["need"]
    return {
        "rows": data["rows"],
        "bytes": data["bytes"],
        "data": {name: data[name] for name in ("seconds", "memory_peak", "workers")},
        "fits": [],
        "train": train,
        "disk": 2 * data["bytes"] + (3 * 4 + 1) * found["parameters"],  # the base and copies of it as they are written
        "resources": memory(int(_ROOM * need)),
        "metric": config.gate.primary,
        "learning": [],
        "steps": {name: value for name, value in found.items() if name not in ("seconds", "memory_peak")},
    }


def _data(job: Mapping[str, Any], folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    data = measured_apart("prepare", job, folder)
    say(f"ok data           {seconds(data['seconds']):>12}  {data['rows']['train']:,} training rows")
    return data


def _memory_of(plan: Mapping[str, Any]) -> float:
    """Bytes that the training needs of this machine's memory."""
    return float(plan["train"]["memory_peak"]["likely"] if plan["train"] else plan["steps"]["need"])


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
        "data": {name: data[name] for name in ("seconds", "memory_peak", "workers")},
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
    lines, step = log.read_text(encoding="utf-8", errors="replace").splitlines(), ""
    for line in lines:
        if line.startswith('{"event": "step_started"'):
            step = str(json.loads(line)["step"])
        if line.startswith('{"event": "step_failed"'):
            error = json.loads(line)["error"]
            if what == "prepare" and error["code"] == "out_of_memory":
                error["fix"] = too_large(job["run"], step)
            raise PlatformError.from_dict(error)
    detail = " | ".join(lines[-4:])[:800] or "it said nothing; memory may have run out"
    killed = what == "prepare" and process.returncode < 0  # by the kernel, when memory ran out
    doing = {"prepare": "the data", "steps": "a few steps"}.get(what, "a small training")
    raise PlatformError(
        f"the process that measures {doing} ended with {process.returncode}",
        detail=detail,
        fix=too_large(job["run"], step) if killed else "give less data, or a machine with more memory",
        code="plan_failed",
    )


def _others(run: Run, records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
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


def _show_training(said: Any, plan: Mapping[str, Any]) -> None:
    """Time and memory of the training, and of a tuning what a GPU must have."""
    steps, ends = plan.get("steps"), ("likely", "low", "high")
    sizes = [fit["rows"] for fit in plan["fits"]]
    how = (
        "real steps, and a whole tuning of a few batches"
        if steps
        else f"{len(sizes)} fits of {sizes[0]:,} to {max(sizes):,} rows"
    )
    if plan["train"]:
        time_, size = plan["train"]["seconds"], plan["train"]["memory_peak"]
        said.add_row("training", *(seconds(time_[key]) for key in ends), how)
        said.add_row("memory", *(shown(int(size[key]), "Mi") for key in ends), "the same")
    elif steps:
        said.add_row("memory", shown(int(steps["need"]), "Mi"), "", "", f"formula; {steps['why']}")
    if steps:
        from pipelines.planned import gpu_need

        parts = ", ".join(
            f"{name} {shown(value, 'Mi')}" for name, value in steps["gpu_memory"].items() if name != "total"
        )
        how = "real steps" if steps["gpu_measured"] else "formula and a tenth"
        said.add_row("GPU memory", shown(int(gpu_need(steps)), "Mi"), "", "", f"{how}: {parts}")
        of = f"{steps['trained']:,} of {steps['parameters']:,} weights are trained"
        said.add_row("steps", f"{steps['steps']:,}", "", "", f"{of}; longest batch {steps['longest']:,} tokens")
        for words, need in steps["less"]:
            said.add_row("  with less", shown(int(1.1 * need), "Mi"), "", "", words)


def one_machine(plan: Mapping[str, Any]) -> str:
    """Why the data steps should be shared by several workers, and the setting; "" where one process is enough."""
    data, limit = plan["data"], plan["limit"]
    if data.get("workers") or (data["memory_peak"] < _MUCH * limit and data["seconds"] < _LONG):
        return ""
    said, memory_of_all = enough(data["memory_peak"], math.ceil(data["seconds"] / _LONG))
    where = " on a cluster (--profile)" if memory_of_all > limit else ""
    return (
        f"one process took {shown(int(data['memory_peak']), 'Mi')} of {shown(limit)} and {seconds(data['seconds'])} "
        f"for the data steps; workers{where} share windows, joins and batches: {said}"
    )


def show_plan(out: Console, plan: Mapping[str, Any]) -> None:
    """The plan for people."""
    from pipelines.planned import FULL

    rows = plan["rows"]
    out.print(f"\nPlan of [bold]{plan['task']}[/], recipe {plan['recipe']}, source {plan['source']}", soft_wrap=True)
    said = table("", "likely", "from", "to", "how it is known", right=("likely", "from", "to"))
    said.add_row("rows", f"{rows['train']:,}", "", "", f"measured; {rows['valid']:,} valid, {rows['test']:,} test")
    said.add_row("data set", shown(plan["bytes"], "Mi"), "", "", "measured")
    said.add_row("data steps", seconds(plan["data"]["seconds"]), "", "", "measured; in the cache for the run")
    _show_training(said, plan)
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
    if cost := plan.get("money"):
        said_cost = " to ".join(f"{cost[end]:.3g}" for end in ("low", "high"))
        out.print(f"Cost     about {cost['likely']:.3g} {cost['currency']} for the training, {said_cost}", markup=False)
    if placed := plan.get("places"):
        _show_places(out, placed)
        return
    fits = plan["need"] <= FULL * plan["limit"]
    verdict = "it fits here" if fits else "it does not fit here, and fairlead run refuses it"
    out.print(f"Fit      {verdict}: {shown(plan['limit'])} of memory; a plan takes at most {FULL:.0%} of it")
    if advice := one_machine(plan):
        out.print(f"Data     {advice}", markup=False, soft_wrap=True)
    out.print(f"Cluster  --set resources.train.memory={plan['resources']}", markup=False)


def _show_places(out: Console, placed: Mapping[str, Any]) -> None:
    asks = placed["asks"]
    gpus = f", {asks['gpus']} GPUs" if asks["gpus"] else ""
    out.print(f"Cluster  the training asks for {asks['memory']} of memory, {asks['cpu']} cores{gpus}", markup=False)
    if placed["nodes"]:
        rows = table("node", "takes now", "once it is empty", right=("takes now", "once it is empty"))
        for one in placed["nodes"]:
            rows.add_row(one["node"], str(one["now"]), str(one["empty"]))
        out.print(rows)
    verdict = {True: "it fits", False: "it does not fit, and fairlead run refuses it", None: "not known"}[
        placed["fits"]
    ]
    out.print(f"Fit      {verdict}{': ' if placed['says'] else ''}{placed['says']}", markup=False, soft_wrap=True)
