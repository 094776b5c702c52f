"""Embedding: a vector for each row, such that what means alike lies close."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field, create_model

from contracts.problems.base import Output, Problem, Tensor, numbers_differ, shape_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LENGTH = 1e-3


class EmbeddingOutput(Output):
    """Attributes: normalised: vectors have length one, so that their product is the cosine of their angle."""

    problem: Literal["embedding"] = "embedding"
    dimensions: int = Field(ge=1)
    normalised: bool = True


class Embedding(Problem["NDArray[np.float64]"]):
    """Answers are vectors, float64, shape (rows, dimensions); nothing is decided."""

    name = "embedding"
    output = EmbeddingOutput

    def wrong(self, output: EmbeddingOutput, answers: NDArray[np.float64], rows: int) -> str:
        """One vector per row, of length one where the output says so."""
        if wrong := shape_of(answers, rows, output.dimensions, "one vector per example"):
            return wrong
        if not rows or not output.normalised:
            return ""
        lengths = (answers * answers).sum(axis=1) ** 0.5
        return "" if float(abs(lengths - 1).max()) <= _LENGTH else "a vector's length is not one"

    def expected(self, output: EmbeddingOutput, answers: NDArray[np.float64], row: int) -> list[float]:
        """The vector."""
        return [float(value) for value in answers[row]]

    def differs(
        self, output: EmbeddingOutput, expected: Sequence[float], answers: Any, row: int, tolerance: float
    ) -> str:
        """By the first dimension that is another."""
        names = [f"dimension {at}" for at in range(output.dimensions)]
        return numbers_differ(names, expected, answers[row].tolist(), tolerance, "dimensions")

    def decide(self, output: EmbeddingOutput, decision: Any, answers: NDArray[np.float64]) -> list[None]:
        """Nothing."""
        return [None] * len(answers)

    def documents(
        self, output: EmbeddingOutput, decision: Any, answers: Any, decided: Sequence[None]
    ) -> list[dict[str, Any]]:
        """The vector."""
        return [{"embedding": row} for row in answers.tolist()]

    def answer_model(self, output: EmbeddingOutput) -> type[BaseModel]:
        """A list of numbers."""
        text = f"{output.dimensions} numbers" + (", of length one" if output.normalised else "")
        return create_model("Prediction", embedding=(list[float], Field(description=text)))

    def tensors(self, output: EmbeddingOutput) -> list[Tensor]:
        """The vector."""
        return [Tensor(name="embedding", datatype="FP64", shape=(output.dimensions,))]

    def values(self, output: EmbeddingOutput, name: str, answers: Any, decided: Sequence[None]) -> list[Any]:
        """All numbers, row by row."""
        found: list[Any] = answers.ravel().tolist()
        return found


PROBLEM = Embedding()
