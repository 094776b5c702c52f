"""Data, tasks and processes of the bench of searches."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import pipelines.tasks
from pipelines.data.seen import Seen, row_hashes
from pipelines.recipes.tabular.task import TabularTask
from pipelines.search.worker import Job, Worker
from pipelines.task import Column, TaskConfig

ROWS, INPUTS = 20_000, 30


def silent(*_: Any, **__: Any) -> None:
    """Progress that nobody looks at."""


class Inline:
    """In place of the processes of a search: in this one, which knows the tasks of this file."""

    def __init__(self, job: Path, count: int) -> None:
        self.job = job

    def __enter__(self) -> Inline:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def running(self) -> bool:
        Worker(Job.model_validate_json(self.job.read_text()), 0).run()
        return False


class Smooth(TabularTask):
    """Two classes by a smooth function of many numbers, each of which says a little."""

    name, title, id, label = "smooth", "Which side?", "id", "side"
    classes = ("no", "yes")
    columns = (
        Column(name="id", dtype="string"),
        *(Column(name=f"x{at}", dtype="float64") for at in range(INPUTS)),
        Column(name="side", dtype="string"),
    )


def smooth_frame(seed: int) -> Any:
    import pandas as pd

    rng = np.random.default_rng(seed)
    x = rng.normal(size=(ROWS, INPUTS))
    direction = rng.normal(size=INPUTS)
    logit = 1.5 * np.tanh(x @ direction / np.linalg.norm(direction)) + 0.6 * np.sin(x[:, :10]).sum(axis=1)
    side = rng.random(ROWS) < 1 / (1 + np.exp(-logit))
    frame = pd.DataFrame(x, columns=[f"x{at}" for at in range(INPUTS)])
    return frame.assign(id=[f"{seed}-{at}" for at in range(ROWS)], label=np.where(side, "yes", "no"))


@contextmanager
def known(task: Any, recipe: TaskConfig) -> Iterator[None]:
    """The task as any other task, in this process."""
    before = pipelines.tasks.get_task, pipelines.tasks.task_names
    task.recipes, task.default_recipe = {recipe.recipe: recipe}, recipe.recipe
    names = [*before[1](), task.name]
    pipelines.tasks.task_names = lambda: names
    module: Any = type(sys)(f"pipelines.tasks.{task.name}")
    module.TASK = task
    sys.modules[module.__name__] = module
    try:
        yield
    finally:
        pipelines.tasks.task_names = before[1]
        del sys.modules[module.__name__]


def built(folder: Path, parts: dict[str, Any]) -> Path:
    """A data set as the step build_dataset writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in parts.items():
        frame.assign(row_key=frame["id"]).reset_index(drop=True).to_parquet(folder / f"{name}.parquet", index=False)
    Seen.of(row_hashes([*parts["train"]["id"], *parts["valid"]["id"]])).write(folder)
    (folder / "dataset.json").write_text(json.dumps({"rows": {name: len(frame) for name, frame in parts.items()}}))
    return folder
