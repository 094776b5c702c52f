"""Recommendation on real data, and the bubble test; the data of FAIRLEAD_TEST_DATA are in its folder recsys/.

ml-latest-small: items of three people or more, the newest 20 % of each person are the test. Gowalla: LightGCN's split
(X. He et al., 2020), all 29,858 people, all items ranked. All settings, the penalty of popularity among them, are
chosen by NDCG@20 on a validation part of what is not test; the test part is measured once. Plots: the trade-off of
relevance and diversity, and the rounds of the bubble test.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

from tests.bench import recommend_exploring, recommend_ranking
from tests.bench.recommend_groups import groups
from tests.bench.recommend_large import fits
from tests.bench.recommend_serving import serving
from tests.bench.report import FOLDER, Row, write

LEVELS = (0.0, 0.2, 0.4, 0.5, 0.6, 0.65, 0.7, 0.8, 0.9)
PENALTIES = (0.0, 0.1, 0.2, 0.3)
RECIPES = ("popular", "item_knn", "graph_filter", "als", "ease", "two_tower")
WORLDS, WORSE = (7, 8), 0.02  # seeds of the bubble test; what lists by relevance alone must lose more
FREE = 0.97  # of the best NDCG, at which diversity is read
GOALS = {
    ("movielens", "ndcg"): ">= 0.150",
    ("movielens", "recall"): ">= 0.140",
    ("gowalla", "ndcg"): ">= 0.158",
    ("gowalla", "recall"): ">= 0.188",
}


def data() -> Path:
    """The folder of real data."""
    folder = Path(os.environ.get("FAIRLEAD_TEST_DATA", "")) / "recsys"
    if not os.environ.get("FAIRLEAD_TEST_DATA") or not folder.is_dir():
        sys.exit("bench-recommend needs real data: set FAIRLEAD_TEST_DATA to the folder that holds recsys/")
    return folder


def recipe(name: str) -> Any:
    """A recipe whose lists are by relevance alone."""
    from pipelines.recipes.recommend.settings import ListConfig
    from pipelines.tasks import get_task, recipe_config

    config: Any = recipe_config(get_task("recommend"), name)
    return replace(config, list=ListConfig(diversity=0.0))


def movielens(home: Path) -> Path:
    """The data set of ratings.csv, as the recipe `movielens` splits it."""
    import pandas as pd

    from pipelines.recipes.recommend.split import split_interactions

    ratings = pd.read_csv(data() / "ml-latest-small" / "ratings.csv", dtype=str)
    frame = ratings.rename(columns={"userId": "user", "movieId": "item"})
    frame["time"] = pd.to_datetime(frame.pop("timestamp").astype(int), unit="s", utc=True)
    frame = frame.assign(id=frame.index.astype(str), rating=frame["rating"].astype(float), part=None)
    config = recipe("movielens")
    items = replace(config.items, source=str(data() / "ml-latest-small" / "movies.csv"))
    return written(split_interactions(frame, replace(config, items=items)), home / "movielens")


def gowalla(home: Path) -> Path:
    """The data set of lines ``user item item ...``."""
    import pandas as pd

    from pipelines.data.adjacency import NAMES, read_adjacency
    from pipelines.data.chunks import TextFormat
    from pipelines.recipes.recommend.split import split_interactions

    paths = [data() / "gowalla" / f"{part}.txt" for part in ("train", "test")]
    rows = [row for path in paths for _, row in read_adjacency(path, TextFormat(adjacency=True))]
    frame = pd.DataFrame(rows, columns=NAMES)
    frame = frame.assign(time=pd.Series(pd.NaT, index=frame.index), rating=np.nan, attributes=None)
    return written(split_interactions(frame, recipe("gowalla")), home / "gowalla")


def written(parts: dict[str, Any], folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, frame in parts.items():
        frame.to_parquet(folder / f"{name}.parquet", index=False)
    return folder


class Trained:
    """A model of a data set: the settings that are best by validation, then the best of several penalties by it."""

    def __init__(self, dataset: Path, config: Any, penalties: Sequence[float]) -> None:
        start, cpu = perf_counter(), process_time()
        self.score, model = -1.0, config.model
        for penalty in penalties:
            found, out = trained(dataset, model, replace(config.list, penalty=penalty))
            score = max(one["ndcg"] for one in out["history"])
            if score > self.score:
                self.score, self.model, self.chosen = score, found, {**out["parameters"], "penalty": penalty}
            several = [name for name, value in vars(model).items() if isinstance(value, tuple)]
            model = replace(model, **{name: (out["parameters"][name],) for name in several})
        self.seconds, self.cpu = perf_counter() - start, process_time() - cpu

    def answers(self, frame: Any, diversity: float, rerank: str = "dpp") -> Any:
        """The lists of 20 for the people of a test."""
        from contracts.problems.ranking import listed
        from contracts.recommender import Recommender

        spec = self.model.spec.model_copy(update={"rerank": rerank})
        model = Recommender(spec, self.model.items, self.model.attributes, self.model.arrays)
        place = {item: at for at, item in enumerate(model.items)}
        found = np.empty(len(frame), dtype=object)
        for at, text in enumerate(frame["items"]):
            history, blocked = model.history([place[item] for item in listed(text)])
            found[at] = model.ranked(history, blocked, 20, diversity)
        return found


def trained(dataset: Path, model: Any, lists: Any) -> tuple[Any, dict[str, Any]]:
    """The model in memory, for its folder goes, and what its training says."""
    from contracts.engines.recommend import read_model
    from contracts.recommender import Recommender
    from pipelines.training.recommend import train_recommender

    with tempfile.TemporaryDirectory() as folder:
        out = train_recommender(dataset, model, lists, 7, Path(folder), lambda *a, **k: None)
        found = read_model(Path(folder))[0]
        arrays = {name: np.array(array) for name, array in found.arrays.items()}
    return Recommender(found.spec, found.items, found.attributes, arrays), out


def measured(frame: Any, answers: Any, catalogue: int) -> dict[str, float]:
    from contracts.problems import read_output
    from pipelines.evaluation import get_evaluation

    output: Any = read_output({"problem": "ranking", "k": 20, "longest": 100, "catalogue": catalogue})
    found: dict[str, float] = get_evaluation("ranking").measure_for(frame, answers, output, None)(None)
    return found


def rows_of(case: str, name: str, one: Trained, found: dict[str, float], goals: bool) -> Iterator[Row]:
    shown = {"ndcg": "NDCG@20", "recall": "recall@20", "coverage": "coverage", "gini": "Gini", "novelty": "bits"}
    for metric, unit in shown.items():
        goal = GOALS.get((case, metric), "") if goals else ""
        yield Row(case=f"{case}, {unit}", contestant=name, value=found[metric], unit=unit, goal=goal)
    yield Row(case=f"{case}, settings and fit", contestant=name, value=one.cpu, unit="cpu s")


def small(home: Path) -> Iterator[Row]:
    """All recipes, and the trade-off of the one that is best by validation."""
    import pandas as pd

    dataset = movielens(home)
    test = pd.read_parquet(dataset / "test.parquet")
    every = {name: Trained(dataset, recipe(name), (0.0,)) for name in RECIPES}
    best = max(every, key=lambda name: every[name].score)
    every |= {f"{best}, popularity held against": Trained(dataset, recipe(best), PENALTIES)}
    best = max(every, key=lambda name: every[name].score)
    for name, one in every.items():
        found = measured(test, one.answers(test, 0.0), len(one.model.items))
        yield from rows_of("movielens", f"fairlead {name}", one, found, goals=name == best)
        sys.stdout.write(f"{name}: {one.chosen} valid {one.score:.4f} test {found}\n")
        sys.stdout.flush()
    yield from trade_off(every[best], test)
    yield from speed(every[best], test)


def trade_off(best: Trained, test: Any) -> Iterator[Row]:
    """NDCG against diversity, and the most diversity that is had for three hundredths of NDCG."""
    curves: dict[str, list[dict[str, float]]] = {}
    for rerank in ("spread", "dpp", "mmr"):
        found = [measured(test, best.answers(test, at, rerank), len(best.model.items)) for at in LEVELS]
        curves[rerank] = found
        top = max(one["ndcg"] for every in curves.values() for one in every)
        points = [one for one in found if one["ndcg"] >= FREE * top]
        most = max(one["diversity"] for one in points)
        goal = ">= 0.77" if rerank == "spread" else ""
        yield Row(
            case=f"movielens, intra-list distance at {FREE:.0%} of the best NDCG",
            contestant=f"fairlead {rerank}",
            value=most,
            unit="1 - cosine",
            goal=goal,
        )
        for level, one in zip(LEVELS, found, strict=True):
            sys.stdout.write(f"{rerank} {level}: {one}\n")
    yield Row(
        case=f"movielens, intra-list distance at {FREE:.0%} of the best NDCG",
        contestant="no re-ranking",
        value=curves["dpp"][0]["diversity"],
        unit="1 - cosine",
    )
    from pipelines.evaluation.plots import BLUE, GREY, ORANGE, figure

    with figure(FOLDER / "recommend-trade-off.png", "Relevance and diversity", "distance in a list", "NDCG@20") as axes:
        for name, colour in (("spread", BLUE), ("dpp", ORANGE), ("mmr", GREY)):
            line = [(one["diversity"], one["ndcg"]) for one in curves[name]]
            axes.plot(*zip(*line, strict=True), marker="o", color=colour, label=name)
        axes.legend(loc="best")


def speed(best: Trained, test: Any) -> Iterator[Row]:
    """One list of 20, history to answer, re-ranked."""
    from contracts.problems.ranking import listed

    model, times = best.model, []
    place = {item: at for at, item in enumerate(model.items)}
    histories = [[place[item] for item in listed(text)] for text in test["items"]]
    for at in range(300):
        start = perf_counter()
        history, blocked = model.history(histories[at % len(histories)])
        model.ranked(history, blocked, 20, 0.3)
        times.append((perf_counter() - start) * 1e3)
    for name, part in (("p50", 50), ("p99", 99)):
        yield Row(
            case=f"movielens, one list, {name}", contestant="fairlead", value=np.percentile(times, part), unit="ms"
        )


def large(home: Path) -> Iterator[Row]:
    """The graph filter on Gowalla: with the degrees of its paper and smoothing by validation, and all by validation."""
    import pandas as pd

    from pipelines.training.recommenders import GraphModel

    dataset = gowalla(home)
    test = pd.read_parquet(dataset / "test.parquet")
    cases = {
        "fairlead recipe gowalla, degrees as published, smooth": recipe("gowalla").model,
        "fairlead graph_filter, degrees by validation": GraphModel(recency=(0.0,)),
    }
    for name, model in cases.items():
        one = Trained(dataset, replace(recipe("graph_filter"), model=model), (0.0,))
        found = measured(test, one.answers(test, 0.0), len(one.model.items))
        sys.stdout.write(f"gowalla, {name}: {one.chosen} valid {one.score:.4f} {one.seconds:.0f} s test {found}\n")
        sys.stdout.flush()
        yield from rows_of("gowalla", name, one, found, goals="published" in name)
    for name, recall, ndcg in (("LightGCN, published", 0.1824, 0.1547), ("one hop, degrees alone", 0.1862, 0.1563)):
        yield Row(case="gowalla, recall@20", contestant=name, value=recall, unit="recall@20")
        yield Row(case="gowalla, NDCG@20", contestant=name, value=ndcg, unit="NDCG@20")


def bubbles(home: Path) -> Iterator[Row]:
    """Twenty rounds of two built-in worlds, as the recipe ships and without re-ranking; means of both."""
    from pipelines.evaluation.plots import BLUE, GREY, figure
    from pipelines.tasks import get_task, recipe_config
    from pipelines.tasks.recommend.bubble import bubble, without_reranking

    config: Any = recipe_config(get_task("recommend"))
    config = replace(config, simulator=replace(config.simulator, local=0.0))
    worlds = [replace(config, seed=seed) for seed in WORLDS]
    shipped, plain = [bubble(each) for each in worlds], [bubble(without_reranking(each)) for each in worlds]

    def mean(runs: Any, metric: str) -> list[float]:
        return [float(np.mean([run[at][metric] for run in runs])) for at in range(len(runs[0]))]

    units = {"entropy": "bits", "tail": "share", "coverage": "share", "liked": "true liking", "drift": "share"}
    first, kept = mean(shipped, "entropy")[0], mean(shipped, "entropy")[-1] / mean(shipped, "entropy")[0]
    for name, runs, goal in (
        ("fairlead, as shipped", shipped, ">= 0.9"),
        ("without re-ranking", plain, f"<= {kept - WORSE:.3f}"),
    ):
        bits = mean(runs, "entropy")
        sys.stdout.write(f"{name}: bits {[[round(one['entropy'], 2) for one in run] for run in runs]}\n")
        case = "bubble, entropy after 20 rounds, of the first as shipped"
        yield Row(case=case, contestant=name, value=bits[-1] / first, unit="share", goal=goal)
        case = "bubble, entropy after 20 rounds, of its own first"
        yield Row(case=case, contestant=name, value=bits[-1] / bits[0], unit="share")
        for metric, unit in units.items():
            value = mean(runs, metric)[-1]
            yield Row(case=f"bubble, {metric}, round 20", contestant=name, value=value, unit=unit)
    for metric, title in (("entropy", "What a person sees, bits"), ("tail", "Share of the long tail")):
        with figure(FOLDER / f"recommend-bubble-{metric}.png", title, "round", metric) as axes:
            for name, runs, colour in (("as shipped", shipped, BLUE), ("without re-ranking", plain, GREY)):
                line = mean(runs, metric)
                axes.plot(range(1, len(line) + 1), line, color=colour, label=name)
            axes.legend(loc="best")


def ratings(home: Path) -> Iterator[Row]:
    """How far off ratings are predicted."""
    from tests.bench.recommend_ratings import rating_rows

    yield from rating_rows(data() / "ml-latest-small", sys.stdout.write)


def adapters(home: Path) -> Iterator[Row]:
    """Personal parts: whether they help, and what 10,000 of them cost."""
    from tests.bench.recommend_adapters import cost_rows, help_rows

    yield from help_rows(sys.stdout.write)
    yield from cost_rows(home, sys.stdout.write)


PARTS = {
    "movielens": small,
    "gowalla": large,
    "bubble": bubbles,
    "ratings": ratings,
    "adapters": adapters,
    "rankers": recommend_ranking.rankers,
    "off-policy": recommend_ranking.off_policies,
    "exploring": recommend_exploring.exploring,
    "groups": groups,
    "serving": serving,
    "large": fits,
}


def main() -> int:
    """All parts, or those that are named: python -m tests.bench.recommend bubble."""
    wanted = sys.argv[1:] or list(PARTS)
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home:
        rows = [row for name in wanted for row in PARTS[name](Path(home))]
    return write("recommend", " ".join(["python -m tests.bench.recommend", *sys.argv[1:]]), rows)


if __name__ == "__main__":
    sys.exit(main())
