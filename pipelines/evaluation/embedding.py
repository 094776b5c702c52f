"""Embedding: a vector for each row, measured by whether rows of the same class are found by it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pipelines.evaluation.base import Batch, Measure, MetricNames
from pipelines.evaluation.parts import ClassLabels, spread_rows
from pipelines.formatting import number

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from contracts.bundle import BundleDocument
    from contracts.problems.embedding import EmbeddingOutput

METRICS = ("recall_at_1", "recall_at_10", "mrr")
_BLOCK = 512  # rows that are compared with all others at once


class Embedding(ClassLabels):
    """Answers are vectors, shape (rows, dimensions); rows of the same ``label`` mean the same."""

    problem = "embedding"
    explained_in = "cosine with itself"
    usual = "mrr"
    higher = frozenset(METRICS)
    titles: ClassVar = {
        "recall_at_1": "The nearest row is of the same class",
        "recall_at_10": "One of the ten nearest is of the same class",
        "mrr": "Mean reciprocal rank of the first of the same class",
    }
    plots = ("ranks", "learning_curve")
    two_kinds = "classes"

    def metric_names(self, task: Any, config: Any) -> MetricNames:
        """Measures of retrieval."""
        return MetricNames(whole=METRICS)

    def measure_for(
        self,
        frame: pd.DataFrame,
        answers: Any,
        output: EmbeddingOutput,
        decision: Any,
        only: Collection[str] | None = None,
    ) -> Measure:
        """Each row looks for the others; rows that are alone in their class do not count."""
        import numpy as np

        found = ranks(frame["label"].to_numpy(), answers)
        known = found > 0
        of_rows = np.column_stack([found == 1, found <= 10, 1 / np.maximum(found, 1)])[known].astype(np.float64)

        def measure(weight: Any = None) -> dict[str, float]:
            w = np.ones(len(of_rows)) if weight is None else weight[known]
            total = float(w.sum())
            values = np.einsum("i,ij->j", w, of_rows) / total if total > 0 else np.full(len(METRICS), np.nan)
            return dict(zip(METRICS, values.tolist(), strict=True))

        return measure

    def draw(
        self, folder: Path, frame: pd.DataFrame, answers: Any, output: EmbeddingOutput, decision: Any, result: Any
    ) -> None:
        """The share of rows that have found their class among so many."""
        import numpy as np

        from pipelines.evaluation.plots import BLUE, figure

        found = ranks(frame["label"].to_numpy(), answers)
        found = found[found > 0]
        with figure(folder / "ranks.png", "Rows of the same class", "nearest rows", "share that has one") as axes:
            steps = np.arange(1, 51)
            axes.step(steps, [(found <= step).mean() if len(found) else 0.0 for step in steps], color=BLUE)
            axes.set(xlim=(1, 50), ylim=(0, 1.02))

    def explained(
        self, output: EmbeddingOutput, decision: Any, answers: Any, like: Any, alone: bool
    ) -> NDArray[np.float64]:
        """The cosine with the vector of the row as it is."""
        from contracts.text_engine import cosines

        return cosines(answers, like)

    def golden_rows(self, output: EmbeddingOutput, answers: Any, most: int) -> NDArray[np.int64]:
        """Over the first dimension."""
        return spread_rows(answers[:, 0], most)

    def baseline(self, output: EmbeddingOutput, answers: Any) -> dict[str, Any]:
        """``scores``: deciles of the cosine with the mean vector, which falls when rows are foreign; ``center``."""
        import numpy as np

        from contracts.baseline import listed, numbers

        center = answers.mean(axis=0)
        size = np.linalg.norm(answers, axis=1) * np.linalg.norm(center)
        return {"scores": {"cosine": numbers(answers @ center / np.maximum(size, 1e-12))}, "center": listed(center)}

    def batch(self, output: EmbeddingOutput, decision: Any) -> Batch:
        """The vector as a list."""
        return _Batch(output)

    def batch_table(self, summary: Mapping[str, Any]) -> tuple[Sequence[str], Iterable[Sequence[str]]]:
        """How long the vectors are."""
        return ("embedding", "number"), [(name, number(value)) for name, value in summary["embedding"].items()]

    def answers_text(self, document: BundleDocument) -> str:
        """The dimensions."""
        output: Any = document.signature.output
        return f"Answers a vector of {output.dimensions} numbers{', of length one' if output.normalised else ''}."


class _Batch(Batch):
    def __init__(self, output: EmbeddingOutput) -> None:
        self.columns = ["embedding"]
        self._output = output

    def add(self, answers: Any) -> list[Any]:
        import pyarrow as pa

        return [pa.FixedSizeListArray.from_arrays(pa.array(answers.ravel()), self._output.dimensions)]

    def document(self) -> dict[str, Any]:
        return {"embedding": {"dimensions": self._output.dimensions}}


def ranks(label: NDArray[Any], vectors: NDArray[np.float64]) -> NDArray[np.int64]:
    """Of each row the place of the nearest other row of its class, by cosine; 0 where there is no other."""
    import numpy as np

    _, codes = np.unique(label.astype(str), return_inverse=True)
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    made = np.zeros(len(unit), dtype=np.int64)
    for start in range(0, len(unit), _BLOCK):
        near = unit[start : start + _BLOCK] @ unit.T
        rows = np.arange(len(near))
        near[rows, rows + start] = -np.inf
        same = codes[start : start + _BLOCK, None] == codes[None, :]
        same[rows, rows + start] = False
        best = np.where(same, near, -np.inf).max(axis=1)
        before = ((near > best[:, None]) & ~same).sum(axis=1)
        made[start : start + _BLOCK] = np.where(same.any(axis=1), before + 1, 0)
    return made


EVALUATION = Embedding()
