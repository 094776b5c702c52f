"""Engines of tabular bundles: LightGBM's text format and ONNX; imported by contracts.engine on first use."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.bundle import Input
from contracts.engine import Reason

Columns = Mapping[str, NDArray[Any]]
Matrix = NDArray[np.float64]


def matrix(inputs: Sequence[Input], columns: Columns) -> Matrix:
    """The numeric matrix, shape (rows, inputs): a string becomes its index in `categories`, an unknown one NaN."""
    data = np.empty((len(columns[inputs[0].name]), len(inputs)), np.float64)
    for at, item in enumerate(inputs):
        column = columns[item.name]
        if item.dtype == "string":
            codes = {name: float(i) for i, name in enumerate(item.categories or [])}
            column = np.array([codes.get(value, np.nan) for value in column], dtype=np.float64)
        data[:, at] = column
    return data


class Calibration:
    """Scores to probabilities: ``platt`` is sigmoid(a * log-odds + b); ``isotonic`` interpolates x -> y; or ``none``.

    Platt, "Probabilistic outputs for support vector machines" (1999); Zadrozny and Elkan, KDD 2002, for isotonic.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.kind = document["kind"]
        if self.kind == "isotonic":
            self.x, self.y = np.asarray(document["x"]), np.asarray(document["y"])
        elif self.kind == "platt":
            self.a, self.b = float(document["a"]), float(document["b"])

    def __call__(self, score: Matrix) -> Matrix:
        """Probabilities of the positive class from raw scores in log-odds, shape (rows,)."""
        if self.kind == "isotonic":
            return np.asarray(np.interp(score, self.x, self.y))
        if self.kind == "platt":
            score = self.a * score + self.b
        return np.asarray(1.0 / (1.0 + np.exp(-np.clip(score, -500, 500))))


def top_reasons(inputs: Sequence[Input], columns: Columns, contributions: Matrix, top: int) -> list[list[Reason]]:
    """The `top` largest contributions of each row; `contributions` has shape (rows, inputs)."""
    answer = []
    for row, values in enumerate(contributions):
        order = np.argsort(-np.abs(values), kind="stable")[:top]
        answer.append(
            [
                Reason(
                    feature=inputs[i].name, value=_plain(columns[inputs[i].name][row]), contribution=float(values[i])
                )
                for i in order
            ]
        )
    return answer


def _plain(value: Any) -> float | str | None:
    if isinstance(value, str) or value is None:
        return value
    number = float(value)
    return None if np.isnan(number) else number


def import_lightgbm() -> Any:
    """LightGBM, which asks for these two packages only to take their objects, and gets arrays here: 2 s of imports."""
    if "lightgbm" not in sys.modules:
        hidden = [name for name in ("sklearn", "pandas") if name not in sys.modules]
        sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: the import system's "is not there"
        try:
            import lightgbm
        finally:
            for name in hidden:
                del sys.modules[name]
    import lightgbm

    return lightgbm
