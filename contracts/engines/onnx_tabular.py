"""Tabular models as an ONNX graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from contracts.engine import EngineOptions, EngineSpec, Reason, graph_outputs, onnx_providers, side_by_side
from contracts.errors import PlatformError
from contracts.tabular_engine import Columns, Matrix, matrix, top_reasons

if TYPE_CHECKING:
    from contracts.bundle import Bundle


class OnnxTabularEngine:
    """``model/model.onnx``: float64 ``features`` (rows, inputs) -> `graph_outputs`; for reasons ``contributions``."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self._inputs = bundle.document.signature.inputs
        self._outputs = list(graph_outputs(bundle.document.signature))
        providers = onnx_providers(onnxruntime.get_available_providers())
        self._session = onnxruntime.InferenceSession(
            str(bundle.model_path / "model.onnx"), options, providers=providers
        )
        self._only_needed = onnxruntime.RunOptions()
        self._only_needed.only_execute_path_to_fetches = True  # reasons cost nothing when not asked for
        self._explains = "contributions" in {one.name for one in self._session.get_outputs()}

    def predict(self, columns: Columns) -> Matrix:
        feed = {"features": matrix(self._inputs, columns)}
        found = [np.asarray(one, np.float64) for one in self._session.run(self._outputs, feed, self._only_needed)]
        return side_by_side(found, len(feed["features"]))

    def explain(self, columns: Columns, top: int) -> list[list[Reason]]:
        feed = {"features": matrix(self._inputs, columns)}
        if not self._explains:
            raise PlatformError("this model gives no reasons", detail="no output contributions", code="not_explainable")
        found = self._session.run(["contributions"], feed, self._only_needed)[0]
        return top_reasons(self._inputs, columns, np.asarray(found), top)


def load(bundle: Bundle, options: EngineOptions) -> OnnxTabularEngine:
    """See `contracts.engines.load_engine`."""
    return OnnxTabularEngine(bundle, options.threads)


ENGINE = EngineSpec(name="onnx", modality="tabular", extra="services", batch_rows=65_536, load=load)
