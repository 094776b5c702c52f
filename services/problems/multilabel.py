"""Multilabel classification: counted once for each label given; the highest probability is observed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from contracts.metric_names import SCORE, SCORE_BUCKETS
from contracts.problems.multilabel import SEPARATOR
from services.problems.base import Count, Distribution, Series, Serving

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from contracts.bundle import Golden
    from contracts.problems.multilabel import MultilabelOutput
    from services.problems.measures import Measure

NONE = "(none)"  # counts the rows that got no label


class MultilabelServing(Serving):
    """See `services.problems.base.Serving`; a decision is the list of the labels given."""

    def labels(self, output: MultilabelOutput) -> Sequence[str]:
        """The labels, and that of rows without one."""
        return [*output.labels, NONE]

    def distribution(self, output: MultilabelOutput, golden: Sequence[Golden]) -> Distribution:
        """Of the highest probability of a row."""
        return Distribution(name=SCORE, text="Highest probability of a label.", edges=SCORE_BUCKETS)

    def count(
        self,
        answers: NDArray[np.float64],
        decided: Sequence[Sequence[str]],
        labels: Mapping[str, Count],
        observed: Series,
    ) -> None:
        """Each label of each row, and each row's highest probability."""
        for given, highest in zip(decided, answers.max(axis=1).tolist(), strict=True):
            for label in given or (NONE,):
                labels[label].inc()
            observed.observe(highest)

    def record(self, answers: NDArray[np.float64], decided: Sequence[Sequence[str]], row: int) -> dict[str, Any]:
        """The labels, and all probabilities in the order of the output's labels."""
        return {"labels": decided[row], "probabilities": answers[row]}

    def label_schema(self, output: MultilabelOutput) -> dict[str, Any]:
        """A list of labels, empty for a row that has none."""
        return {"type": "array", "items": {"type": "string", "enum": list(output.labels)}}

    def label(self, output: MultilabelOutput, value: Any) -> list[str]:
        """Some of the labels, in the order of the output's."""
        if type(value) is not list or any(type(one) is not str or one not in output.labels for one in value):
            raise ValueError(f"expected a list of these labels: {', '.join(output.labels[:20])}")
        return [one for one in output.labels if one in value]

    def label_of_text(self, output: MultilabelOutput, text: str) -> list[str]:
        """Labels separated as in a task's files; an empty text is none."""
        return self.label(output, [part.strip() for part in text.split(SEPARATOR) if part.strip()])

    def is_right(self, recorded: Mapping[str, Any], label: Any, metrics: Mapping[str, float]) -> bool:
        """Whether all labels are the same."""
        return set(recorded["labels"]) == set(label)

    def truths(self, output: MultilabelOutput) -> Sequence[str]:
        """The labels; what is given too often is in `is_right`."""
        return output.labels

    def misses(self, recorded: Mapping[str, Any], label: Any) -> Mapping[str, bool]:
        """Each label that the row has."""
        return {one: one not in recorded["labels"] for one in label}

    def parameters(self, output: MultilabelOutput) -> dict[str, Any]:
        """The labels and their thresholds."""
        return {"problem": output.problem, "labels": output.labels, "thresholds": output.limits()}

    def summary(self, output: MultilabelOutput) -> str:
        """The labels."""
        return f"any of the labels: {', '.join(output.labels)}"

    def answers(self, output: MultilabelOutput, documents: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
        """The probabilities."""
        import numpy as np

        return np.array([[one["probabilities"][name] for name in output.labels] for one in documents])

    def measure(
        self, output: MultilabelOutput, decision: Any, answers: Sequence[Mapping[str, Any]], labels: Sequence[list[str]]
    ) -> Measure:
        """Of all decisions alike."""
        import numpy as np

        from services.problems import measures

        def given(rows: Sequence[Sequence[str]]) -> NDArray[np.bool_]:
            return np.array([[name in row for name in output.labels] for row in rows], dtype=bool)

        return measures.labels(given(labels), given([one["labels"] for one in answers]))

    def expected(
        self, output: MultilabelOutput, decision: Any, record: Mapping[str, Any], baseline: Mapping[str, Any]
    ) -> dict[str, float]:
        """Of each label how probable it is that it was given, or left out, rightly."""
        given, chances = set(record["labels"]), record["probabilities"]
        said = [name in given for name in output.labels]
        right = [chance if one else 1 - chance for one, chance in zip(said, chances, strict=True)]
        return {
            "rows": 1.0,
            "said": float(sum(said)),
            "there": sum(chances),
            "hit": sum(chance for one, chance in zip(said, chances, strict=True) if one),
            "wrong": 1 - sum(right) / len(right),
            "exact": math.prod(right),  # as if labels were independent, given the inputs
        }

    def estimate(self, sums: Mapping[str, float]) -> dict[str, float]:
        """F1 over all labels, exact rows and wrong decisions."""
        found = {"subset_accuracy": sums["exact"] / sums["rows"], "hamming_loss": sums["wrong"] / sums["rows"]}
        both = sums["said"] + sums["there"]
        return {"micro_f1": 2 * sums["hit"] / both, **found} if both > 0 else found

    def watched(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The highest probability, and how many labels were given."""
        return {"answer": max(record.get("probabilities") or (None,)), "labels": len(record.get("labels") or ())}


SERVING = MultilabelServing()
