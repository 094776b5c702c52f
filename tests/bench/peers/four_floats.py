"""What every contestant serves: an ONNX model of four numbers (``BENCH_MODEL``), and the shape of its answer.

The files beside this one each show one framework as its documentation does: ``python use_NAME.py PORT``. They run in
``build/peers``, see ``make bench-serving``, and nothing of the platform is imported.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import onnxruntime

FLOATS = ("a", "b", "c", "d")


class Model:
    """Rows of four numbers to probabilities."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["BENCH_MODEL"], options)

    def __call__(self, rows: list[list[float]]) -> list[float]:
        found = self.session.run(["probabilities"], {"features": np.array(rows, np.float64)})[0]
        return found[:, 1].tolist()


def rows_of(body: dict[str, Any]) -> list[list[float]]:
    """The numbers of a request."""
    return [[row[name] for name in FLOATS] for row in body["instances"]]


def answer(scores: list[float]) -> dict[str, Any]:
    """The document that comes back."""
    return {"predictions": [{"label": "yes" if p >= 0.5 else "no", "probability": p} for p in scores]}
