"""Classification: one of two or more classes, where one of two may be the one that is looked for."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from contracts.errors import PlatformError
from pipelines.evaluation import out_of_distribution
from pipelines.evaluation.base import FEW, Batch, Measure, MetricNames
from pipelines.evaluation.parts import ClassLabels, histograms, spread_rows
from pipelines.formatting import number

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from contracts.bundle import BundleDocument
    from contracts.fairness import Outcome
    from contracts.problems.classification import ClassificationOutput, Decision

METRICS = (
    "average_precision", "roc_auc", "precision", "recall", "f1", "accuracy", "macro_f1", "cost", "brier", "log_loss",
    "ece",
)  # fmt: skip
OF_SCALE = ("quadratic_kappa", "rank_error")  # of classes that are ordered
LABEL = "label_predicted"


class Classification(ClassLabels):
    """Answers are probabilities, shape (rows, classes)."""

    problem = "classification"
    usual = "accuracy"
    higher = frozenset({
        "average_precision", "roc_auc", "accuracy", "macro_f1", "precision", "recall", "f1", "quadratic_kappa",
    })  # fmt: skip
    titles: ClassVar = {
        "average_precision": "Average precision",
        "roc_auc": "ROC AUC",
        "macro_f1": "Macro F1",
        "f1": "F1",
        "f1:{}": "F1 of {}",
        "ece": "Calibration error (ECE)",
        "log_loss": "Log loss",
        "brier": "Brier score",
        "cost": "Cost per row",
        "rank_error": "Mean distance on the scale",
        "ood_auroc": "ROC AUC of made images that show nothing known",
        "ood_auroc_other": "ROC AUC of the images of abstain.other",
        "false_refusals": "Test images of which it abstains",
        "accuracy_answered": "Accuracy where it does not abstain",
    }
    plots = ("precision_recall", "class_f1", "confusion_matrix", "calibration", "scores", "learning_curve")
    two_kinds = "classes"

    def higher_is_better(self, metric: str) -> bool:
        """See `Evaluation.higher_is_better`; some metrics are only of models that abstain."""
        return metric in out_of_distribution.HIGHER or super().higher_is_better(metric)

    def metric_names(self, task: Any, config: Any) -> MetricNames:
        """One set, whatever the number of classes, and two more for a scale."""
        from pipelines.task import is_scale

        scale = OF_SCALE if is_scale(task, config) else ()
        ood = out_of_distribution.METRICS if out_of_distribution.abstains(config) else ()
        return MetricNames(whole=(*METRICS, *scale, *ood), each=("f1",), classes=task.classes)

    def measure_for(
        self,
        frame: pd.DataFrame,
        answers: Any,
        output: ClassificationOutput,
        decision: Decision | None,
        only: Collection[str] | None = None,
    ) -> Measure:
        """See `pipelines.evaluation.class_measures.classification`."""
        from pipelines.evaluation.class_measures import Rule, classification, on_scale

        rule, positive = None, 1
        if decision and len(output.classes) == 2:
            rule = Rule(decision.threshold, decision.false_positive_cost, _miss_cost(frame, decision))
            positive = output.classes.index(decision.positive)
        label = positions(frame, output.classes)
        measure = classification(label, answers, output.classes, rule, positive, only)
        if not output.ordered:
            return measure
        scale = on_scale(label, chosen(answers, output, decision), len(output.classes))
        return lambda weight: {**measure(weight), **scale(weight)}

    def interval_metrics(self, output: ClassificationOutput, primary: str) -> Collection[str] | None:
        """In every round the order of every class: where they are many, only if the gate is to decide by it."""
        return None if len(output.classes) <= FEW else [primary]

    def draw(
        self,
        folder: Path,
        frame: pd.DataFrame,
        answers: Any,
        output: ClassificationOutput,
        decision: Decision | None,
        result: Mapping[str, Any],
    ) -> None:
        """Confusion matrix and calibration; of two classes the scores and the ROC curve, of more the F1 of each."""
        from pipelines.evaluation import plots

        classes, metrics = output.classes, result["metrics"]
        true, predicted = positions(frame, classes), chosen(answers, output, decision)
        counts = plots.confusion_counts(true, predicted, len(classes))
        if len(classes) != 2:
            plots.confusion(folder / "confusion_matrix.png", counts, classes)
            what = "share of right answers"
            plots.calibration(folder / "calibration.png", answers.max(axis=1), predicted == true, what, metrics["ece"])
            if f1 := {name: metrics[f"f1:{name}"] for name in classes if f"f1:{name}" in metrics}:
                plots.class_scores(folder / "class_f1.png", f1, result["intervals"])
            return
        at = classes.index(decision.positive) if decision else 1
        threshold = decision.threshold if decision else 0.5
        score, positive = answers[:, at], true == at
        average = metrics.get("average_precision", float("nan"))
        plots.precision_recall(folder / "precision_recall.png", positive, score, threshold, average)
        plots.calibration(folder / "calibration.png", score, positive, f"share of {classes[at]}", metrics["ece"])
        plots.confusion(folder / "confusion_matrix.png", counts, classes, f" at threshold {threshold:.3g}")
        plots.score_histogram(folder / "scores.png", score, positive, (classes[1 - at], classes[at]), threshold)

    def losses(self, frame: pd.DataFrame, answers: Any, output: ClassificationOutput) -> NDArray[np.float64]:
        """Cross entropy."""
        import numpy as np

        true = positions(frame, output.classes)
        found: NDArray[np.float64] = -np.log(np.clip(answers[np.arange(len(true)), true], 1e-12, 1.0))
        return found

    def curves(
        self, frame: pd.DataFrame, answers: Any, output: ClassificationOutput, decision: Decision | None
    ) -> dict[str, Any]:
        """See `pipelines.evaluation.curves`."""
        from pipelines.evaluation.curves import curves

        return curves(positions(frame, output.classes), answers, output.classes, decision)

    def golden_rows(self, output: ClassificationOutput, answers: Any, most: int) -> NDArray[np.int64]:
        """Over the scores of the last class."""
        return spread_rows(answers[:, -1], most)

    def baseline(self, output: ClassificationOutput, answers: Any) -> dict[str, Any]:
        """``scores``: histograms of each class's probability; ``labels``: shares of predicted classes."""
        import numpy as np

        from contracts.baseline import listed

        predicted = np.bincount(answers.argmax(axis=1), minlength=len(output.classes)) / max(len(answers), 1)
        labels = dict(zip(output.classes, listed(predicted), strict=True))
        return {"scores": histograms(output.classes, answers), "labels": labels}

    def watched(self, output: ClassificationOutput, decision: Decision | None, answers: Any) -> dict[str, NDArray[Any]]:
        """The score and the label, as a service decides."""
        import numpy as np

        at = _served(answers, output, decision)
        score = answers[:, output.classes.index(decision.positive)] if decision else answers.max(axis=1)
        return {"answer": score, "label": np.array(output.classes)[at]}

    def explained(
        self, output: ClassificationOutput, decision: Decision | None, answers: Any, like: Any, alone: bool
    ) -> NDArray[np.float64]:
        """Log-odds of the class that was answered; of two classes, unless `alone`, of the positive one."""
        import numpy as np

        positive = output.classes.index(decision.positive) if decision else len(output.classes) - 1
        of = positive if len(output.classes) == 2 and not alone else like.argmax(axis=1)
        chance = np.clip(answers[np.arange(len(answers)), of], 1e-6, 1 - 1e-6)
        found: NDArray[np.float64] = np.log(chance) - np.log1p(-chance)
        return found

    def outcome(
        self,
        frame: pd.DataFrame,
        answers: Any,
        output: ClassificationOutput,
        decision: Decision | None,
        favourable: str,
    ) -> Outcome | None:
        """Of the favourable class; where none is said, of the one of two that is looked for."""
        from contracts.fairness import Outcome

        name = favourable or (decision.positive if decision else "")
        if name not in output.classes:
            return None
        at = output.classes.index(name)
        return Outcome(
            good=output.classes[at],
            selected=_served(answers, output, decision) == at,
            deserved=positions(frame, output.classes) == at,
            chance=answers[:, at],
        )

    def not_comparable(self, frame: pd.DataFrame, champion: ClassificationOutput) -> str:
        """A class that it does not know."""
        foreign = sorted(set(frame["label"]) - set(champion.classes))
        return f"it does not know class {foreign[0]!r}" if foreign else ""

    def batch(self, output: ClassificationOutput, decision: Decision | None) -> Batch:
        """The class, the probability of each, and whether a person is to decide, of models that refer."""
        return _Batch(output, decision)

    def batch_table(self, summary: Mapping[str, Any]) -> tuple[Sequence[str], Iterable[Sequence[str]]]:
        """Rows of each class."""
        rows = max(summary["rows"], 1)
        found = [(label, f"{count:,}", f"{count / rows:.2%}") for label, count in summary["labels"].items()]
        return ("label", "rows", "share"), found

    def decision_text(self, document: BundleDocument) -> Any:
        """The threshold, and what errors cost."""
        import markupsafe

        decision = document.decision
        if decision is None:
            return ""
        cost = decision.false_negative_cost
        miss = markupsafe.Markup("the row's <code>{}</code>").format(cost) if isinstance(cost, str) else number(cost)
        said = markupsafe.Markup(
            "Answer <code>{}</code> from a probability of {} on. A false alarm costs {}, a miss {}."
        ).format(decision.positive, number(decision.threshold), number(decision.false_positive_cost), miss)
        if (by := decision.by_group) is not None:
            own = ", ".join(f"{name} {number(at)}" for name, at in by.thresholds.items())
            said += markupsafe.Markup(" Batches that say {} take thresholds by group: {}. Reason: {}.").format(
                by.column, own, by.reason
            )
        if decision.refer is None:
            return said
        low, high = map(number, decision.refer)
        return said + markupsafe.Markup(" From {} to below {} a person is to decide.").format(low, high)

    def answers_text(self, document: BundleDocument) -> str:
        """The classes."""
        output: Any = document.signature.output
        return f"Answers a probability for each of: {', '.join(output.classes)}."


class _Batch(Batch):
    def __init__(self, output: ClassificationOutput, decision: Decision | None) -> None:
        self.output, self.decision = output, decision
        refers = ["refer"] if decision is not None and decision.refer is not None else []
        self.columns = [LABEL, *(f"probability_{name}" for name in output.classes), *refers]
        self._counts = dict.fromkeys(output.classes, 0)

    def add(self, answers: Any) -> list[Any]:
        import numpy as np
        import pyarrow as pa

        at = _served(answers, self.output, self.decision)
        for name, count in zip(self.output.classes, np.bincount(at, minlength=len(self._counts)), strict=True):
            self._counts[name] += int(count)
        labels = pa.array(np.array(self.output.classes)[at])
        found = [labels, *(pa.array(answers[:, each]) for each in range(answers.shape[1]))]
        if self.decision is not None and self.decision.refer is not None:
            low, high = self.decision.refer
            score = answers[:, self.output.classes.index(self.decision.positive)]
            found.append(pa.array((score >= low) & (score < high)))
        return found

    def document(self) -> dict[str, Any]:
        return {"labels": dict(self._counts)}


def positions(frame: pd.DataFrame, classes: Sequence[str]) -> NDArray[np.int64]:
    """Each row's label as its position in `classes`; -1 for a class that is not there."""
    import numpy as np

    index = {name: at for at, name in enumerate(classes)}
    return np.array([index.get(label, -1) for label in frame["label"]], dtype=np.int64)


def chosen(answers: Any, output: ClassificationOutput, decision: Decision | None) -> NDArray[np.int64]:
    """The position of each row's class: of two the one that the decision says, else the most probable."""
    import numpy as np

    if len(output.classes) != 2:
        return np.asarray(answers.argmax(axis=1) if len(answers) else np.zeros(0), dtype=np.int64)
    at = output.classes.index(decision.positive) if decision else 1
    return np.where(answers[:, at] >= (decision.threshold if decision else 0.5), at, 1 - at)


def _served(answers: Any, output: ClassificationOutput, decision: Decision | None) -> NDArray[np.int64]:
    """The position of each row's class as a service decides, see `contracts.problems.classification`."""
    import numpy as np

    if decision is None:
        return np.asarray(answers.argmax(axis=1), dtype=np.int64)
    at = output.classes.index(decision.positive)
    rest = np.array(answers)
    rest[:, at] = -1.0
    return np.where(answers[:, at] >= decision.threshold, at, rest.argmax(axis=1))


def _miss_cost(frame: pd.DataFrame, decision: Decision) -> Any:
    import numpy as np

    cost = decision.false_negative_cost
    if not isinstance(cost, str):
        return float(cost)
    if cost not in frame.columns:
        raise PlatformError(
            f"the cost of a miss is column {cost!r}, which the data set does not have",
            detail=f"columns: {', '.join(map(str, frame.columns))}",
            fix="give a number instead, or keep the column in Task.split",
            code="bad_task",
        )
    return frame[cost].to_numpy(dtype=np.float64)


EVALUATION = Classification()
