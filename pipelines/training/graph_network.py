"""A graph of ONNX as a network of torch, so that it goes on learning; of the operators that networks of images have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError

if TYPE_CHECKING:
    from contracts.images import ImageSpec


def graph_network(file: Path, features: str, spec: ImageSpec, classes: int) -> Any:
    """The features of a graph, see `pipelines.training.image_backbone.read_graph`, and a new linear layer on them.

    ``body`` are the layers of the graph, ``head`` the new one; all of its weights can be trained.

    Raises:
        PlatformError: ``code="bad_weights"``: it has an operator that is not known here, or other pixels.
    """
    import torch
    from torch import nn

    from pipelines.training.image_backbone import read_graph

    body = _body(read_graph(file, features, spec), file)
    try:
        with torch.no_grad():
            width = int(body.eval()(torch.zeros(2, len(spec.mode), spec.height, spec.width)).shape[1])
    except (RuntimeError, ValueError, TypeError, IndexError) as err:
        raise _bad(file, f"it does not take images of {spec.width}x{spec.height}: {str(err)[:200]}") from err

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = body, nn.Linear(width, classes)

        def forward(self, pixels: Any) -> Any:
            return self.head(self.body(pixels))

    return Network()


def _body(model: Any, file: Path) -> Any:
    import torch
    from onnx import TensorProto, helper, numpy_helper
    from torch import nn

    graph = model.graph
    weights = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    steps: list[tuple[str, dict[str, Any], list[str], str]] = []
    counted: set[str] = set()
    for node in graph.node:
        said = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        if node.op_type == "Constant" and "value" in said:
            weights[node.output[0]] = numpy_helper.to_array(said["value"])
            continue
        if node.op_type == "Identity" and node.input[0] in weights:  # of tensors that are equal one is kept
            weights[node.output[0]] = weights[node.input[0]]
            continue
        to_float = node.op_type == "Cast" and said["to"] == TensorProto.FLOAT
        if (
            node.op_type not in _OPERATORS
            or (node.op_type == "Cast" and not to_float)
            or said.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"")
        ):
            known = ", ".join(sorted(_OPERATORS))
            raise _bad(file, f"it has the operator {node.op_type}, of those that cannot be trained; known: {known}")
        names = list(node.input)
        if node.op_type == "BatchNormalization":  # whose means and variances are counted, not learned
            for at in (3, 4):
                if names[at] not in weights:
                    raise _bad(file, "a batch norm of it computes its means")
                own = f"{names[at]} of {node.output[0]}"
                weights[own], names[at] = weights[names[at]], own
                counted.add(own)
        steps.append((node.op_type, said, names, node.output[0]))
    [given] = [item.name for item in graph.input if item.name not in {one.name for one in graph.initializer}]
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
                if values.dtype.kind != "f" or values.ndim == 0:
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


def _concat(said: dict[str, Any], training: bool, *values: Any) -> Any:
    import torch

    return torch.cat(values, dim=said["axis"])


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
    "Reshape": lambda said, training, values, shape: values.reshape(values.shape[0], *shape[1:]),
    "Squeeze": lambda said, training, values, axes=None: values.squeeze(tuple(said.get("axes", axes))),
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
