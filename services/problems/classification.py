"""Classification: counted by label; the score is observed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from contracts.metric_names import SCORE, SCORE_BUCKETS
from services.problems.base import Count, Distribution, Series, Serving

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from contracts.bundle import Golden
    from contracts.problems.classification import ClassificationOutput, Decision


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

    def watched(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The score and the label."""
        return {"answer": record.get("score"), "label": record.get("label")}

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


SERVING = ClassificationServing()
