"""A search and a plan, beside what they cost and what came true: ``make bench-search [ARGS="smooth storage plan"]``.

``adult`` needs FAIRLEAD_TEST_DATA with ``tabular/`` for Adult, ``storage`` mariadbd (as root). Splits are fixed;
the test rows are asked once for each search, after the choice.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from contracts.endpoints import Endpoints
from deploy.cli.training import plan as planning
from pipelines.evaluation.measures import auc
from pipelines.forecast import amount, learning_curve
from pipelines.recipes.tabular.base import TabularRecipe
from pipelines.run import Run
from pipelines.search import run_search
from pipelines.search.outcome import judged
from pipelines.task import GateConfig, TaskConfig, dump_config
from pipelines.tasks import get_task, recipe_config
from pipelines.training.boosting import LightGBMConfig
from pipelines.values import as_document
from tests.bench.report import FOLDER, Row, write
from tests.bench.search_parts import ROWS, Inline, Smooth, built, fitted, known, silent, smooth_frame, ten_sets
from tests.bench.search_storage import storage

SEEDS, TRIALS = (1, 2, 3), 30
SIX = (
    ("credit", "lightgbm", {}),
    ("credit", "scorecard", {}),
    ("credit", "logistic", {"simulator.applications": 30_000}),
    ("credit", "lightgbm", {"simulator.applications": 60_000, "model.leaves": 63}),
    ("news", "linear", {}),
    ("sentiment", "linear", {}),
)


def searched(task: Any, recipe: TaskConfig, dataset: Path, home: Path, **search: Any) -> dict[str, Any]:
    """The document of a search, with what the test rows say."""
    import pandas as pd

    from contracts.engines import load_engine
    from pipelines.evaluation import scoring

    config = replace(recipe, search=replace(recipe.search, **{"trials": TRIALS, "metrics": ("roc_auc",), **search}))
    out, checkpoints = home / "out", home / "checkpoints" / "one"
    (out / "model").mkdir(parents=True)
    checkpoints.mkdir(parents=True)
    run_search._Workers = Inline  # type: ignore[misc, assignment]
    trained = run_search.search_and_train(task, config, dataset, out, checkpoints, silent)
    frame = pd.read_parquet(dataset / "test.parquet").reset_index(drop=True)
    bundle = scoring.provisional(out, scoring.fields_of(task, config, trained))
    columns = scoring.columns_of(frame, bundle.document.signature.inputs)
    answers = scoring.predict(load_engine(bundle), columns, bundle.document)
    given = (frame, answers, bundle.document.signature.output, bundle.document.decision)
    FOLDER.mkdir(parents=True, exist_ok=True)
    return judged(trained["search"], task, config, out, frame, given, FOLDER)


def smooth(home: Path) -> Iterator[Row]:
    """What 30 trials bring on smooth data over LightGBM's own defaults, and over ours."""
    theirs = LightGBMConfig(
        learning_rate=0.1, leaves=31, min_leaf=20, feature_fraction=1.0, bagging_fraction=1.0, l2=0.001
    )
    for said, model in (("LightGBM's defaults", theirs), ("our recipe", LightGBMConfig())):
        recipe = TabularRecipe(recipe="trees", model=model, gate=GateConfig(primary="roc_auc"))
        yield from gains_over(said, recipe, home / said.partition(" ")[0])


def gains_over(said: str, recipe: TabularRecipe, home: Path) -> Iterator[Row]:
    """The gain of 30 trials over a recipe, mean of three seeds."""
    gains: list[dict[str, float]] = []
    task: Any = Smooth()
    with known(task, recipe):
        for seed in SEEDS:
            frame = smooth_frame(seed)
            cut = [int(ROWS * share) for share in (0.6, 0.8)]
            parts = {"train": frame[: cut[0]], "valid": frame[cut[0] : cut[1]], "test": frame[cut[1] :]}
            dataset = built(home / f"smooth-{seed}", parts)
            gains.append(searched(task, recipe, dataset, home / f"search-{seed}")["gain"])
    test, valid = (float(np.mean([one[part] for one in gains])) * 100 for part in ("test", "valid"))
    case, goal = f"smooth synthetic, {TRIALS} trials over {said}", ">= 1.5" if said.startswith("LightGBM") else ""
    yield Row(case=case, contestant="on test", value=test, unit="AUC points", goal=goal)
    yield Row(case=case, contestant="on validation", value=valid, unit="AUC points")


def adult(home: Path) -> Iterator[Row]:
    """What the search says of Adult."""
    import pandas as pd

    from tests.bench.trust import AdultData

    recipe = TabularRecipe(recipe="trees", gate=GateConfig(primary="roc_auc"))
    census = AdultData(home / "adult")
    parts = {name: pd.read_parquet(census.folder / f"{name}.parquet") for name in ("train", "valid", "test")}
    with known(census.task, recipe):
        found = searched(census.task, recipe, built(census.folder, parts), home / "search-adult")
    sys.stdout.write(f"Adult: {found['verdict']}\n")
    case = f"Adult, {TRIALS} trials"
    yield Row(case=case, contestant="gain on test", value=found["gain"]["test"] * 100, unit="AUC points")
    said = float(found["verdict"].startswith("there is little to gain"))
    yield Row(case=case, contestant="says that there is little to gain", value=said, unit="yes", goal=">= 1")


Shares = tuple[tuple[float, int], ...]


def plan(home: Path) -> Iterator[Row]:
    """Plans of six configurations beside the training on all rows, and whether the band held its quality."""
    off: dict[str, list[float]] = {"cpu_seconds": [], "memory_peak": []}
    held: list[bool] = []
    for at, (name, recipe, settings) in enumerate(SIX):
        config = recipe_config(get_task(name), recipe, settings)
        where = Endpoints(home=str(home / f"plan-{at}")).resolved()
        run = Run(run_id=f"{name}-{at}", task=name, recipe=recipe, config=as_document(config), endpoints=where)
        made = planning.made_plan(run, 120.0, silent)
        job = {"run": run.document(), "folder": str(home / f"whole-{at}"), "shares": [[1.0, 1]]}
        (home / "scratch").mkdir(exist_ok=True)
        data = planning.measured_apart("prepare", job, home / "scratch")
        real = planning.measured_apart(
            "fit",
            {
                "task": name,
                "config": dump_config(config.training_part()),
                "dataset": data["fits"][0]["dataset"],
                "folder": str(home / f"fit-{at}"),
                "metric": config.gate.primary,
            },
            home / "scratch",
        )
        rows = made["rows"]["train"]
        # What was trained is all training rows; the plan is for these and the validation rows.
        small = {**data, "rows": {**data["rows"], "valid": 0}}
        told = planning.forecast(small, made["fits"], config.gate.primary, True, made["corrected"])
        # Of the processor: what else runs on a shared machine is in the other seconds.
        cpu = amount([one["rows"] for one in made["fits"]], [one["cpu_seconds"] for one in made["fits"]], rows)
        told["train"]["cpu_seconds"] = cpu.as_dict()
        for key, values in off.items():
            values.append(100 * (told["train"][key]["likely"] / real[key] - 1))
        errors: dict[float, list[float]] = {}
        for fit in made["fits"]:
            errors.setdefault(round(fit["share"] * rows), []).append(1 - fit["value"])
        (band,) = learning_curve(errors, [rows])
        held.append(band.low <= 1 - real["value"] <= band.high)
        time_off, memory_off = (values[-1] for values in off.values())
        sys.stdout.write(
            f"{name} {recipe} {settings}: time {time_off:+.0f} %, memory {memory_off:+.0f} %, "
            f"{config.gate.primary} {real['value']:.4f} in {1 - band.high:.4f} to {1 - band.low:.4f}: {held[-1]}\n"
        )
    for key, said, most in (("cpu_seconds", "time", 30), ("memory_peak", "memory", 20)):
        worst = max(map(abs, off[key]))
        yield Row(case=f"plan of six, {said}", contestant="worst", value=worst, unit="%", goal=f"<= {most}")
        yield Row(case=f"plan of six, {said}", contestant="median", value=float(np.median(np.abs(off[key]))), unit="%")
    yield Row(case="quality in the 90 % band", contestant="of six", value=100 * float(np.mean(held)), unit="%")


def curves(_: Path) -> Iterator[Row]:
    """Of ten sets, twice, how many have their error of all rows in the band of three fits each of 5, 10 and 20 %, and
    in that of the fits of a plan.
    """
    for shares in (((0.05, 3), (0.1, 3), (0.2, 3)), planning.SHARES):
        for seed in (0, 1):
            held = [_in_band(*one, shares, seed) for one in ten_sets(seed)]
            case = (
                f"error of all rows in the 90 % band of {' '.join(f'{many} x {share:.0%}' for share, many in shares)}"
            )
            yield Row(case=case, contestant=f"ten sets, {seed}", value=float(sum(held)), unit="sets", goal=">= 9")


def _in_band(name: str, linear: bool, x: Any, y: Any, shares: Shares, seed: int) -> bool:
    order = np.random.default_rng(seed).permutation(len(y))
    train, valid = order[: int(0.7 * len(y))], order[int(0.7 * len(y)) :]
    errors: dict[float, list[float]] = {}
    for share, repeats in shares:
        rows = int(share * len(train))
        for repeat in range(repeats):
            part = train[np.random.default_rng(100 * seed + repeat).permutation(len(train))[:rows]]
            score = fitted(x[part], y[part], linear, repeat)(x[valid])
            errors.setdefault(float(rows), []).append(1 - auc(y[valid], score))
    truth = 1 - auc(y[valid], fitted(x[train], y[train], linear, 0)(x[valid]))
    (band,) = learning_curve(errors, [len(train)])
    held = band.low <= truth <= band.high
    sys.stdout.write(f"{name} {len(shares)} shares: {truth:.4f} in {band.low:.4f} to {band.high:.4f}: {held}\n")
    return held


def main() -> int:
    """Run the parts that are named, or all."""
    parts = {"smooth": smooth, "adult": adult, "storage": storage, "plan": plan, "curves": curves}
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="bench-search-") as name:
        for part in [one for one in sys.argv[1:] if one in parts] or [*parts]:
            home = Path(name) / part
            home.mkdir()
            rows += parts[part](home)
    return write("search", f"make bench-search {' '.join(sys.argv[1:])}".strip(), rows)


if __name__ == "__main__":
    sys.exit(main())
