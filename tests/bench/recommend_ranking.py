"""Rankers and off-policy evaluation in the built-in world, whose true preferences and looks are known.

Rankers: `graph_filter` alone and followed by each ranker, trained as a run trains them; what is measured is NDCG of the
test part, what people truly think of the lists, and what they would click. Off-policy: lists of the retriever are left
to chance and clicked many times over; the estimates of the ranker's lists are held against the truth.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any

import numpy as np

from tests.bench.report import Row

KINDS = ("none", "lambdarank", "dlrm")
SEEDS = (7, 8, 9)
LISTED, CANDIDATES = 10, 500
NEAR = 20  # candidates that a ranker puts in another order
TIMES, VISITS, SHARES = 40, 10, (0.3, 0.5)
DRAWN_TIMES = 4  # of Thompson sampling, each list of which is computed


def config(kind: str, seed: int) -> Any:
    """The recipe with the settings that the default's validation takes, or with a ranker behind it."""
    from pipelines.tasks import get_task, recipe_config

    found: Any = recipe_config(get_task("recommend"), "lambdarank")
    one_region = replace(found.simulator, local=0.0)
    return replace(found, seed=seed, simulator=one_region, ranker=replace(found.ranker, kind=kind))


class Built:
    """A run's model of one world, and the world's truth."""

    def __init__(self, kind: str, seed: int, folder: Path) -> None:
        import pandas as pd

        from contracts.engines.recommend import read_model
        from pipelines.tasks import get_task
        from pipelines.tasks.recommend.simulator import World, simulate

        settings, task = config(kind, seed), get_task("recommend")
        self.world = World(settings.simulator, seed)
        frame = next(simulate(settings.simulator, seed, self.world)).to_pandas()
        folder.mkdir(parents=True)
        self.folder = folder
        for name, part in task.split(frame, settings).items():
            part.to_parquet(folder / f"{name}.parquet")
        start = perf_counter()
        self.out = settings.train(task, folder, folder / "model", folder, lambda *a, **k: None)
        self.seconds = perf_counter() - start
        self.model = read_model(folder / "model")[0]
        self.test = pd.read_parquet(folder / "test.parquet")
        shown = pd.read_parquet(folder / "impressions.parquet")
        self.shown = shown[shown["part"] == "test"]
        self.diversity = settings.list.diversity

    def lists(self, k: int) -> list[Any]:
        """Those of the people of the test, by their history before it."""
        from contracts.problems.ranking import listed

        place = {item: at for at, item in enumerate(self.model.items)}
        found = []
        for row in self.test.itertuples():
            history, blocked = self.model.history([place[item] for item in listed(str(row.items)) if item in place])
            found.append(self.model.ranked(history, blocked, k, self.diversity))
        return found

    def truth(self, lists: Any) -> tuple[float, float]:
        """How much people really like what they are given, and how much of a list they would click."""
        likings, clicks = [], []
        for who, one in zip(self.test["who"], lists, strict=True):
            liking = self.world.liking[int(who[1:]), [int(item[1:]) for item in one.items]]
            likings.append(liking.mean())
            clicks.append(click_chance(liking).sum())
        return float(np.mean(likings)), float(np.mean(clicks))


def click_chance(liking: Any) -> Any:
    """Of the items of a list, of who is not bored."""
    from contracts.ranker import logistic
    from pipelines.tasks.recommend.simulator import looks

    return looks(len(liking)) * logistic(liking - 3.0)


def rankers(home: Path) -> Iterator[Row]:
    """Each ranker in each world."""
    from pipelines.evaluation.list_measures import ranks
    from pipelines.tasks.recommend.simulator import looks

    for kind in KINDS:
        found: dict[str, list[float]] = {}
        for seed in SEEDS:
            one = Built(kind, seed, home / f"{kind}-{seed}")
            lists = one.lists(20)
            taken = [str(text).split("|") for text in one.test["label"]]
            liking, clicks = one.truth(one.lists(LISTED))
            measured = {
                "NDCG@20 of the test": float(np.nanmean(ranks([each.items for each in lists], taken, 20), axis=0)[0]),
                "true liking of 10": liking,
                "clicks of a list of 10": clicks,
                "training, s": one.seconds,
            }
            if one.model.ranker is not None:
                look = np.array(one.model.ranker.spec.looked)
                measured["looks, mean error"] = float(np.abs(look / look[0] - looks(len(look))).mean())
                measured |= {**calibration(one), **speed(one.model)}
            served = one.out["parameters"].get("ranker", "none")
            sys.stdout.write(f"{kind}, seed {seed}, served {served}: {measured} {one.out.get('choices')}\n")
            sys.stdout.flush()
            for name, value in measured.items():
                found.setdefault(name, []).append(value)
        for name, values in found.items():
            goal = "<= 4" if name.startswith("500") else ""
            yield Row(case=name, contestant=kind, value=float(np.mean(values)), unit="mean of worlds", goal=goal)


def calibration(one: Built) -> dict[str, float]:
    """Clicks that are said of the impressions of the test, over those that came, and how far tenths of them are off."""
    import pandas as pd

    from contracts.ranker import logistic
    from pipelines.training.ranking import of_lists
    from pipelines.training.recommend import read_log
    from pipelines.training.shown import shown

    log = read_log([pd.read_parquet(one.folder / f"{name}.parquet") for name in ("train", "valid")])
    rows, ranker = shown(log, one.model, one.shown, 10_000), one.model.ranker
    assert ranker is not None
    look = np.array(ranker.spec.looked)[rows.places]
    said = look * logistic(ranker.spec.slope * of_lists(ranker.raw, rows) + ranker.spec.intercept)
    tenths = np.array_split(np.argsort(said, kind="stable"), 10)
    apart = [abs(float(said[part].mean() - rows.clicked[part].mean())) for part in tenths]
    return {"clicks said over clicks": float(said.sum() / rows.clicked.sum()), "ECE": float(np.mean(apart))}


def speed(model: Any) -> dict[str, float]:
    """Features and chances of 500 candidates."""
    rng, times = np.random.default_rng(1), []
    history = rng.permutation(len(model.items))[:50]
    for _ in range(200):
        pool = rng.integers(0, len(model.items), CANDIDATES)
        scores = np.sort(rng.random(CANDIDATES))[::-1]
        start = thread_time()
        model.ranker.chances(model.features(history, pool, scores), pool, history)
        times.append((thread_time() - start) * 1e3)
    return {
        f"500 candidates, {name}, cpu ms": float(np.percentile(times, part))
        for name, part in (("p50", 50), ("p99", 99))
    }


def off_policies(home: Path) -> Iterator[Row]:
    """Estimates of the lists of a ranker from lists of the retriever, over and over.

    The ranker orders the same `NEAR` candidates that places which are left to chance get; one that lists what was never
    shown cannot be judged by any log, which `effective` says: of 500 candidates it is about one list of 1,464.
    """
    logged, other = Built("none", SEEDS[0], home / "logged"), Built("lambdarank", SEEDS[0], home / "other")
    assert other.model.ranker is not None, "the ranker was not served"
    near = other.model.ranker.spec.model_copy(update={"candidates": NEAR})
    ranker = replace(other.model.ranker, spec=near)
    other.model = replace(other.model, ranker=ranker, spec=other.model.spec.model_copy(update={"pool": NEAR}))
    base, target = logged.lists(LISTED), other.lists(LISTED)
    truth = other.truth(target)[1]
    sys.stdout.write(f"truth: logged {logged.truth(base)[1]:.4f}, other {truth:.4f}\n")
    for share in SHARES:
        yield from judged(f"epsilon {share:g}", truth, target, logged, TIMES, epsilon_log(base, logged, share))
    yield from judged("thompson and epsilon 0.3", truth, target, logged, DRAWN_TIMES, thompson_log(other))


def epsilon_log(base: Any, logged: Built, share: float) -> Any:
    """A function of a person's row and a source of chance: what is shown, and the propensities."""
    from contracts.exploration import explored

    place = {item: at for at, item in enumerate(logged.model.items)}
    codes = [[place[item] for item in one.items] for one in base]
    pools = [[place[item] for item in one.items] for one in logged.lists(NEAR)]

    def show(row: int, rng: Any) -> tuple[list[str], list[float]]:
        items, chance = explored([codes[row]], 0, pools[row], share, rng)
        return [logged.model.items[at] for at in items], chance

    return show


def thompson_log(other: Built) -> Any:
    """As `epsilon_log`, of a model whose lists are drawn by its last layer."""
    from contracts.problems.ranking import listed

    spec = other.model.spec.model_copy(update={"explore": "thompson", "epsilon": 0.3, "among": NEAR})
    model = replace(other.model, spec=spec)
    place = {item: at for at, item in enumerate(model.items)}
    histories = [[place[item] for item in listed(str(text)) if item in place] for text in other.test["items"]]

    def show(row: int, rng: Any) -> tuple[list[str], list[float]]:
        history, blocked = model.history(histories[row])
        one = model.ranked(history, blocked, LISTED, other.diversity, rng=rng)
        return list(one.items), list(one.propensity)

    return show


def judged(name: str, truth: float, target: Any, logged: Built, times: int, show: Any) -> Iterator[Row]:
    """How far the estimates are from the truth, and how many intervals hold it."""
    import pandas as pd

    from pipelines.evaluation.off_policy import off_policy

    people, lists = logged.test["who"].tolist(), [one.items for one in target]
    found = []
    for number in range(times):
        rng, rows = np.random.default_rng(number), []
        for row in np.repeat(np.arange(len(people)), VISITS).tolist():
            items, chance = show(row, rng)
            liking = logged.world.liking[int(people[row][1:]), [int(item[1:]) for item in items]]
            clicked = rng.random(len(items)) < click_chance(liking)
            identifier = f"{len(rows)}"
            for place, (item, click, one) in enumerate(zip(items, clicked, chance, strict=True), start=1):
                rows.append((identifier, people[row], item, place, bool(click), one))
        frame = pd.DataFrame(rows, columns=["list", "user", "item", "place", "clicked", "propensity"])
        found.append(off_policy(frame, [lists[row] for row in np.repeat(np.arange(len(people)), VISITS)]))
    case, of_list = f"off-policy, {name}", "clicks of a list"
    for method in ("ips", "snips", "dr"):
        each = [getattr(one, method) for one in found]
        values = np.array([one.value for one in each])
        covered = float(np.mean([one.low <= truth <= one.high for one in each]))
        width = float(np.mean([one.high - one.low for one in each]))
        error = float(np.sqrt(((values - truth) ** 2).mean()))
        yield Row(case=f"{case}, bias", contestant=method, value=float(values.mean() - truth), unit=of_list)
        yield Row(case=f"{case}, error", contestant=method, value=error, unit="rms")
        goal = ">= 0.9" if times == TIMES else ""
        yield Row(case=f"{case}, truth in interval", contestant=method, value=covered, unit="share", goal=goal)
        yield Row(case=f"{case}, width of interval", contestant=method, value=width, unit=of_list)
    worth = float(np.mean([one.effective for one in found]))
    yield Row(case=f"{case}, lists that tell as much", contestant="all", value=worth, unit=f"of {found[0].lists}")
