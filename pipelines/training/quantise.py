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
) -> tuple[float, Check]:
    """Replace ``model.onnx`` of a model's `folder` by its int8 form when `quality` drops by at most `largest_drop`.

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
            if file.name != MODEL:
                os.link(file, trial / file.name)
        form(folder / MODEL, trial / MODEL)
        after = quality(trial)
        passed = after >= before - largest_drop
        if passed:
            os.replace(trial / MODEL, folder / MODEL)
    return before, Check(
        metric=f"{metric} of int8 on the validation rows",
        rule="at least",
        value=after,
        limit=before - largest_drop,
        passed=passed,
        against="fp32",
    )
