"""Engines of tabular bundles: LightGBM's text format and ONNX; imported by contracts.engine on first use."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.bundle import Bundle, Input
from contracts.engine import Reason, onnx_providers

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


def _lightgbm() -> Any:
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


class LightGBMEngine:
    """``model/model.txt`` and ``model/calibration.json``; reasons are exact TreeSHAP (Lundberg et al., 2020)."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        lightgbm = _lightgbm()
        self._inputs = bundle.document.signature.inputs
        self._classes = len(bundle.document.signature.classes)
        self._threads = threads
        self._booster = lightgbm.Booster(model_file=str(bundle.model_path / "model.txt"))
        self._calibration = Calibration(json.loads((bundle.model_path / "calibration.json").read_text()))

    def predict(self, columns: Columns) -> Matrix:
        data = matrix(self._inputs, columns)
        if self._classes > 2:
            return np.asarray(self._booster.predict(data, num_threads=self._threads))
        score = np.asarray(self._booster.predict(data, raw_score=True, num_threads=self._threads))
        positive = self._calibration(score)
        return np.column_stack([1.0 - positive, positive])

    def explain(self, columns: Columns, top: int) -> list[list[Reason]]:
        data = matrix(self._inputs, columns)
        shap = np.asarray(self._booster.predict(data, pred_contrib=True, num_threads=self._threads))
        width = len(self._inputs) + 1  # the last one is the expected value
        if self._classes > 2:
            best = self._booster.predict(data, num_threads=self._threads).argmax(axis=1)
            shap = np.stack([row.reshape(self._classes, width)[c] for row, c in zip(shap, best, strict=True)])
        return top_reasons(self._inputs, columns, shap[:, : width - 1], top)


class OnnxTabularEngine:
    """``model/model.onnx``: float64 ``features`` (rows, inputs) -> ``probabilities`` and ``contributions``."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self._inputs = bundle.document.signature.inputs
        providers = onnx_providers(onnxruntime.get_available_providers())
        self._session = onnxruntime.InferenceSession(
            str(bundle.model_path / "model.onnx"), options, providers=providers
        )

    def predict(self, columns: Columns) -> Matrix:
        feed = {"features": matrix(self._inputs, columns)}
        return np.asarray(self._session.run(["probabilities"], feed)[0])

    def explain(self, columns: Columns, top: int) -> list[list[Reason]]:
        feed = {"features": matrix(self._inputs, columns)}
        return top_reasons(self._inputs, columns, np.asarray(self._session.run(["contributions"], feed)[0]), top)
