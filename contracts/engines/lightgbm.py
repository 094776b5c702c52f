"""Tabular models in LightGBM's text format."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from contracts.engine import EngineOptions, EngineSpec, Reason
from contracts.tabular import Calibration, Columns, Matrix, matrix, top_reasons

if TYPE_CHECKING:
    from contracts.bundle import Bundle


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


def load(bundle: Bundle, options: EngineOptions) -> LightGBMEngine:
    """See `contracts.engines.load_engine`."""
    return LightGBMEngine(bundle, options.threads)


ENGINE = EngineSpec(name="lightgbm", modality="tabular", extra="services", load=load)
