"""A graph of ONNX as a network of torch, so that it goes on learning; of the operators that networks of images have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from contracts.errors import PlatformError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from contracts.images import ImageSpec

_SHOWN = 3  # rows of the values whose sizes are looked at
_Step = tuple[str, dict[str, Any], list[str], str]  # operator, attributes, inputs, output


def graph_network(file: Path, features: str, spec: ImageSpec, classes: int) -> Any:
    """The features of a graph, see `pipelines.training.image_backbone.read_graph`, and a new linear layer on them.

    ``body`` are the layers of the graph, ``head`` the new one; all of its weights can be trained.

    Raises:
        PlatformError: ``code="bad_weights"``: it has an operator that is not known here, or other pixels.
    """
    import torch
    from torch import nn

    from pipelines.training.image_backbone import read_graph

    model, sides = read_graph(file, features, spec), (len(spec.mode), spec.height, spec.width)
    try:
        with torch.no_grad():
            body = _body(model, file, sides)
            width = int(body.eval()(torch.zeros(2, *sides)).shape[1])
    except (RuntimeError, ValueError, TypeError, IndexError) as err:
        raise _bad(file, f"it does not take images of {spec.width}x{spec.height}: {str(err)[:200]}") from err

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = body, nn.Linear(width, classes)

        def forward(self, pixels: Any) -> Any:
            return self.head(self.body(pixels))

    return Network()


def _body(model: Any, file: Path, sides: Sequence[int]) -> Any:
    import torch
    from torch import nn

    graph = model.graph
    [given] = [item.name for item in graph.input if item.name not in {one.name for one in graph.initializer}]
    weights, steps, counted = _steps(model, file, given, sides)
    last = graph.output[0].name
    used = {name for _, _, names, _ in steps for name in names}

    class Body(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.places: dict[str, str] = {}
            self.fixed: dict[str, Any] = {}
            for at, (name, values) in enumerate(weights.items()):
                if name not in used:
                    continue
                if not _is_learned(values):
                    self.fixed[name] = values.tolist()
                    continue
                tensor, self.places[name] = torch.tensor(values, dtype=torch.float32), f"weights_{at}"
                if name in counted:
                    self.register_buffer(self.places[name], tensor)
                else:
                    self.register_parameter(self.places[name], nn.Parameter(tensor))

        def forward(self, pixels: Any) -> Any:
            values: dict[str, Any] = {given: pixels, "": None, **self.fixed}
            values |= {name: getattr(self, place) for name, place in self.places.items()}
            for kind, said, names, made in steps:
                inputs = [values[name] for name in names]
                values[made] = _OPERATORS[kind](said, self.training, *inputs)
            return values[last]

    return Body()


def _steps(
    model: Any, file: Path, given: str, sides: Sequence[int]
) -> tuple[dict[str, NDArray[Any]], list[_Step], set[str]]:
    """Tensors that do not depend on the image `given`, what is computed of it, and the tensors that are not learned.

    Sizes of values are known, from an image of `sides`, but for the number of rows, which is 0 in them: in ONNX, what
    keeps the size of its input.
    """
    import torch
    from onnx import helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    known = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    opset = max(item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
    shown: dict[str, Any] = {"": None, given: torch.empty(_SHOWN, *sides, device="meta")}
    steps: list[_Step] = []
    counted: set[str] = set()
    for node in model.graph.node:
        said = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        names, made = list(node.input), node.output[0]
        if node.op_type == "Shape" and names[0] in shown and shown[names[0]].shape[0] == _SHOWN:
            sizes = np.array([0, *shown[names[0]].shape[1:]], np.int64)
            known[made] = sizes[said.get("start", 0) : said.get("end", len(sizes))]
            continue
        if all(name in known for name in names if name) and not _by_rows(node, known):
            values = {name: known[name] for name in names if name}
            opsets = [helper.make_opsetid("", opset)]
            alone = helper.make_function("", "alone", [*values], [*node.output], [node], opsets)
            found = ReferenceEvaluator(alone).run(None, values, {})
            known |= {name: np.asarray(value) for name, value in zip(node.output, found, strict=True)}
            continue
        _check(node, said, known, file)
        if node.op_type == "BatchNormalization":  # whose means and variances are counted, not learned
            for at in (3, 4):
                own = f"{names[at]} of {made}"
                known[own], names[at] = known[names[at]], own
                counted.add(own)
        if node.op_type == "ConstantOfShape":  # rows as of the images
            names.append(given)
        steps.append((node.op_type, said, names, made))
        inputs = [shown[name] if name in shown else _shown(known[name]) for name in names]
        shown[made] = _OPERATORS[node.op_type](said, False, *inputs)
    return known, steps, counted


def _shown(values: NDArray[Any]) -> Any:
    """A tensor without its numbers, where it has some that are learned."""
    import torch

    return torch.empty(values.shape, device="meta") if _is_learned(values) else values.tolist()


def _is_learned(values: NDArray[Any]) -> bool:
    return values.dtype.kind == "f" and values.ndim > 0


def _check(node: Any, said: Mapping[str, Any], known: Mapping[str, Any], file: Path) -> None:
    """Refuse a node that is not known here."""
    from onnx import TensorProto

    kind, names = node.op_type, node.input
    other_type = kind == "Cast" and said["to"] != TensorProto.FLOAT
    if kind not in _OPERATORS or other_type or said.get("auto_pad", b"NOTSET") not in (b"NOTSET", b""):
        named = ", ".join(sorted(_OPERATORS))
        raise _bad(file, f"it has the operator {kind}, of those that cannot be trained; known: {named}")
    if kind == "BatchNormalization" and not {*names[3:5]} <= known.keys():
        raise _bad(file, "a batch norm of it computes its means")
    if any(names[at] and names[at] not in known for at in _SAID_BY_INPUTS.get(kind, ()) if at < len(names)):
        raise _bad(file, f"what its operator {kind} does depends on the image")


def _by_rows(node: Any, known: Mapping[str, NDArray[Any]]) -> bool:
    """Whether what a node makes of tensors that are known has as many rows as there are images, or is drawn."""
    return node.op_type.startswith("Random") or (node.op_type == "ConstantOfShape" and 0 in known[node.input[0]])


def _padded(said: dict[str, Any], values: Any, fill: float) -> tuple[Any, tuple[int, ...]]:
    """Values and the padding that is left to the operator: torch's have the same on both sides."""
    from torch.nn.functional import pad

    pads = list(said.get("pads", (0, 0, 0, 0)))
    if pads[:2] == pads[2:]:
        return values, tuple(pads[:2])
    return pad(values, (pads[1], pads[3], pads[0], pads[2]), value=fill), (0, 0)


def _conv(said: dict[str, Any], training: bool, values: Any, weight: Any, bias: Any = None) -> Any:
    from torch.nn.functional import conv2d

    values, pads = _padded(said, values, 0.0)
    strides, dilations = said.get("strides", (1, 1)), said.get("dilations", (1, 1))
    return conv2d(values, weight, bias, tuple(strides), pads, tuple(dilations), said.get("group", 1))


def _batch_norm(said: dict[str, Any], training: bool, values: Any, scale: Any, bias: Any, mean: Any, var: Any) -> Any:
    from torch.nn.functional import batch_norm

    kept = 1 - said.get("momentum", 0.9)
    return batch_norm(values, mean, var, scale, bias, training, kept, said.get("epsilon", 1e-5))


def _max_pool(said: dict[str, Any], training: bool, values: Any) -> Any:
    from torch.nn.functional import max_pool2d

    values, pads = _padded(said, values, float("-inf"))
    return max_pool2d(
        values, said["kernel_shape"], said.get("strides", (1, 1)), pads, ceil_mode=bool(said.get("ceil_mode", 0))
    )


def _mean_pool(said: dict[str, Any], training: bool, values: Any) -> Any:
    from torch.nn.functional import avg_pool2d

    values, pads = _padded(said, values, 0.0)
    include = bool(said.get("count_include_pad", 0))
    return avg_pool2d(values, said["kernel_shape"], said.get("strides", (1, 1)), pads, count_include_pad=include)


def _gemm(said: dict[str, Any], training: bool, values: Any, weight: Any, bias: Any = None) -> Any:
    values, weight = values.T if said.get("transA") else values, weight.T if said.get("transB") else weight
    found = said.get("alpha", 1.0) * (values @ weight)
    return found if bias is None else found + said.get("beta", 1.0) * bias


def _clip(said: dict[str, Any], training: bool, values: Any, low: Any = None, high: Any = None) -> Any:
    return values.clamp(said.get("min", low), said.get("max", high))


def _mean(said: dict[str, Any], training: bool, values: Any, axes: Any = None) -> Any:
    return values.mean(dim=tuple(said.get("axes", axes)), keepdim=bool(said.get("keepdims", 1)))


def _slice(
    said: dict[str, Any],
    training: bool,
    values: Any,
    starts: Any = None,
    ends: Any = None,
    axes: Any = None,
    by: Any = None,
) -> Any:
    """Inputs since version 10 of the operators, attributes before."""
    import torch

    starts, ends = said.get("starts", starts), said.get("ends", ends)
    axes = said.get("axes", axes) or range(len(starts))
    for start, end, axis, step in zip(starts, ends, axes, by or [1] * len(starts), strict=True):
        taken, size = slice(start, end, step), values.shape[axis]
        if step > 0:
            values = values[(slice(None),) * (axis % values.ndim) + (taken,)]
        else:
            values = values.index_select(axis, torch.arange(*taken.indices(int(size)), device=values.device))
    return values


def _pad(
    said: dict[str, Any], training: bool, values: Any, pads: Any = None, fill: Any = None, axes: Any = None
) -> Any:
    """Inputs since version 11 of the operators, attributes before."""
    from torch.nn.functional import pad

    pads, mode = said.get("pads", pads), said.get("mode", b"constant").decode()
    axes = [axis % values.ndim for axis in axes or range(len(pads) // 2)]
    sides = {axis: (pads[at], pads[at + len(axes)]) for at, axis in enumerate(axes)}
    if mode == "constant":
        around = [one for axis in reversed(range(values.ndim)) for one in sides.get(axis, (0, 0))]
        return pad(values, around, value=said.get("value", fill) or 0.0)
    if any(any(sides.get(axis, ())) for axis in (0, 1)):
        raise ValueError(f"its padding by {mode} goes beyond rows and columns")
    around = [one for axis in (3, 2) for one in sides.get(axis, (0, 0))]
    return pad(values, around, mode={"reflect": "reflect", "edge": "replicate", "wrap": "circular"}[mode])


def _reshape(said: dict[str, Any], training: bool, values: Any, shape: Any) -> Any:
    kept = [values.shape[at] if size == 0 else size for at, size in enumerate(shape[1:], 1)]
    return values.reshape(values.shape[0], *kept)


def _constant(said: dict[str, Any], training: bool, shape: Any, pixels: Any) -> Any:
    from onnx import numpy_helper

    fill = float(numpy_helper.to_array(said["value"]).ravel()[0]) if "value" in said else 0.0
    return pixels.new_full((pixels.shape[0], *shape[1:]), fill)


def _unsqueeze(values: Any, axes: Any) -> Any:
    for axis in sorted(axis % (values.ndim + len(axes)) for axis in axes):
        values = values.unsqueeze(axis)
    return values


def _concat(said: dict[str, Any], training: bool, *values: Any) -> Any:
    import torch

    return torch.cat(values, dim=said["axis"])


_SAID_BY_INPUTS = {  # inputs that say how, and are no values of images
    "Slice": (1, 2, 3, 4), "Pad": (1, 2, 3), "ConstantOfShape": (0,), "Reshape": (1,),
    "Squeeze": (1,), "Unsqueeze": (1,), "ReduceMean": (1,),
    "Clip": (1, 2),
}  # fmt: skip

_OPERATORS: dict[str, Callable[..., Any]] = {
    "Conv": _conv,
    "BatchNormalization": _batch_norm,
    "MaxPool": _max_pool,
    "AveragePool": _mean_pool,
    "Gemm": _gemm,
    "Clip": _clip,
    "ReduceMean": _mean,
    "GlobalAveragePool": lambda said, training, values: values.mean(dim=(2, 3), keepdim=True),
    "Relu": lambda said, training, values: values.relu(),
    "Sigmoid": lambda said, training, values: values.sigmoid(),
    "HardSigmoid": lambda said, training, values: (said.get("alpha", 0.2) * values + said.get("beta", 0.5)).clamp(0, 1),
    "HardSwish": lambda said, training, values: values * (values / 6 + 0.5).clamp(0, 1),
    "Add": lambda said, training, one, other: one + other,
    "Sub": lambda said, training, one, other: one - other,
    "Mul": lambda said, training, one, other: one * other,
    "Div": lambda said, training, one, other: one / other,
    "MatMul": lambda said, training, one, other: one @ other,
    "Flatten": lambda said, training, values: values.flatten(said.get("axis", 1)),
    "Reshape": _reshape,
    "ConstantOfShape": _constant,
    "Squeeze": lambda said, training, values, axes=None: values.squeeze(tuple(said.get("axes", axes))),
    "Unsqueeze": lambda said, training, values, axes=None: _unsqueeze(values, said.get("axes", axes)),
    "Transpose": lambda said, training, values: values.permute(said.get("perm", tuple(range(values.ndim))[::-1])),
    "Slice": _slice,
    "Pad": _pad,
    "Concat": _concat,
    "Identity": lambda said, training, values: values,
    "Cast": lambda said, training, values: values,  # to float32, which all values are
    "Dropout": lambda said, training, values, *rest: values,
}


def _bad(place: Path, detail: str) -> PlatformError:
    return PlatformError(
        f"a graph that cannot be trained: {place}",
        detail=detail,
        fix="give a folder with config.json and model.safetensors, or --recipe linear_probe",
        code="bad_weights",
    )
