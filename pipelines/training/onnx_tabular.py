"""Calibrated models of a table as an ONNX graph: linear ones and networks, with the contribution of every input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.encrypted import FILE, LinearModel

Floats = NDArray[np.float64]
_STEPS = 32  # points of the way from a usual row to a row, at which a network's slopes are taken


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
    """Write the graph: float64 ``features`` (n, inputs) -> ``probabilities`` (n, 2), ``contributions`` (n, inputs).

    Beside it the same as numbers, from which services answer encrypted rows.
    """
    from onnx import TensorProto, helper

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
    _write("linear", nodes, constants, width, {"probabilities": 2, "contributions": width}, path)
    numbers = LinearModel(
        median=form.median.tolist(),
        mean=form.mean.tolist(),
        deviation=form.deviation.tolist(),
        weights=form.weights.tolist(),
        absent=form.absent.tolist(),
        bias=form.bias,
        log_scale=form.log_scale,
        calibration=dict(calibration),
    )
    path.with_name(FILE).write_text(numbers.model_dump_json(indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True, kw_only=True)
class NetworkForm:
    """A perceptron of numbers, which of them are missing, and categories (`pipelines.training.network.vectors`).

    numbers: places of the inputs that are numbers; mean, deviation: of them when they are bent; far: how many
    deviations count at most.  categories: place and count of the others.  layers: weights (made, given) and biases.
    """

    numbers: Sequence[int]
    mean: Floats
    deviation: Floats
    far: float
    categories: Sequence[tuple[int, int]]
    layers: Sequence[tuple[Floats, Floats]]


def save_network(form: NetworkForm, calibration: Mapping[str, Any], path: Path) -> None:
    """Write the graph: float64 ``features`` (n, inputs) -> ``probabilities`` (n, 2), ``contributions`` (n, inputs).

    Contributions are integrated gradients of the log-odds (M. Sundararajan, A. Taly, Q. Yan, 2017), from a row whose
    numbers are the means and which is of each category as much: together they are what the row has more than that one.
    """
    from onnx import TensorProto, helper

    double = TensorProto.DOUBLE
    places = [at for at, count in form.categories for _ in range(count)]
    constants: dict[str, Any] = {
        "numbers": np.asarray(form.numbers, np.int64),
        "mean": form.mean,
        "deviation": form.deviation,
        "nearest": np.float64(-form.far),
        "farthest": np.float64(form.far),
        "places": np.asarray(places, np.int64),
        "codes": np.array([code for _, count in form.categories for code in range(count)], np.float64),
        "zero": np.float64(0.0),
        "one": np.float64(1.0),
    }
    nodes = [
        helper.make_node("Gather", ["features", "numbers"], ["given"], axis=1),
        helper.make_node("IsNaN", ["given"], ["missing"]),
        helper.make_node("Where", ["missing", "zero", "given"], ["filled"]),
        *_bend(True, helper),
        helper.make_node("Sub", ["bent", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "deviation"], ["wide"]),
        helper.make_node("Clip", ["wide", "nearest", "farthest"], ["near"]),
        helper.make_node("Where", ["missing", "zero", "near"], ["scaled"]),
        helper.make_node("Cast", ["missing"], ["is_missing"], to=double),
        helper.make_node("Gather", ["features", "places"], ["named"], axis=1),
        helper.make_node("Equal", ["named", "codes"], ["are"]),
        helper.make_node("Cast", ["are"], ["is_category"], to=double),
        helper.make_node("Concat", ["scaled", "is_missing", "is_category"], ["layer0"], axis=1),
    ]
    for at, (weights, bias) in enumerate(form.layers):
        constants |= {f"weights{at}": weights.T.copy(), f"bias{at}": bias}
        last = at == len(form.layers) - 1
        nodes += [
            helper.make_node("MatMul", [f"layer{at}", f"weights{at}"], [f"product{at}"]),
            helper.make_node("Add", [f"product{at}", f"bias{at}"], ["score" if last else f"sum{at}"]),
            *([] if last else [helper.make_node("Relu", [f"sum{at}"], [f"layer{at + 1}"])]),
        ]
    nodes += _calibrate(calibration, constants, helper)
    nodes += [
        helper.make_node("Sub", ["one", "positive"], ["negative"]),
        helper.make_node("Concat", ["negative", "positive"], ["probabilities"], axis=1),
    ]
    nodes += _integrated(form, places, constants, helper)
    width = len(form.numbers) + len(form.categories)
    _write("network", nodes, constants, width, {"probabilities": 2, "contributions": width}, path)


def _integrated(form: NetworkForm, places: Sequence[int], constants: dict[str, Any], helper: Any) -> list[Any]:
    """From ``layer0`` (n, given) to ``contributions`` (n, inputs): the mean slope along the way, times the way."""
    from onnx import TensorProto

    belongs = [*form.numbers, *form.numbers, *places]
    usual = [0.0] * (2 * len(form.numbers)) + [1 / count for _, count in form.categories for _ in range(count)]
    constants |= {
        "usual": np.asarray(usual, np.float64),
        "steps": ((np.arange(_STEPS) + 0.5) / _STEPS)[:, None, None],
        "belongs": np.eye(len(form.numbers) + len(form.categories))[belongs],
    }
    node, last = helper.make_node, len(form.layers) - 1
    nodes = [
        node("Sub", ["layer0", "usual"], ["way"]),
        node("Mul", ["steps", "way"], ["gone"]),
        node("Add", ["gone", "usual"], ["at0"]),  # (steps, n, given)
    ]
    for at in range(last):
        nodes += [
            node("MatMul", [f"at{at}", f"weights{at}"], [f"raw{at}"]),
            node("Add", [f"raw{at}", f"bias{at}"], [f"before{at}"]),
            node("Greater", [f"before{at}", "zero"], [f"open{at}"]),
            node("Cast", [f"open{at}"], [f"passes{at}"], to=TensorProto.DOUBLE),
            node("Relu", [f"before{at}"], [f"at{at + 1}"]),
        ]
    constants["slope"] = form.layers[last][0].copy()
    slope = "slope"
    for at in reversed(range(last)):
        constants[f"back{at}"] = form.layers[at][0].copy()
        nodes += [
            node("Mul", [slope, f"passes{at}"], [f"through{at}"]),
            node("MatMul", [f"through{at}", f"back{at}"], [f"slope{at}"]),
        ]
        slope = f"slope{at}"
    return [
        *nodes,
        node("ReduceMean", [slope], ["mean_slope"], axes=[0], keepdims=0),
        node("Mul", ["mean_slope", "way"], ["parts"]),
        node("MatMul", ["parts", "belongs"], ["contributions"]),
    ]


def _write(
    name: str, nodes: Any, constants: Mapping[str, Any], width: int, outputs: Mapping[str, int], path: Path
) -> None:
    """A checked graph of ``features`` (n, width), whose outputs have so many columns each."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def tensor(called: str, columns: int) -> Any:
        return helper.make_tensor_value_info(called, TensorProto.DOUBLE, ["n", columns])

    graph = helper.make_graph(
        nodes,
        name,
        [tensor("features", width)],
        [tensor(called, columns) for called, columns in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), called) for called, value in constants.items()],
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
