"""Embedding: rows are counted. A vector is not logged: what it was made of could be guessed from it.

Its cosine with the mean vector of the evaluation is: it falls when rows are foreign to the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from services.problems.base import Count, Series, Serving

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from contracts.bundle import Golden
    from contracts.problems.embedding import EmbeddingOutput

_LABEL = "embedding"


class EmbeddingServing(Serving):
    """See `services.problems.base.Serving`; nothing is decided."""

    def labels(self, output: EmbeddingOutput) -> Sequence[str]:
        """One for all rows."""
        return (_LABEL,)

    def distribution(self, output: EmbeddingOutput, golden: Sequence[Golden]) -> None:
        """None: no single number of a vector says much."""

    def count(self, answers: Any, decided: Sequence[None], labels: Mapping[str, Count], observed: Series) -> None:
        """Each row."""
        for _ in decided:
            labels[_LABEL].inc()

    def record(self, answers: Any, decided: Sequence[None], row: int) -> dict[str, Any]:
        """Nothing."""
        return {}

    def recorder(self, baseline: Mapping[str, Any]) -> Callable[[Any, Sequence[None], int], dict[str, Any]]:
        """The cosine with the mean vector, where the baseline has one."""
        import numpy as np

        center = np.array(baseline.get("center", ()), dtype=np.float64)
        size = float(np.linalg.norm(center))
        if not size:
            return self.record

        def record(answers: Any, decided: Sequence[None], row: int) -> dict[str, Any]:
            length = float(np.linalg.norm(answers[row]))
            return {"cosine": round(float(answers[row] @ center) / max(length * size, 1e-12), 6)}

        return record

    def watched(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The cosine with the mean vector."""
        return {"answer": record["cosine"]} if "cosine" in record else {}

    def normal(self, output: EmbeddingOutput, decision: Any, baseline: Mapping[str, Any]) -> dict[str, Any]:
        """The same of the evaluation."""
        cosine = baseline.get("scores", {}).get("cosine")
        return {"answer": {"kind": "number", **cosine}} if cosine else {}

    def parameters(self, output: EmbeddingOutput) -> dict[str, Any]:
        """How many dimensions, and whether vectors have length one."""
        return output.model_dump()

    def summary(self, output: EmbeddingOutput) -> str:
        """How many numbers."""
        return f"a vector of {output.dimensions} numbers"

    def answers(self, output: EmbeddingOutput, documents: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
        """The vectors."""
        import numpy as np

        return np.array([one["embedding"] for one in documents])


SERVING = EmbeddingServing()
