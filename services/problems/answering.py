"""Answering: questions are counted by whether something was found, and observed by how sure the answer is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from contracts.metric_names import SCORE, SCORE_BUCKETS
from contracts.problems.answering import Answered, answered_of
from services.problems.base import Count, Distribution, Series, Serving

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from contracts.bundle import Golden
    from contracts.problems.answering import AnsweringOutput

_ANSWER, NOT_FOUND = "answer", "(not found)"
_PLACES = 6
_RIGHT, _WRONG = ("true", "yes", "1"), ("false", "no", "0")


class AnsweringServing(Serving):
    """See `services.problems.base.Serving`; a label says whether an answer, or that there is none, was right."""

    def labels(self, output: AnsweringOutput) -> Sequence[str]:
        """An answer, or that nothing was found."""
        return (_ANSWER, NOT_FOUND)

    def distribution(self, output: AnsweringOutput, golden: Sequence[Golden]) -> Distribution:
        """Of the confidence."""
        return Distribution(name=SCORE, text="How sure an answer is.", edges=SCORE_BUCKETS)

    def count(self, answers: Any, decided: Sequence[str], labels: Mapping[str, Count], observed: Series) -> None:
        """Each question, and how sure its answer is."""
        for one in answers:
            labels[_ANSWER if one.found else NOT_FOUND].inc()
            observed.observe(one.confidence)

    def record(self, answers: Any, decided: Sequence[str], row: int) -> dict[str, Any]:
        """Which passages were shown and cited, by their names: texts of documents are not kept."""
        one: Answered = answers[row]
        return {
            "found": "yes" if one.found else "no",
            "confidence": round(one.confidence, _PLACES),
            "citations": len(one.citations),
            "cited": [one.passages[each.passage].id for each in one.citations],
            "passages": [each.id for each in one.passages],
        }

    def label_schema(self, output: AnsweringOutput) -> dict[str, Any]:
        """Whether it was right."""
        return {"type": "boolean", "description": "whether the answer, or that nothing was found, was right"}

    def label(self, output: AnsweringOutput, value: Any) -> bool:
        """True or false."""
        if type(value) is not bool:
            raise ValueError("expected true or false")
        return value

    def label_of_text(self, output: AnsweringOutput, text: str) -> bool:
        """As people write it."""
        word = text.strip().casefold()
        if word not in (*_RIGHT, *_WRONG):
            raise ValueError(f"expected one of {', '.join((*_RIGHT, *_WRONG))}")
        return word in _RIGHT

    def is_right(self, recorded: Mapping[str, Any], label: Any, metrics: Mapping[str, float]) -> bool:
        """What the label says."""
        return bool(label)

    def parameters(self, output: AnsweringOutput) -> dict[str, Any]:
        """How many passages there are, and from which confidence on there is an answer."""
        return output.model_dump()

    def summary(self, output: AnsweringOutput) -> str:
        """What is searched."""
        return f"an answer with citations from {output.passages} passages of {output.documents} documents"

    def answers(self, output: AnsweringOutput, documents: Sequence[Mapping[str, Any]]) -> NDArray[np.object_]:
        """The answers."""
        import numpy as np

        found = np.empty(len(documents), dtype=object)
        for row, one in enumerate(documents):
            found[row] = answered_of(one)
        return found

    def measure(
        self, output: AnsweringOutput, decision: Any, answers: Sequence[Mapping[str, Any]], labels: Sequence[Any]
    ) -> Callable[[Any], dict[str, float]]:
        """The share of questions that people say were answered rightly, or rightly not."""
        import numpy as np

        right = np.array([bool(one) for one in labels], dtype=np.float64)

        def measure(weight: Any) -> dict[str, float]:
            w = np.ones(len(right)) if weight is None else np.asarray(weight)
            return {"said_right": float(w @ right) / max(float(w.sum()), 1e-12)}

        return measure

    def watched(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """How sure an answer is, whether something was found, and how many citations it has.

        Documents that became old show here: more and more questions find nothing.
        """
        if "found" not in record:
            return {}
        return {"answer": record.get("confidence"), "found": record["found"], "citations": record.get("citations")}


SERVING = AnsweringServing()
