"""The problem, and the engine that answers it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, create_model

from contracts.engine import EngineSpec, Reason
from contracts.problems.base import Output, Problem, Tensor, shape_of

if TYPE_CHECKING:
    from numpy.typing import NDArray


class CountsOutput(Output):
    """Attributes: most: the highest count that is answered."""

    problem: Literal["counts"] = "counts"
    most: int


class Counts(Problem["NDArray[np.float64]"]):
    """Answers are numbers, shape (rows, 1); a decision is a count."""

    name, output = "counts", CountsOutput
    evaluation, serving = "toy_counts.evaluation", "toy_counts.serving"

    def wrong(self, output: CountsOutput, answers: Any, rows: int) -> str:
        return shape_of(answers, rows, 1, "one number")

    def expected(self, output: CountsOutput, answers: Any, row: int) -> int:
        return int(answers[row, 0])

    def differs(self, output: CountsOutput, expected: int, answers: Any, row: int, tolerance: float) -> str:
        got = int(answers[row, 0])
        return "" if got == expected else f"expected {expected}, got {got}"

    def decide(self, output: CountsOutput, decision: Any, answers: Any) -> list[int]:
        return [min(int(value), output.most) for value in answers[:, 0]]

    def documents(
        self, output: CountsOutput, decision: Any, answers: Any, decided: Sequence[int]
    ) -> list[dict[str, Any]]:
        return [{"count": value} for value in decided]

    def answer_model(self, output: CountsOutput) -> type[BaseModel]:
        return create_model("Prediction", count=(int, ...))

    def tensors(self, output: CountsOutput) -> list[Tensor]:
        return [Tensor(name="count", datatype="INT64")]

    def values(self, output: CountsOutput, name: str, answers: Any, decided: Sequence[int]) -> list[Any]:
        return list(decided)


class Steps:
    """One more for every `step` of the size."""

    def __init__(self, step: float) -> None:
        self.step = step

    def predict(self, columns: Mapping[str, NDArray[Any]]) -> Any:
        return np.floor(columns["size"] / self.step).reshape(-1, 1)

    def explain(self, columns: Mapping[str, NDArray[Any]], top: int) -> list[list[Reason]]:
        sizes = columns["size"].tolist()
        return [[Reason(feature="size", value=size, contribution=size / self.step)] for size in sizes]


PROBLEM = Counts()
ENGINE = EngineSpec(
    name="steps",
    modality="tabular",
    load=lambda bundle, options: Steps(json.loads((bundle.path / "model" / "steps.json").read_text())["step"]),
)
