"""The plans of runs: kept beside the runs, compared with what they really took, and asked before a run starts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from contracts.model_memory import memory_limit
from contracts.quantities import shown
from pipelines.io.files import write_json
from pipelines.run import Run
from pipelines.run_settings import keeps_plan
from pipelines.tasks import get_task, load_config
from pipelines.values import as_document

FOLDER = "plans"
HERE, CLUSTER = "here", "cluster"  # where runs ran that plans are compared with
FULL = 0.9  # of the memory that there is
_KEPT = 10  # comparisons of a plan with what was taken


def key_of(run: Run) -> str:
    """Names what decides how much a training takes: task, configuration of the training, and source."""
    config = load_config(get_task(run.task), json.dumps(run.config))
    told = [run.task, as_document(config.training_part()), run.source]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:24]


def read_plan(where: Endpoints, key: str) -> dict[str, Any] | None:
    """The plan of a `key_of`; None where there is none, or half a document."""
    try:
        found = json.loads((where.scratch(FOLDER) / f"{key}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def write_plan(where: Endpoints, key: str, plan: Mapping[str, Any]) -> None:
    """Keep a plan in place of an older one of the same training."""
    write_json(where.scratch(FOLDER) / f"{key}.json", dict(plan))


def taken(plan: Mapping[str, Any], record: Mapping[str, Any], place: str = HERE) -> dict[str, Any] | None:
    """What the training of a run took beside its plan; None where it did not train, or was planned later.

    place: where it ran: `HERE` or `CLUSTER`, whose pods may be faster or slower than this machine.
    """
    step = (record.get("steps") or {}).get("train") or {}
    if step.get("status") != "finished" or not step.get("seconds") or str(record.get("started")) < str(plan["made"]):
        return None
    said = {"run": record.get("run_id"), "recipe": plan["recipe"], "task": plan["task"], "place": place}
    found: dict[str, Any] = said
    for name in ("seconds", "memory_peak"):
        if name in step and name in plan["train"]:
            likely = plan["train"][name]["likely"]
            found[name] = {"planned": likely, "took": step[name], "off": step[name] / likely - 1}
    return found


def wrong_before(
    where: Endpoints, task: str, recipe: str, records: Sequence[Mapping[str, Any]], place: str = HERE
) -> list[dict[str, Any]]:
    """How wrong the plans of a task's recipe were, the newest last: of runs that have ended, and as plans remember.

    records: of runs in `place`; what plans remember of another place is left out.
    """
    found: dict[str, dict[str, Any]] = {}
    oldest_first = sorted(records, key=lambda record: str(record.get("started")))
    keyed = [(key_of_record(record), record) for record in oldest_first if record.get("task") == task]
    for plan in _plans(where):
        if plan.get("task") != task or plan.get("recipe") != recipe:
            continue
        found |= {one["run"]: one for one in plan.get("wrong", []) if one.get("place", HERE) == place}
        done = [taken(plan, record, place) for key, record in keyed if key == plan["key"]]
        found |= {str(one["run"]): one for one in done if one}
    return list(found.values())[-_KEPT:]


def correction(wrong: list[dict[str, Any]], name: str) -> float:
    """By what plans are to be multiplied to be right in the middle of those before; 1 where nothing is known."""
    ratios = [1 + one[name]["off"] for one in wrong if name in one]
    return median(ratios) if ratios else 1.0


def refuse_what_cannot_fit(run: Run) -> None:
    """Refuse a run whose plan says that this machine has too little memory or disk for it.

    Raises:
        PlatformError: ``code="does_not_fit"``, with what would fit.
    """
    if run.workflow not in ("full", "training") or not keeps_plan(run.settings):
        return
    plan = read_plan(run.where, key_of(run))
    if plan is None:
        return
    need, limit = float(plan["need"]), memory_limit()
    if steps := plan.get("steps"):
        _refuse_steps(plan, steps, need, limit)
    if need > FULL * limit:
        rows = int(plan["rows"]["train"] * FULL * limit / need)
        raise PlatformError(
            f"the run does not fit: it needs about {shown(int(need))} of memory, and {shown(limit)} are here",
            detail=f"by its plan of {plan['made']}; at most {FULL:.0%} of the memory is planned with",
            fix=f"take about {rows:,} rows instead of {plan['rows']['train']:,}, or a machine with "
            f"{shown(int(need / FULL))}; on a cluster: --set resources.train.memory={plan['resources']}; "
            "to try it all the same: --set workflow.plan=ignored",
            code="does_not_fit",
        )
    if (disk := float(plan["disk"])) > (free := _free(run.where.scratch())):
        raise PlatformError(
            f"the run does not fit on the disk: it writes about {shown(int(disk))}, and {shown(free)} are free",
            detail=f"by its plan of {plan['made']}, in {run.where.scratch()}",
            fix="free some space, or set another folder in the profile; all the same: --set workflow.plan=ignored",
            code="does_not_fit",
        )


def _refuse_steps(plan: Mapping[str, Any], steps: Mapping[str, Any], need: float, limit: float) -> None:
    """Refuse a tuning that needs more memory than the GPU here has, or this machine where there is none."""
    where, most = "this machine has", limit
    if steps["device"].startswith("cuda"):
        where, need, most = "the GPU here has", gpu_need(steps), _gpu_memory()
    if need <= FULL * most:
        return
    needs = {words: need * size / steps["gpu_memory"]["total"] for words, size in steps["less"]}
    less = next((words for words, size in needs.items() if size <= FULL * most), "")
    smaller = f"{less} needs less; or " if less else "no setting of the recipe makes it small enough; "
    raise PlatformError(
        f"the run does not fit: a step needs about {shown(int(need))} of memory, and {where} {shown(int(most))}",
        detail=f"by its plan of {plan['made']}; its longest batch has {steps['longest']:,} tokens",
        fix=f"{smaller}take a smaller model, or a machine with {shown(int(need / FULL))}; "
        "to try it all the same: --set workflow.plan=ignored",
        code="does_not_fit",
    )


def gpu_need(steps: Mapping[str, Any]) -> float:
    """Bytes of GPU memory that a tuning needs: what real steps took, else the formula with a tenth of room."""
    return float(steps["gpu_measured"] or 1.1 * steps["gpu_memory"]["total"])


def _gpu_memory() -> float:
    import torch

    return float(torch.cuda.get_device_properties(0).total_memory)


def _free(folder: Path) -> int:
    import shutil

    return shutil.disk_usage(next(each for each in (folder, *folder.parents) if each.exists())).free


def key_of_record(record: Mapping[str, Any]) -> str:
    """`key_of` a run that has ended, by its record; "" where its task or configuration is not there any more."""
    try:
        return key_of(Run.model_validate(record))
    except (PlatformError, ValueError, KeyError):
        return ""


def _plans(where: Endpoints) -> Iterator[dict[str, Any]]:
    folder = where.scratch(FOLDER)
    files = sorted(folder.glob("*.json"), key=lambda file: file.stat().st_mtime) if folder.is_dir() else []
    for file in files:
        if plan := read_plan(where, file.stem):
            yield plan
