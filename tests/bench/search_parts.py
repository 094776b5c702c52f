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


def ten_sets(seed: int) -> Iterator[tuple[str, bool, Any, Any]]:
    """Ten sets of two classes: a name, whether a linear model fits them well, numbers, and truth values.

    Ours, those that scikit-learn makes, and two that come with it, whose rows `seed` only shuffles.
    """
    from sklearn import datasets

    frame = smooth_frame(1 + seed)
    yield "smooth", True, frame.filter(like="x").to_numpy(), (frame["label"] == "yes").to_numpy()
    for at, (rows, said, apart, noise) in enumerate(
        ((12_000, 10, 0.8, 0.05), (8_000, 5, 1.2, 0.15), (20_000, 20, 0.5, 0.02))
    ):
        options = {"n_informative": said, "n_redundant": 3, "n_clusters_per_class": 4, "class_sep": apart}
        x, y = datasets.make_classification(rows, INPUTS, flip_y=noise, random_state=at + 10 * seed, **options)
        yield f"clusters {at}", False, x, y == 1
    x, y = datasets.make_hastie_10_2(12_000, random_state=seed)
    yield "hastie", False, x, y == 1
    x, y = datasets.make_moons(6_000, noise=0.35, random_state=seed)
    yield "moons", False, x, y == 1
    x, y = datasets.make_gaussian_quantiles(n_samples=10_000, n_features=8, n_classes=2, random_state=seed)
    yield "quantiles", False, x, y == 1
    x, y = datasets.make_friedman1(10_000, noise=4, random_state=seed)
    yield "friedman", False, x, y > np.median(y)
    x, y = datasets.load_digits(return_X_y=True)
    yield "digits", False, x, y >= 5
    x, y = datasets.load_breast_cancer(return_X_y=True)
    yield "cancer", True, x, y == 1


def fitted(x: Any, y: Any, linear: bool, seed: int) -> Any:
    """A function from rows to scores: logistic regression, or 100 trees of LightGBM."""
    if linear:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)).fit(x, y)
        return lambda rows: model.predict_proba(rows)[:, 1]
    import lightgbm

    leaf = min(20, max(2, len(y) // 20))
    options = {"objective": "binary", "verbosity": -1, "num_threads": 1, "seed": seed, "min_data_in_leaf": leaf}
    return lightgbm.train(options, lightgbm.Dataset(x, y), 100).predict


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
