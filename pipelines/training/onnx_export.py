"""Networks of torch as ONNX graphs."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

OPSET = 17


def graph(
    network: Any,
    given: tuple[Any, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    axes: Mapping[str, Mapping[int, str]],
) -> bytes:
    """The ONNX graph of a network, which is put into the mode that answers.

    Args:
        given: an example of the inputs, tensors on the device of the network; no size of 1 that is free, which the
            exporter takes for a constant.
        inputs, outputs: names, in the order of the network's.
        axes: name of an input or output -> its free sizes, number of the axis -> name; the others are fixed.
    """
    import torch

    made = io.BytesIO()
    served = network.eval()  # the exporter gives every part the mode that the whole had before
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter that needs no further package is called legacy
        torch.onnx.export(
            served,
            given,
            made,  # type: ignore[arg-type]  # which its annotation leaves out
            dynamo=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={name: dict(axes[name]) for name in (*inputs, *outputs) if name in axes},
        )
    return made.getvalue()
