"""A calibrated linear model as an ONNX graph, with the contribution of every input beside the probability."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class LinearForm:
    """log-odds = ((bend(x or median) - mean) / deviation) . weights + missing(x) . absent + bias.

    Arrays have shape (inputs,).
    """

    median: Floats
    mean: Floats
    deviation: Floats
    weights: Floats
    absent: Floats
    bias: float
    log_scale: bool


def save_linear(form: LinearForm, calibration: Mapping[str, Any], path: Path) -> None:
    """Write the graph: float64 ``features`` (n, inputs) -> ``probabilities`` (n, 2), ``contributions`` (n, inputs)."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    constants = {
        "median": form.median,
        "mean": form.mean,
        "deviation": form.deviation,
        "weights": form.weights,
        "absent": form.absent,
        "bias": np.float64(form.bias),
        "one": np.float64(1.0),
        "axis": np.array([1], dtype=np.int64),
    }
    nodes = [
        helper.make_node("IsNaN", ["features"], ["missing"]),
        helper.make_node("Where", ["missing", "median", "features"], ["filled"]),
        *_bend(form.log_scale, helper),
        helper.make_node("Sub", ["bent", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "deviation"], ["scaled"]),
        helper.make_node("Mul", ["scaled", "weights"], ["weighed"]),
        helper.make_node("Cast", ["missing"], ["is_missing"], to=TensorProto.DOUBLE),
        helper.make_node("Mul", ["is_missing", "absent"], ["lacking"]),
        helper.make_node("Add", ["weighed", "lacking"], ["contributions"]),
        helper.make_node("ReduceSum", ["contributions", "axis"], ["summed"], keepdims=1),
        helper.make_node("Add", ["summed", "bias"], ["score"]),
        *_calibrate(calibration, constants, helper),
        helper.make_node("Sub", ["one", "positive"], ["negative"]),
        helper.make_node("Concat", ["negative", "positive"], ["probabilities"], axis=1),
    ]
    width = len(form.weights)
    double = TensorProto.DOUBLE
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("features", double, ["n", width])],
        [
            helper.make_tensor_value_info("probabilities", double, ["n", 2]),
            helper.make_tensor_value_info("contributions", double, ["n", width]),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def _bend(log_scale: bool, helper: Any) -> list[Any]:
    if not log_scale:
        return [helper.make_node("Identity", ["filled"], ["bent"])]
    return [
        helper.make_node("Abs", ["filled"], ["size"]),
        helper.make_node("Add", ["size", "one"], ["shifted"]),
        helper.make_node("Log", ["shifted"], ["logged"]),
        helper.make_node("Sign", ["filled"], ["sign"]),
        helper.make_node("Mul", ["logged", "sign"], ["bent"]),
    ]


def _calibrate(calibration: Mapping[str, Any], constants: dict[str, Any], helper: Any) -> list[Any]:
    """Platt is one Mul and Add; isotonic is a sum of clipped ramps, one per knot, which equals interpolation."""
    if calibration["kind"] == "isotonic":
        x, y = np.asarray(calibration["x"]), np.asarray(calibration["y"])
        width = np.maximum(np.diff(x), 1e-12)
        constants |= {"knots": x[:-1], "slopes": np.diff(y) / width, "widths": width, "floor": np.float64(y[0])}
        constants["zero"] = np.float64(0.0)
        return [
            helper.make_node("Sub", ["score", "knots"], ["past"]),
            helper.make_node("Max", ["past", "zero"], ["begun"]),
            helper.make_node("Min", ["begun", "widths"], ["ramp"]),
            helper.make_node("Mul", ["ramp", "slopes"], ["gain"]),
            helper.make_node("ReduceSum", ["gain", "axis"], ["gained"], keepdims=1),
            helper.make_node("Add", ["gained", "floor"], ["positive"]),
        ]
    if calibration["kind"] == "platt":
        constants |= {"a": np.float64(calibration["a"]), "b": np.float64(calibration["b"])}
        return [
            helper.make_node("Mul", ["score", "a"], ["stretched"]),
            helper.make_node("Add", ["stretched", "b"], ["calibrated"]),
            helper.make_node("Sigmoid", ["calibrated"], ["positive"]),
        ]
    return [helper.make_node("Sigmoid", ["score"], ["positive"])]
