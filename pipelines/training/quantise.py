"""Dynamic int8 of an ONNX model, kept only when it answers as well as the model that it replaces."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from contracts.bundle import Check

MODEL = "model.onnx"


def quantise(source: Path, target: Path) -> None:
    """Write `source` with int8 weights to `target`; activations are quantised as they come, so no data is needed."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        prepared = Path(folder) / MODEL
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_dynamic(str(prepared), str(target), weight_type=QuantType.QInt8, per_channel=True, reduce_range=False)


def is_quantised(file: Path) -> bool:
    """Whether a graph multiplies integers already."""
    import onnx

    return any(node.op_type == "MatMulInteger" for node in onnx.load(str(file)).graph.node)


def quantise_if_as_good(
    folder: Path, quality: Callable[[Path], float], *, metric: str, largest_drop: float
) -> tuple[float, Check]:
    """Replace ``model.onnx`` of a model's `folder` by its int8 form when `quality` drops by at most `largest_drop`.

    Args:
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
        quantise(folder / MODEL, trial / MODEL)
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
