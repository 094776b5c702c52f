"""Multilabel classification: any number of labels for a row, each with a probability of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from contracts.problems.multilabel import SEPARATOR
from pipelines.evaluation.base import FEW, Batch, Evaluation, Measure, MetricNames
from pipelines.evaluation.parts import class_shares, counts_text, histograms, spread_rows

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from contracts.bundle import BundleDocument
    from contracts.fairness import Outcome
    from contracts.problems.multilabel import MultilabelOutput

METRICS = (
    "micro_f1", "macro_f1", "precision", "recall", "average_precision", "subset_accuracy", "hamming_loss", "log_loss",
)  # fmt: skip
LABELS = "labels_predicted"


class Multilabel(Evaluation):
    """Answers are probabilities, shape (rows, labels); the column ``label`` has the labels of a row, separated by |."""

    problem = "multilabel"
    usual = "micro_f1"
    higher = frozenset({
        "micro_f1", "macro_f1", "precision", "recall", "average_precision", "subset_accuracy", "f1",
    })  # fmt: skip
    titles: ClassVar = {
        "micro_f1": "Micro F1",
        "macro_f1": "Macro F1",
        "f1:{}": "F1 of {}",
        "average_precision": "Average precision, mean over labels",
        "subset_accuracy": "All labels right",
        "hamming_loss": "Share of wrong label decisions",
        "log_loss": "Log loss",
    }
    plots = ("class_f1", "calibration", "learning_curve")
    two_kinds = "sets of labels"

    def metric_names(self, task: Any, config: Any) -> MetricNames:
        """One set, and the F1 of each label."""
        return MetricNames(whole=METRICS, each=("f1",), classes=task.classes)

    def measure_for(
        self,
        frame: pd.DataFrame,
        answers: Any,
        output: MultilabelOutput,
        decision: Any,
        only: Collection[str] | None = None,
    ) -> Measure:
        """See `pipelines.evaluation.label_measures.multilabel`."""
        import numpy as np

        from pipelines.evaluation.label_measures import multilabel

        given = answers >= np.array(output.limits())
        return multilabel(label_matrix(frame["label"], output.labels), answers, given, output.labels, only)

    def interval_metrics(self, output: MultilabelOutput, primary: str) -> Collection[str] | None:
        """In every round the order of every label: where they are many, only if the gate is to decide by it."""
        return None if len(output.labels) <= FEW else [primary]

    def counts(self, label: pd.Series[Any]) -> dict[str, int]:
        """Rows that have each label."""
        found = Counter(name for text in label for name in set(labels_of(text)))
        return {name: found[name] for name in sorted(found)}

    def rows_text(self, result: Mapping[str, Any]) -> str:
        """Rows of the first labels."""
        return counts_text(result["labels"])

    def associate(self, codes: NDArray[np.int64], label: NDArray[Any], fit: NDArray[np.bool_]) -> float | None:
        """Area under the ROC curve, the mean over the labels that are neither rare nor everywhere."""
        from pipelines.evaluation.measures import auc

        found = []
        for name in sorted({name for text in label for name in labels_of(text)}):
            y = label_matrix(label, [name])[:, 0]
            if min(y[fit].sum(), (~y[fit]).sum(), y[~fit].sum(), (~y[~fit]).sum()) >= 10:
                scores = class_shares(codes, y.astype("int64"), fit, 2)[codes[~fit], 1]
                found.append(auc(y[~fit], scores))
        return sum(found) / len(found) if found else None

    def draw(
        self, folder: Path, frame: pd.DataFrame, answers: Any, output: MultilabelOutput, decision: Any, result: Any
    ) -> None:
        """F1 of each label, and the calibration of all probabilities together."""
        from pipelines.evaluation import plots
        from pipelines.evaluation.measures import bins_of, ece

        metrics = result["metrics"]
        if f1 := {name: metrics[f"f1:{name}"] for name in output.labels if f"f1:{name}" in metrics}:
            plots.class_scores(folder / "class_f1.png", f1, result["intervals"])
        true, said = label_matrix(frame["label"], output.labels).ravel(), answers.ravel()
        gap = ece(bins_of(said), said, true.astype(float), 1.0 + 0.0 * said)
        plots.calibration(folder / "calibration.png", said, true, "share of rows with a label", gap)

    def outcome(
        self, frame: pd.DataFrame, answers: Any, output: MultilabelOutput, decision: Any, favourable: str
    ) -> Outcome | None:
        """Of the favourable label."""
        from contracts.fairness import Outcome

        if favourable not in output.labels:
            return None
        at = output.labels.index(favourable)
        deserved = label_matrix(frame["label"], [favourable])[:, 0]
        given = answers[:, at] >= output.limits()[at]
        return Outcome(good=favourable, selected=given, deserved=deserved.astype(bool), chance=answers[:, at])

    def golden_rows(self, output: MultilabelOutput, answers: Any, most: int) -> NDArray[np.int64]:
        """Over the expected number of labels."""
        return spread_rows(answers.sum(axis=1), most)

    def baseline(self, output: MultilabelOutput, answers: Any) -> dict[str, Any]:
        """``scores``: histograms of each label's probability; ``labels``: shares of rows that get each."""
        import numpy as np

        from contracts.baseline import listed

        given = (answers >= np.array(output.limits())).mean(axis=0)
        labels = dict(zip(output.labels, listed(given), strict=True))
        return {"scores": histograms(output.labels, answers), "labels": labels}

    def watched(self, output: MultilabelOutput, decision: Any, answers: Any) -> dict[str, NDArray[Any]]:
        """The highest probability of a row, and how many labels it gets."""
        import numpy as np

        given = (answers >= np.array(output.limits())).sum(axis=1)
        return {"answer": answers.max(axis=1), "labels": given.astype(np.float64)}

    def explained(
        self, output: MultilabelOutput, decision: Any, answers: Any, like: Any, alone: bool
    ) -> NDArray[np.float64]:
        """Log-odds of the likeliest label."""
        import numpy as np

        chance = np.clip(answers[np.arange(len(answers)), like.argmax(axis=1)], 1e-6, 1 - 1e-6)
        found: NDArray[np.float64] = np.log(chance) - np.log1p(-chance)
        return found

    def not_comparable(self, frame: pd.DataFrame, champion: MultilabelOutput) -> str:
        """A label that it does not know."""
        foreign = sorted({name for text in frame["label"] for name in labels_of(text)} - set(champion.labels))
        return f"it does not know label {foreign[0]!r}" if foreign else ""

    def batch(self, output: MultilabelOutput, decision: Any) -> Batch:
        """The labels as a list, and the probability of each."""
        return _Batch(output)

    def batch_table(self, summary: Mapping[str, Any]) -> tuple[Sequence[str], Iterable[Sequence[str]]]:
        """Rows that have each label."""
        rows = max(summary["rows"], 1)
        found = [(label, f"{count:,}", f"{count / rows:.2%}") for label, count in summary["labels"].items()]
        return ("label", "rows", "share"), found

    def answers_text(self, document: BundleDocument) -> str:
        """The labels with their thresholds."""
        output: Any = document.signature.output
        limits = zip(output.labels, output.limits(), strict=True)
        return (
            f"Gives each label from its probability on: {', '.join(f'{name} {limit:.3g}' for name, limit in limits)}."
        )


class _Batch(Batch):
    def __init__(self, output: MultilabelOutput) -> None:
        self.output = output
        self.columns = [LABELS, *(f"probability_{name}" for name in output.labels)]
        self._counts = dict.fromkeys(output.labels, 0)

    def add(self, answers: Any) -> list[Any]:
        import numpy as np
        import pyarrow as pa

        given = answers >= np.array(self.output.limits())
        for name, count in zip(self.output.labels, given.sum(axis=0), strict=True):
            self._counts[name] += int(count)
        names = np.array(self.output.labels, dtype=object)
        labels = pa.array([list(names[row]) for row in given], pa.list_(pa.string()))
        return [labels, *(pa.array(answers[:, each]) for each in range(answers.shape[1]))]

    def document(self) -> dict[str, Any]:
        return {"labels": dict(self._counts)}


def labels_of(text: Any) -> list[str]:
    """The labels that a value of the data names; none of a missing one."""
    return [name.strip() for name in text.split(SEPARATOR) if name.strip()] if isinstance(text, str) else []


def label_matrix(values: Iterable[Any], labels: Sequence[str]) -> NDArray[np.bool_]:
    """Whether each row has each label, shape (rows, labels)."""
    import numpy as np

    index = {name: at for at, name in enumerate(labels)}
    rows = [[index[name] for name in labels_of(value) if name in index] for value in values]
    made = np.zeros((len(rows), len(labels)), dtype=bool)
    for at, row in enumerate(rows):
        made[at, row] = True
    return made


EVALUATION = Multilabel()
