"""How far a row is from what a model has learned from: the score that a graph gives beside its answers.

The graph has one more output, `OOD`, shape (rows, 1): 0 is the median of the validation rows, and 1 what as many of
them are beyond as its recipe was asked for. Beyond 1 the model is asked about something that it cannot know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from contracts.engine import Engine

OOD = "ood_score"  # of a graph, an answer and a record
ABSTAIN = "abstain"
FLAG = "out_of_distribution"  # of a row that is beyond the limit
LIMIT = 1.0


@runtime_checkable
class AbstainingEngine(Protocol):
    """An engine that may say with its answers how far rows are from what it has learned from.

    Attributes:
        has_ood: whether this bundle's graph does.
    """

    has_ood: bool

    def predict_ood(self, columns: Mapping[str, NDArray[Any]]) -> tuple[Any, NDArray[np.float64]]:
        """What `Engine.predict` gives, and the score of each row, shape (rows,), by one run of the graph."""
        ...


def abstaining(engine: Engine) -> AbstainingEngine | None:
    """The engine itself, where its bundle can abstain."""
    return engine if isinstance(engine, AbstainingEngine) and engine.has_ood else None
