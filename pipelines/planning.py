"""What `fairlead plan` measures, each in a process of its own: the data as a run would make them, and small fits.

``python -m pipelines.planning prepare|fit|steps JOB RESULT``: JSON in, JSON out. The data steps are those of a run, so
that the run finds them in the cache.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from contracts.errors import PlatformError
from pipelines.data_engines import WORKERS, announced, shares_out
from pipelines.groups import Group
from pipelines.io.events import named
from pipelines.io.files import read_json, write_json
from pipelines.io.record import memory_peak
from pipelines.io.step_cache import StepCache
from pipelines.resources import DATA
from pipelines.run import Run
from pipelines.search.trial import inner_dataset, measured
from pipelines.tasks import get_task, load_config
from pipelines.values import values_of

_DRAWS = (997.0, 983.0, 977.0)  # of the rows of a share, one for each repeat


def prepare(job: dict[str, Any]) -> dict[str, Any]:
    """Make the data of a run, and datasets with shares of its training rows.

    Args:
        job: run (a `Run`), folder (of the shares), shares (share -> repeats), small (training rows, of fewer of which
            shares are twice as large; optional), keep (where the whole dataset is kept, if it is).

    Returns:
        rows by part, bytes of the dataset, seconds of these steps, memory_peak, workers that shared them (0: none), and
        fits: share, repeat and dataset.
    """
    began = time.perf_counter()
    run = Run.model_validate(job["run"])
    task = get_task(run.task)
    config = load_config(task, json.dumps(run.config))
    values = values_of(run)
    with StepCache(values["steps"]).scratch() as scratch:
        group = Group(values, {}, scratch)
        with announced(run.settings, str(run.where.scratch("parts"))):
            group.run(DATA)
        seconds = time.perf_counter() - began
        dataset = group.path("built")
        if keep := job.get("keep"):
            shutil.copytree(dataset, keep, dirs_exist_ok=True)
        fits, rows = [], read_json(dataset / "dataset.json")["rows"]
        larger = 2 if rows["train"] < job.get("small", 0) else 1
        for share, repeats in [(larger * share, repeats) for share, repeats in job["shares"]]:
            for repeat in range(repeats):
                out = Path(job["folder"]) / f"{share:g}-{repeat}"
                inner_dataset(task, dataset, out, share, _DRAWS[repeat % len(_DRAWS)])
                fits.append({"share": share, "repeat": repeat, "dataset": str(out)})
        return {
            "rows": rows,
            "bytes": sum(file.stat().st_size for file in dataset.rglob("*") if file.is_file()),
            "seconds": seconds,
            "memory_peak": memory_peak(),
            "workers": run.settings.get("data.workers", WORKERS) if shares_out(run.settings) else 0,
            "recipe": config.recipe,
            "fits": fits,
        }


def fit(job: dict[str, Any]) -> dict[str, Any]:
    """Train on a share of the rows.

    Args:
        job: task, config (the training's, as JSON), dataset, folder (empty), metric.

    Returns:
        rows that were trained on, seconds, cpu_seconds and memory_peak of the training, bytes of the model, and the
        metric's value on the validation rows (None where it is not defined).
    """
    import pandas as pd

    task = get_task(job["task"])
    config = load_config(task, job["config"])
    dataset, folder = Path(job["dataset"]), Path(job["folder"])
    checkpoints = folder / "checkpoints" / "fit"
    (folder / "model").mkdir(parents=True)
    checkpoints.mkdir(parents=True)
    began, worked = time.perf_counter(), time.process_time()
    trained = config.train(task, dataset, folder / "model", checkpoints, lambda *_, **__: None)
    seconds, spent, peak = time.perf_counter() - began, time.process_time() - worked, memory_peak()
    rows = sum(len(pd.read_parquet(dataset / f"{part}.parquet", columns=["id"])) for part in ("train", "valid"))
    found = measured(task, config, trained, folder, dataset / "test.parquet", (job["metric"],))
    return {
        "rows": rows,
        "seconds": seconds,
        "cpu_seconds": spent,
        "memory_peak": peak,
        "model_bytes": sum(file.stat().st_size for file in (folder / "model").rglob("*") if file.is_file()),
        "value": found.get(job["metric"]),
        "device": trained["device"],
    }


def steps(job: dict[str, Any]) -> dict[str, Any]:
    """A few real steps of a training, of a recipe that has ``planned_steps``; see there for the result.

    Args:
        job: task, config (the training's, as JSON), dataset, folder (for what is made), limit (bytes of memory).
    """
    task = get_task(job["task"])
    config: Any = load_config(task, job["config"])
    folder = Path(job["folder"])
    folder.mkdir(parents=True)
    found: dict[str, Any] = config.planned_steps(task, Path(job["dataset"]), folder, float(job["limit"]))
    return found


def main(arguments: list[str]) -> int:
    """Run one of the three; an error is the result, as a document."""
    what, job, result = arguments
    try:
        write_json(Path(result), {"prepare": prepare, "fit": fit, "steps": steps}[what](read_json(job)))
    except SystemExit:  # a step has said why
        return 1
    except Exception as err:  # noqa: BLE001  it is told to who asked for the plan
        error: PlatformError = named(err, "the plan")
        write_json(Path(result), {"error": error.as_dict()})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
