"""Ranking: a list of items for each row, measured against what was taken later, and by what the lists do to people."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from contracts.problems.ranking import MEASURES, Ranked, listed
from pipelines.evaluation.base import Batch, Evaluation, Measure, MetricNames
from pipelines.evaluation.parts import spread_rows
from pipelines.formatting import number

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from contracts.bundle import Bundle, BundleDocument, Input
    from contracts.problems.ranking import RankingOutput
    from pipelines.evaluation.comparison import Pair

_RANKS, _ALL = ("ndcg", "recall", "hit_rate", "mrr"), ("coverage", "gini")
OF_ROWS = (*_RANKS, *MEASURES)


class Ranking(Evaluation):
    """Answers are `Ranked`; the column ``label`` has the items that were taken, separated by ``|``.

    The first k items of a list count, as many as a request gets that does not say.
    """

    problem = "ranking"
    usual = "ndcg"
    higher = frozenset({*_RANKS, "coverage", "novelty", "diversity", "tail"})
    titles: ClassVar = {
        "ndcg": "NDCG at k",
        "recall": "Recall at k",
        "hit_rate": "Lists with something that was taken",
        "mrr": "Reciprocal rank of the first that was taken",
        "coverage": "Share of the catalogue that is shown",
        "gini": "Gini index of exposure",
        "novelty": "Novelty, bits",
        "diversity": "Distance of two items of a list",
        "calibration": "Divergence from the own mix",
        "tail": "Share of the long tail",
    }
    plots = ("places", "exposure", "learning_curve")
    two_kinds = "different items"

    def metric_names(self, task: Any, config: Any) -> MetricNames:
        """All of them, of every task."""
        return MetricNames(whole=(*OF_ROWS, *_ALL))

    def measure_for(
        self,
        frame: pd.DataFrame,
        answers: Any,
        output: RankingOutput,
        decision: Any,
        only: Collection[str] | None = None,
    ) -> Measure:
        """Means over rows, and what all lists together have."""
        import numpy as np

        from pipelines.evaluation.list_measures import Exposure

        rows = _of_rows(frame, answers, output)
        defined = np.isfinite(rows)
        filled = np.where(defined, rows, 0.0)
        wanted = only is None or bool(set(_ALL) & set(only))
        exposure = Exposure([one.items[: output.k] for one in answers], output.catalogue) if wanted else None

        def measure(weight: Any = None) -> dict[str, float]:
            w = np.ones(len(rows)) if weight is None else np.asarray(weight)
            total = w @ defined
            means = np.where(total > 0, (w @ filled) / np.maximum(total, 1e-12), np.nan)
            return dict(zip(OF_ROWS, means.tolist(), strict=True)) | (exposure.measure(weight) if exposure else {})

        return measure

    def judged_otherwise(
        self, candidate: Bundle, champion: Bundle, dataset: Path
    ) -> tuple[tuple[str, Pair] | None, str]:
        """By lists that were shown, where one of both has a ranker."""
        from pipelines.evaluation.shown_lists import METRIC, judged_by_lists

        pair, said = judged_by_lists(candidate, champion, dataset)
        return None if pair is None else (METRIC, pair), said

    def interval_metrics(self, output: RankingOutput, primary: str) -> Collection[str]:
        """Those of rows: of drawn rows less of the catalogue is shown."""
        return {*OF_ROWS, primary}

    def associate(self, codes: NDArray[np.int64], label: NDArray[Any], fit: NDArray[np.bool_]) -> None:
        """An item is one of thousands, so no column is said to give it away."""

    def rows_text(self, result: Mapping[str, Any]) -> str:
        """How many items were taken."""
        return f"{number(result['taken']['mean'])} items taken by each"

    def draw(
        self, folder: Path, frame: pd.DataFrame, answers: Any, output: RankingOutput, decision: Any, result: Any
    ) -> None:
        """The share of lists that hold something that was taken, by their length; and how unevenly items are shown."""
        import numpy as np

        from pipelines.evaluation.list_measures import Exposure, ranks
        from pipelines.evaluation.plots import BLUE, GREY, figure

        lists, taken = [one.items[: output.k] for one in answers], _taken(frame)
        with figure(folder / "places.png", "How far down", "items of a list", "share of rows") as axes:
            sizes = sorted({1, 2, 3, 5, 10, 20, output.k} & set(range(1, output.k + 1)))
            means = np.array([np.nanmean(ranks(lists, taken, size), axis=0) for size in sizes])
            for name, at, colour in (("lists with a hit", 2, BLUE), ("recall", 1, GREY)):
                axes.plot(sizes, means[:, at], marker="o", color=colour, label=name)
            axes.set(ylim=(0, None))
            axes.legend(loc="best")
        shown = Exposure(lists, output.catalogue).shown()
        with figure(folder / "exposure.png", "Who is shown", "share of items", "share shown") as axes:
            share = np.arange(len(shown) + 1) / len(shown)
            axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, label="all alike")
            axes.plot(share, np.concatenate([[0], np.cumsum(shown)]) / max(shown.sum(), 1), color=BLUE, label="model")
            axes.legend(loc="best")

    def curves(self, frame: pd.DataFrame, answers: Any, output: RankingOutput, decision: Any) -> dict[str, Any]:
        """How many items were taken by each, and what speaks for the items of all lists."""
        taken = _taken(frame)
        reasons = Counter(why for one in answers for why in one.why[: output.k])
        total = max(1, sum(reasons.values()))
        return {
            "taken": {"mean": round(sum(map(len, taken)) / max(1, len(taken)), 2)},
            "why": {name: round(count / total, 4) for name, count in sorted(reasons.items())},
        }

    def golden_rows(self, output: RankingOutput, answers: Any, most: int) -> NDArray[np.int64]:
        """From the most usual list to the most novel one."""
        return spread_rows(self.watched(output, None, answers)["answer"], most)

    def baseline(self, output: RankingOutput, answers: Any) -> dict[str, Any]:
        """``scores``: deciles of the measures of lists."""
        from contracts.baseline import numbers

        found = self.watched(output, None, answers)
        names = {"novelty": "answer", **{name: name for name in MEASURES if name != "novelty"}}
        return {"scores": {name: numbers(found[key]) for name, key in names.items()}}

    def watched(self, output: RankingOutput, decision: Any, answers: Any) -> dict[str, NDArray[Any]]:
        """The measures of each list, its length, and the reason that most of its items have."""
        import numpy as np

        def of(name: str) -> NDArray[Any]:
            return np.array([one.measures.get(name, np.nan) for one in answers], dtype=np.float64)

        numbers = {name: of(name) for name in MEASURES if name != "novelty"}
        why = [Counter(one.why).most_common(1)[0][0] if one.why else "" for one in answers]
        lengths = np.array([len(one.items) for one in answers], dtype=np.float64)
        return {"answer": of("novelty"), **numbers, "listed": lengths, "why": np.array(why, dtype=object)}

    def described(self, inputs: Sequence[Input]) -> Sequence[Input]:
        """None: who asks, and for what, is another thing in every request, and no row of the test has it."""
        return ()

    def batch(self, output: RankingOutput, decision: Any) -> Batch:
        """The items and their scores as lists."""
        return _Batch()

    def batch_table(self, summary: Mapping[str, Any]) -> tuple[Sequence[str], Iterable[Sequence[str]]]:
        """How many lists there are, how long, and what they show."""
        return ("lists", "number"), [(name, number(value)) for name, value in summary["lists"].items()]

    def answers_text(self, document: BundleDocument) -> str:
        """How long lists are, and of what."""
        output: Any = document.signature.output
        return (
            f"Lists {output.k:,} of {output.catalogue:,} items where a request does not say, at most "
            f"{output.longest:,}; the bundle holds the histories of the people that it knows."
        )

    def save(self, file: Path, answers: Any) -> None:
        """As JSON, a list a line."""
        lines = [json.dumps(asdict(one), ensure_ascii=False) for one in answers]
        file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def read(self, file: Path) -> Any:
        """What `save` wrote."""
        import numpy as np

        lines = file.read_text(encoding="utf-8").split("\n")[:-1]
        found = np.empty(len(lines), dtype=object)
        for at, line in enumerate(lines):
            said = json.loads(line)
            found[at] = Ranked(
                **{name: tuple(said[name]) for name in ("items", "scores", "why", "propensity")},
                because=tuple(map(tuple, said["because"])),
                measures=said["measures"],
                group=said["group"],
            )
        return found


class _Batch(Batch):
    def __init__(self) -> None:
        self.columns = ["items", "scores"]
        self._rows = self._listed = self._empty = 0
        self._shown: set[str] = set()

    def add(self, answers: Any) -> list[Any]:
        import pyarrow as pa

        for one in answers:
            self._rows, self._listed = self._rows + 1, self._listed + len(one.items)
            self._empty += not one.items
            self._shown.update(one.items)
        items = pa.array([list(one.items) for one in answers], pa.list_(pa.string()))
        return [items, pa.array([list(one.scores) for one in answers], pa.list_(pa.float64()))]

    def document(self) -> dict[str, Any]:
        mean = round(self._listed / max(1, self._rows), 2)
        return {"lists": {"mean length": mean, "empty": self._empty, "different items": len(self._shown)}}


def _taken(frame: pd.DataFrame) -> list[list[str]]:
    return [listed(text) for text in frame["label"].tolist()]


def _of_rows(frame: pd.DataFrame, answers: Any, output: RankingOutput) -> NDArray[np.float64]:
    """What is measured of each row, in the order of `OF_ROWS`."""
    import numpy as np

    from pipelines.evaluation.list_measures import ranks

    found = ranks([one.items for one in answers], _taken(frame), output.k)
    rest = [[one.measures.get(name, np.nan) for name in MEASURES] for one in answers]
    return np.column_stack([found, np.array(rest, dtype=np.float64).reshape(len(answers), len(MEASURES))])


EVALUATION = Ranking()
