"""Classification: counted by label; the score is observed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from contracts.metric_names import SCORE, SCORE_BUCKETS
from contracts.out_of_distribution import OOD
from services.problems.base import Count, Distribution, Series, Serving

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from contracts.bundle import Golden
    from contracts.problems.classification import ClassificationOutput, Decision
    from services.problems.measures import Measure


class ClassificationServing(Serving):
    """See `services.problems.base.Serving`; a decision is (label, score)."""

    def labels(self, output: ClassificationOutput) -> Sequence[str]:
        """The classes."""
        return output.classes

    def distribution(self, output: ClassificationOutput, golden: Sequence[Golden]) -> Distribution:
        """Of the score."""
        return Distribution(
            name=SCORE, text="Probability of the positive, else of the predicted class.", edges=SCORE_BUCKETS
        )

    def count(
        self, answers: Any, decided: Sequence[tuple[str, float]], labels: Mapping[str, Count], observed: Series
    ) -> None:
        """Each row's label and score."""
        for label, score in decided:
            labels[label].inc()
            observed.observe(score)

    def record(self, answers: NDArray[np.float64], decided: Sequence[tuple[str, float]], row: int) -> dict[str, Any]:
        """Label, score, and the probabilities in the order of the classes."""
        label, score = decided[row]
        return {"label": label, "score": score, "probabilities": answers[row]}

    def label_schema(self, output: ClassificationOutput) -> dict[str, Any]:
        """One of the classes."""
        return {"type": "string", "enum": list(output.classes)}

    def label(self, output: ClassificationOutput, value: Any) -> str:
        """One of the classes."""
        if type(value) is not str or value not in output.classes:
            raise ValueError(f"expected one of the classes: {', '.join(output.classes[:20])}")
        return value

    def is_right(self, recorded: Mapping[str, Any], label: Any, metrics: Mapping[str, float]) -> bool:
        """Whether it is the same."""
        return bool(recorded["label"] == label)

    def against(self, decision: Decision | None, decided: tuple[str, float], favourable: str) -> int:
        """Of two classes; contributions are towards the one that is looked for."""
        if decision is None or decided[0] == favourable:
            return 0
        return -1 if decision.positive == favourable else 1

    def chance(self, output: ClassificationOutput, answers: NDArray[np.float64], favourable: str) -> Any:
        """Its probability."""
        return answers[:, output.classes.index(favourable)] if favourable in output.classes else None

    def truths(self, output: ClassificationOutput) -> Sequence[str]:
        """The classes: a rare one that is missed is not outweighed by the common one."""
        return output.classes

    def misses(self, recorded: Mapping[str, Any], label: Any) -> Mapping[str, bool]:
        """The true class."""
        return {label: recorded["label"] != label}

    def parameters(self, output: ClassificationOutput) -> dict[str, Any]:
        """The classes."""
        return {"classes": output.classes}

    def summary(self, output: ClassificationOutput) -> str:
        """The classes."""
        return f"classes: {', '.join(output.classes)}"

    def answers(self, output: ClassificationOutput, documents: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
        """The probabilities."""
        import numpy as np

        return np.array([[one["probabilities"][name] for name in output.classes] for one in documents])

    def measure(
        self,
        output: ClassificationOutput,
        decision: Decision | None,
        answers: Sequence[Mapping[str, Any]],
        labels: Sequence[str],
    ) -> Measure:
        """Of two classes of the one that is looked for, of more over all of them."""
        import numpy as np

        from services.problems import measures

        true = measures.positions(output.classes, labels)
        said = measures.positions(output.classes, [one["label"] for one in answers])
        if len(output.classes) != 2:
            return measures.classes(true, said, len(output.classes))
        at = _positive(output, decision)
        return measures.binary(true == at, said == at, np.array([one["probabilities"][at] for one in answers]))

    def expected(
        self,
        output: ClassificationOutput,
        decision: Decision | None,
        record: Mapping[str, Any],
        baseline: Mapping[str, Any],
    ) -> dict[str, float]:
        """How probable it is that the label is right; of two classes what it adds to hits and misses."""
        chances, label = record["probabilities"], output.classes.index(record["label"])
        found = {"rows": 1.0, "right": chances[label]}
        if len(output.classes) == 2:
            at = _positive(output, decision)
            found |= {"said": float(label == at), "there": chances[at], "hit": chances[at] * (label == at)}
        return found

    def estimate(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Accuracy; of two classes precision, recall and F1 of the one that is looked for."""
        found = {"accuracy": sums["right"] / sums["rows"]}
        if "said" in sums:
            ratios = {
                "precision": (sums["hit"], sums["said"]),
                "recall": (sums["hit"], sums["there"]),
                "f1": (2 * sums["hit"], sums["said"] + sums["there"]),
            }
            found |= {name: part / whole for name, (part, whole) in ratios.items() if whole > 0}
        return found

    def watched(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The score, the label, and how far the row is from what was learned, where the model tells."""
        told = {OOD: record[OOD]} if OOD in record else {}
        return {"answer": record.get("score"), "label": record.get("label"), **told}

    def normal(
        self, output: ClassificationOutput, decision: Decision | None, baseline: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The same; of bundles that lack it the histogram of the positive class, or the shares of the labels."""
        if found := super().normal(output, decision, baseline):
            return found
        if decision is None:
            return {"label": {"kind": "category", "shares": baseline["labels"]}} if "labels" in baseline else {}
        histogram = baseline.get("scores", {}).get(decision.positive)
        return {"answer": {"kind": "number", "missing": 0.0, **histogram}} if histogram else {}


def _positive(output: ClassificationOutput, decision: Decision | None) -> int:
    """The position of the class of two that is looked for."""
    return output.classes.index(decision.positive) if decision else 1


SERVING = ClassificationServing()
