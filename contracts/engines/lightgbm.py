"""Tabular models in LightGBM's text format."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from contracts.engine import EngineOptions, EngineSpec, Reason
from contracts.tabular_engine import Calibration, Columns, Matrix, import_lightgbm, matrix, top_reasons

if TYPE_CHECKING:
    from contracts.bundle import Bundle

_ENDS = ("low", "high")


class LightGBMEngine:
    """``model/model.txt``: answers are what it predicts; reasons are exact TreeSHAP (Lundberg et al., 2020).

    ``model.low.txt`` and ``model.high.txt`` beside it, boosters of quantiles, give the interval of a regression.
    """

    def __init__(self, bundle: Bundle, threads: int) -> None:
        self._inputs, self._output = bundle.document.signature.inputs, bundle.document.signature.output
        self._threads, self._folder = threads, bundle.model_path
        self._load()

    def predict(self, columns: Columns) -> Matrix:
        """See `contracts.engine.Engine`."""
        return self._predict(matrix(self._inputs, columns))

    def explain(self, columns: Columns, top: int) -> list[list[Reason]]:
        """See `contracts.engine.Engine`."""
        shap = self._contributions(matrix(self._inputs, columns))
        return top_reasons(self._inputs, columns, shap[:, : len(self._inputs)], top)  # the last is the expected value

    def _load(self) -> None:
        self._booster = self._read("model")
        self._ends = [self._read(f"model.{end}") for end in _ENDS if (self._folder / f"model.{end}.txt").exists()]

    def _read(self, name: str) -> Any:
        return import_lightgbm().Booster(model_file=str(self._folder / f"{name}.txt"))

    def _predict(self, data: Matrix) -> Matrix:
        value = self._run(self._booster, data)
        if len(self._ends) != len(_ENDS):
            return value.reshape(len(data), -1)
        low, high = (self._run(booster, data) for booster in self._ends)
        # Quantiles are learned apart from the value, and may cross it.
        return np.column_stack([value, np.minimum(low, value), np.maximum(high, value)])

    def _contributions(self, data: Matrix) -> Matrix:
        return self._run(self._booster, data, pred_contrib=True)

    def _run(self, booster: Any, data: Matrix, **options: Any) -> Matrix:
        return np.asarray(booster.predict(data, num_threads=self._threads, **options))


class ClassesEngine(LightGBMEngine):
    """``model.txt`` and, for two classes, ``calibration.json``; reasons of the positive or the predicted class."""

    def _load(self) -> None:
        self._classes = len(self._output.classes)  # type: ignore[attr-defined]
        self._booster = self._read("model")
        self._calibration = Calibration(json.loads((self._folder / "calibration.json").read_text()))

    def _predict(self, data: Matrix) -> Matrix:
        if self._classes > 2:
            return self._run(self._booster, data)
        positive = self._calibration(self._run(self._booster, data, raw_score=True))
        return np.column_stack([1.0 - positive, positive])

    def _contributions(self, data: Matrix) -> Matrix:
        shap = self._run(self._booster, data, pred_contrib=True)
        if self._classes == 2:
            return shap
        best = self._run(self._booster, data).argmax(axis=1)
        return np.stack([row.reshape(self._classes, -1)[one] for row, one in zip(shap, best, strict=True)])


class LabelsEngine(LightGBMEngine):
    """One booster with probabilities for each label, ``model.0.txt`` and so on; reasons of the likeliest label."""

    def _load(self) -> None:
        count = len(self._output.labels)  # type: ignore[attr-defined]
        self._boosters = [self._read(f"model.{at}") for at in range(count)]

    def _predict(self, data: Matrix) -> Matrix:
        return np.column_stack([self._run(booster, data) for booster in self._boosters])

    def _contributions(self, data: Matrix) -> Matrix:
        best = self._predict(data).argmax(axis=1)
        rows = [self._run(self._boosters[at], data[[row]], pred_contrib=True)[0] for row, at in enumerate(best)]
        return np.stack(rows)


_OF_PROBLEM = {"classification": ClassesEngine, "multilabel": LabelsEngine}


def load(bundle: Bundle, options: EngineOptions) -> LightGBMEngine:
    """See `contracts.engines.load_engine`."""
    kind = _OF_PROBLEM.get(bundle.document.signature.output.problem, LightGBMEngine)
    return kind(bundle, options.threads)


ENGINE = EngineSpec(name="lightgbm", modality="tabular", extra="services", batch_rows=65_536, load=load)
