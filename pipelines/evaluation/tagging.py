"""Tagging: spans of texts. One counts as found when both borders and the type are right."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from contracts.problems.tagging import Labelled, labelled
from pipelines.evaluation.base import FEW, Batch, Evaluation, Measure, MetricNames
from pipelines.evaluation.parts import counts_text, spread_rows

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from contracts.bundle import BundleDocument
    from contracts.problems.tagging import TaggingOutput

OF_TYPES = ("recall", "precision", "f1", "leaked")
METRICS = (*OF_TYPES, "exact")
_PARTS = ("there", "said", "hit", "signs", "left")  # spans of each type, and characters; left: those in no span


class Tagging(Evaluation):
    """Answers are lists of `contracts.tagging.Tagged`; column ``label``: see `contracts.problems.tagging.labelled`."""

    problem = "tagging"
    usual = "f1"
    higher = frozenset({"f1", "precision", "recall", "exact"})
    titles: ClassVar = {
        "f1": "F1 of spans",
        "precision": "Precision of spans",
        "recall": "Recall of spans",
        "leaked": "Labelled characters that no span covers",
        "exact": "Rows with all spans right",
        "f1:{}": "F1 of {}",
        "precision:{}": "Precision of {}",
        "recall:{}": "Recall of {}",
        "leaked:{}": "Characters of {} that no span covers",
    }
    plots = ("class_f1", "learning_curve")
    two_kinds = "sets of spans"

    def metric_names(self, task: Any, config: Any) -> MetricNames:
        """One set, and the same of each type."""
        return MetricNames(whole=METRICS, each=OF_TYPES, classes=task.classes)

    def measure_for(
        self,
        frame: pd.DataFrame,
        answers: Any,
        output: TaggingOutput,
        decision: Any,
        only: Collection[str] | None = None,
    ) -> Measure:
        """Ratios of sums over rows."""
        import numpy as np

        truth = [labelled(value) for value in frame["label"]]
        types = sorted({*output.types, *(kind for spans in truth for _, _, kind in spans)})
        parts = counted(truth, [[tuple(one[:3]) for one in spans] for spans in answers], types)
        exact = np.array(
            [{*wanted} == {tuple(one[:3]) for one in spans} for wanted, spans in zip(truth, answers, strict=True)]
        )

        def measure(weight: Any = None) -> dict[str, float]:
            w = np.ones(len(exact)) if weight is None else np.asarray(weight)
            sums = np.tensordot(w, parts, axes=1)
            found = ratios(sums.sum(axis=0))
            found["exact"] = float(w @ exact / w.sum()) if w.sum() > 0 else float("nan")
            if len(types) <= FEW:
                for kind, one in zip(types, sums, strict=True):
                    found |= {f"{name}:{kind}": value for name, value in ratios(one).items()} if one[0] else {}
            return found

        return measure

    def interval_metrics(self, output: TaggingOutput, primary: str) -> Collection[str] | None:
        """All: they are ratios of sums."""
        return None

    def counts(self, label: pd.Series[Any]) -> dict[str, int]:
        """Spans of each type."""
        found = Counter(kind for value in label for _, _, kind in labelled(value))
        return {name: found[name] for name in sorted(found)}

    def rows_text(self, result: Mapping[str, Any]) -> str:
        """Spans of the first types."""
        return counts_text(result["labels"])

    def associate(self, codes: NDArray[np.int64], label: NDArray[Any], fit: NDArray[np.bool_]) -> None:
        """A list of spans is not ranked, so no column is said to give it away."""

    def draw(
        self, folder: Path, frame: pd.DataFrame, answers: Any, output: TaggingOutput, decision: Any, result: Any
    ) -> None:
        """F1 of each type."""
        from pipelines.evaluation import plots

        metrics = result["metrics"]
        if f1 := {name: metrics[f"f1:{name}"] for name in output.types if f"f1:{name}" in metrics}:
            plots.class_scores(folder / "class_f1.png", f1, result["intervals"])

    def golden_rows(self, output: TaggingOutput, answers: Any, most: int) -> NDArray[np.int64]:
        """From no span to the most."""
        import numpy as np

        return spread_rows(np.array([len(spans) for spans in answers]), most)

    def baseline(self, output: TaggingOutput, answers: Any) -> dict[str, Any]:
        """``scores``: deciles of the number of spans; ``labels``: shares of rows that have each type."""
        from contracts.baseline import numbers

        rows = max(1, len(answers))
        found = Counter(kind for spans in answers for kind in {one.kind for one in spans})
        labels = {kind: found[kind] / rows for kind in output.types}
        return {"scores": {"spans": numbers(self.watched(output, None, answers)["answer"])}, "labels": labels}

    def watched(self, output: TaggingOutput, decision: Any, answers: Any) -> dict[str, NDArray[Any]]:
        """How many spans a row has."""
        import numpy as np

        return {"answer": np.array([len(spans) for spans in answers], dtype=np.float64)}

    def explained(
        self, output: TaggingOutput, decision: Any, answers: Any, like: Any, alone: bool
    ) -> NDArray[np.float64]:
        """Log-odds of the surest span, as far as it is still there; of a row without one that of none."""
        import numpy as np

        from contracts.engine import odds_of
        from contracts.tagging import left_of, surest

        of = [surest(spans) for spans in like]
        return odds_of(np.array([left_of(one, found) if one else 0.0 for one, found in zip(of, answers, strict=True)]))

    def not_comparable(self, frame: pd.DataFrame, champion: TaggingOutput) -> str:
        """A type that it does not know."""
        foreign = sorted({kind for value in frame["label"] for _, _, kind in labelled(value)} - set(champion.types))
        return f"it does not know type {foreign[0]!r}" if foreign else ""

    def batch(self, output: TaggingOutput, decision: Any) -> Batch:
        """The spans as JSON."""
        return _Batch(output)

    def batch_table(self, summary: Mapping[str, Any]) -> tuple[Sequence[str], Iterable[Sequence[str]]]:
        """Spans of each type."""
        return ("type", "spans"), [(kind, f"{count:,}") for kind, count in summary["spans"].items()]

    def answers_text(self, document: BundleDocument) -> str:
        """The types."""
        output: Any = document.signature.output
        return f"Gives spans of a text with their type: {', '.join(output.types)}."

    def save(self, file: Path, answers: Any) -> None:
        """As JSON lines."""
        lines = [json.dumps([tuple(one) for one in spans]) for spans in answers]
        file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def read(self, file: Path) -> Any:
        """What `save` wrote."""
        import numpy as np

        from contracts.tagging import Tagged

        lines = file.read_text(encoding="utf-8").splitlines()
        found = np.empty(len(lines), dtype=object)
        found[:] = [[Tagged(*one) for one in json.loads(line)] for line in lines]
        return found


class _Batch(Batch):
    columns = ("spans",)

    def __init__(self, output: TaggingOutput) -> None:
        self._counts = dict.fromkeys(output.types, 0)

    def add(self, answers: Any) -> list[Any]:
        import pyarrow as pa

        for spans in answers:
            for one in spans:
                self._counts[one.kind] += 1
        return [pa.array([json.dumps([[one.start, one.end, one.kind] for one in spans]) for spans in answers])]

    def document(self) -> dict[str, Any]:
        return {"spans": dict(self._counts)}


def counted(truth: Sequence[Sequence[Labelled]], said: Sequence[Sequence[Any]], types: Sequence[str]) -> Any:
    """Spans and characters of each row and type, shape (rows, types, `_PARTS`)."""
    import numpy as np

    number = {kind: at for at, kind in enumerate(types)}
    found = np.zeros((len(truth), len(types), len(_PARTS)))
    for row, (wanted, given) in enumerate(zip(truth, said, strict=True)):
        for kind in (one[2] for one in given):
            found[row, number[kind], 1] += 1
        for one in wanted:
            start, end, kind = one
            covered = sum(max(0, min(end, other[1]) - max(start, other[0])) for other in given)
            found[row, number[kind]] += [1, 0, one in given, end - start, max(0, end - start - covered)]
    return found


def ratios(sums: Sequence[float]) -> dict[str, float]:
    """The metrics of `OF_TYPES`, of the sums of `counted`."""
    there, said, hit, signs, left = (float(value) for value in sums)

    def over(part: float, whole: float) -> float:
        return part / whole if whole > 0 else float("nan")

    return {
        "recall": over(hit, there),
        "precision": over(hit, said),
        "f1": over(2 * hit, there + said),
        "leaked": over(left, signs),
    }


EVALUATION = Tagging()
