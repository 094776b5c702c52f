"""Weights of 8 bits for an ONNX model, kept only when it answers as well as the model that it replaces."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.bundle import Check

if TYPE_CHECKING:
    from numpy.typing import NDArray

MODEL = "model.onnx"
_BLOCK = 32  # rows of a column that share a scale
_SMALL = 1_000  # numbers of a table that is not worth it


def quantise(source: Path, target: Path) -> None:
    """Write `source` with int8 weights to `target`; activations are quantised as they come, so no data is needed."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        prepared = Path(folder) / MODEL
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_dynamic(str(prepared), str(target), weight_type=QuantType.QInt8, per_channel=True, reduce_range=False)


def quantise_static(source: Path, target: Path, batches: Sequence[Mapping[str, NDArray[Any]]]) -> None:
    """Write `source` with int8 weights and activations, whose ranges are those of the inputs `batches`.

    The last layer keeps its precision: it is small, and the answers are its sums.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rest = iter(batches)

        def get_next(self) -> Mapping[str, NDArray[Any]] | None:
            return next(self.rest, None)

    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        prepared = Path(folder) / MODEL
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        last = [node.name for node in onnx.load(str(prepared)).graph.node if node.op_type in ("Gemm", "MatMul")][-1:]
        quantize_static(
            str(prepared),
            str(target),
            Reader(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            nodes_to_exclude=last,
        )


def quantise_weights(source: Path, target: Path) -> None:
    """Write `source` with int8 weights of products and rows of tables to `target`; all sums stay float32.

    Activations are not rounded, so the answer to a row does not depend on the rows beside it, unlike after `quantise`.
    """
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(str(source))
    graph = model.graph
    tables = {one.name: one for one in graph.initializer}
    nodes, made, used = [], {}, set()
    for node in graph.node:
        at = {"MatMul": 1, "Gather": 0}.get(node.op_type)
        table = tables.get(node.input[at]) if at is not None else None
        values = None if table is None else numpy_helper.to_array(table)
        if table is None or values is None or values.ndim != 2 or values.size < _SMALL or values.dtype != np.float32:
            nodes.append(node)
            used.update(node.input)
            continue
        name = table.name
        if node.op_type == "MatMul":
            rows, columns = values.shape
            blocks = -(-rows // _BLOCK)
            whole = np.zeros((columns, blocks, _BLOCK), np.float32)
            whole.reshape(columns, -1)[:, :rows] = values.T
            scale = np.maximum(np.abs(whole).max(axis=2), 1e-12) / 127
            made[f"{name}_int8"] = (np.rint(whole / scale[..., None]) + 128).astype(np.uint8)
            made[f"{name}_scale"] = scale.reshape(-1)
            shape = {"K": rows, "N": columns, "bits": 8, "block_size": _BLOCK}
            given = [node.input[0], f"{name}_int8", f"{name}_scale"]
            nodes.append(helper.make_node("MatMulNBits", given, node.output, domain="com.microsoft", **shape))
        else:
            scale = np.maximum(np.abs(values).max(axis=1, keepdims=True), 1e-12) / 127
            made[f"{name}_rows"], made[f"{name}_scales"] = np.rint(values / scale).astype(np.int8), scale
            mine = node.output[0]
            nodes += [
                helper.make_node("Gather", [f"{name}_rows", node.input[1]], [f"{mine}_rows"], axis=0),
                helper.make_node("Cast", [f"{mine}_rows"], [f"{mine}_floats"], to=onnx.TensorProto.FLOAT),
                helper.make_node("Gather", [f"{name}_scales", node.input[1]], [f"{mine}_scales"], axis=0),
                helper.make_node("Mul", [f"{mine}_floats", f"{mine}_scales"], [mine]),
            ]
    kept = [one for one in graph.initializer if one.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*kept, *(numpy_helper.from_array(value, name) for name, value in made.items())])
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    target.write_bytes(model.SerializeToString())


def is_quantised(file: Path) -> bool:
    """Whether a graph multiplies integers already."""
    import onnx

    return any(node.op_type == "MatMulInteger" for node in onnx.load(str(file)).graph.node)


def quantise_if_as_good(
    folder: Path,
    quality: Callable[[Path], float],
    *,
    metric: str,
    largest_drop: float,
    form: Callable[[Path, Path], None] = quantise,
    graphs: Sequence[str] = (MODEL,),
) -> tuple[float, Check]:
    """Replace the `graphs` of a model's `folder` by their int8 form when `quality` drops by at most `largest_drop`.

    Args:
        form: writes the int8 form of one graph to another file.
        quality: `metric` of the model in a folder, higher is better, on rows that it was neither trained nor tested on.

    Returns:
        the quality before, and the check that says whether and why it was replaced, for the gate's decision.
    """
    before = quality(folder)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        trial = Path(scratch) / folder.name
        trial.mkdir()
        for file in folder.iterdir():
            if file.name not in graphs:
                os.link(file, trial / file.name)
        for name in graphs:
            form(folder / name, trial / name)
        after = quality(trial)
        passed = after >= before - largest_drop
        for name in graphs if passed else ():
            os.replace(trial / name, folder / name)
    return before, Check(
        metric=f"{metric} of int8 on the validation rows",
        rule="at least",
        value=after,
        limit=before - largest_drop,
        passed=passed,
        against="fp32",
    )
