"""What services count and log of counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from contracts.metric_names import VALUE
from services.problems.base import Count, Distribution, Series, Serving


class CountsServing(Serving):
    """Rows with none and with some are counted apart."""

    def labels(self, output: Any) -> list[str]:
        return ["none", "some"]

    def distribution(self, output: Any, golden: Any) -> Distribution:
        return Distribution(name=VALUE, text="Count.", edges=(0.0, 1.0, 10.0))

    def count(self, answers: Any, decided: Sequence[int], labels: Mapping[str, Count], observed: Series) -> None:
        for value in decided:
            labels["some" if value else "none"].inc()
            observed.observe(value)

    def record(self, answers: Any, decided: Sequence[int], row: int) -> dict[str, Any]:
        return {"count": decided[row]}

    def parameters(self, output: Any) -> dict[str, Any]:
        found: dict[str, Any] = output.model_dump()
        return found

    def summary(self, output: Any) -> str:
        return f"a count up to {output.most}"

    def answers(self, output: Any, documents: Sequence[Mapping[str, Any]]) -> Any:
        return np.array([[one["count"]] for one in documents])


SERVING = CountsServing()
