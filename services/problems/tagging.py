"""Tagging: counted once for each type that a row has; the least sure span of a row is observed. No text is logged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from contracts.metric_names import SCORE, SCORE_BUCKETS
from contracts.problems.tagging import Labelled, labelled
from services.problems.base import Count, Distribution, Series, Serving

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from contracts.bundle import Golden
    from contracts.problems.tagging import TaggingOutput
    from contracts.tagging import Tagged

NONE = "(none)"  # counts the rows that have no span


class TaggingServing(Serving):
    """See `services.problems.base.Serving`; a decision is the list of the spans."""

    def labels(self, output: TaggingOutput) -> Sequence[str]:
        """The types, and that of rows without a span."""
        return [*output.types, NONE]

    def distribution(self, output: TaggingOutput, golden: Sequence[Golden]) -> Distribution:
        """Of the lowest score of a row."""
        return Distribution(name=SCORE, text="Lowest score of a span.", edges=SCORE_BUCKETS)

    def count(
        self, answers: Any, decided: Sequence[Sequence[Tagged]], labels: Mapping[str, Count], observed: Series
    ) -> None:
        """Each type of each row, and each row's lowest score; nothing is observed of one without spans."""
        for spans in decided:
            for kind in {one.kind for one in spans} or {NONE}:
                labels[kind].inc()
            if spans:
                observed.observe(min(one.score for one in spans))

    def record(self, answers: Any, decided: Sequence[Sequence[Tagged]], row: int) -> dict[str, Any]:
        """Places and types, without what stands there."""
        return {"spans": [[one.start, one.end, one.kind, round(float(one.score), 6)] for one in decided[row]]}

    def label_schema(self, output: TaggingOutput) -> dict[str, Any]:
        """A list of start, end and type."""
        return {"type": "array", "items": {"type": "array", "minItems": 3, "maxItems": 3}}

    def label(self, output: TaggingOutput, value: Any) -> list[Labelled]:
        """Spans of known types, by place."""
        found = labelled(value)
        if any(kind not in output.types for _, _, kind in found):
            raise ValueError(f"expected spans of these types: {', '.join(output.types[:20])}")
        return found

    def is_right(self, recorded: Mapping[str, Any], label: Any, metrics: Mapping[str, float]) -> bool:
        """Whether all spans are the same."""
        return {tuple(one[:3]) for one in recorded["spans"]} == {tuple(one) for one in label}

    def truths(self, output: TaggingOutput) -> Sequence[str]:
        """The types; what is found wrongly is in `is_right`."""
        return output.types

    def misses(self, recorded: Mapping[str, Any], label: Any) -> Mapping[str, bool]:
        """Each type that the row has, and whether one of its spans was not found."""
        found = {tuple(one[:3]) for one in recorded["spans"]}
        return {
            kind: any(tuple(one) not in found for one in label if one[2] == kind) for kind in {one[2] for one in label}
        }

    def parameters(self, output: TaggingOutput) -> dict[str, Any]:
        """The types."""
        return output.model_dump()

    def summary(self, output: TaggingOutput) -> str:
        """The types."""
        return f"spans of the types: {', '.join(output.types)}"

    def answers(self, output: TaggingOutput, documents: Sequence[Mapping[str, Any]]) -> NDArray[np.object_]:
        """The spans."""
        import numpy as np

        from contracts.tagging import Tagged

        found = np.empty(len(documents), dtype=object)
        found[:] = [
            [Tagged(one["start"], one["end"], one["type"], one["score"]) for one in document["spans"]]
            for document in documents
        ]
        return found

    def watched(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """How many spans there are."""
        return {"answer": len(record["spans"])} if "spans" in record else {}


SERVING = TaggingServing()
