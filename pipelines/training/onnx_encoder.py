"""ONNX graphs around a sentence encoder: token ids to one vector, and to the classes of a linear model beside terms."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from contracts.errors import PlatformError
from pipelines.training.onnx_text import term_nodes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PREFIX = "encoder/"
_FED = {"input_ids": "short", "attention_mask": "mask", "token_type_ids": "kinds"}


def vector_graph(encoder: Any, pad_id: int, pooling: Literal["mean", "first"], max_tokens: int) -> Any:
    """A model with input ``ids`` (rows, tokens) and output ``vector`` (rows, width), of length one.

    Args:
        encoder: an onnx.ModelProto with the inputs of a BERT and ``last_hidden_state`` or a vector as its first output.

    Raises:
        PlatformError: ``code="bad_encoder"``: it has other inputs, or an operator set before 13.
    """
    import numpy as np
    from onnx import TensorProto, compose, helper

    model = compose.add_prefix(encoder, _PREFIX)
    graph = model.graph
    given = {item.name.removeprefix(_PREFIX): item.name for item in graph.input}
    if unknown := set(given) - set(_FED):
        raise _bad(f"its graph has an input {sorted(unknown)[0]}; known are {', '.join(_FED)}")
    if next(item.version for item in model.opset_import if not item.domain) < 13:
        raise _bad("its operator set is older than 13: export it again")
    hidden = graph.output[0]
    node = helper.make_node
    before = [
        node("Slice", ["ids", "from", "to", "axis_1"], ["short"]),
        node("Equal", ["short", "pad"], ["is_pad"]),
        node("Not", ["is_pad"], ["real"]),
        node("Cast", ["real"], ["mask"], to=TensorProto.INT64),
        node("Sub", ["mask", "mask"], ["kinds"]),
        *(node("Identity", [_FED[name]], [inside]) for name, inside in given.items()),
    ]
    pooled = _pooling(hidden, pooling)
    after = [
        *pooled,
        *_length(node, "pooled", "vector_length"),
        node("Div", ["pooled", "vector_length"], ["vector"]),
    ]
    constants = {
        "from": np.array([0], np.int64),
        "to": np.array([max_tokens], np.int64),
        "pad": np.array([pad_id], np.int64),
        "axis_1": np.array([1], np.int64),
        "axis_2": np.array([2], np.int64),
        "tiny": np.full(1, 1e-12, np.float32),
        "one": np.ones(1, np.float32),
        "nothing": np.zeros(1, np.float32),
    }
    width = hidden.type.tensor_type.shape.dim[-1].dim_value or "width"
    _rebuild(graph, [*before, *graph.node, *after], constants, {"vector": width})
    return model


def write_encoder_graph(
    path: Path,
    vectors: Path,
    *,
    terms: NDArray[np.int32],
    idf: NDArray[np.float64],
    weights: NDArray[np.float64],
    bias: NDArray[np.float64],
) -> None:
    """Terms and vector side by side into a softmax of linear scores: ``ids`` to ``probabilities``, and ``vector``.

    Args:
        vectors: the file of a `vector_graph`.
        weights: shape (terms + width, classes); the others as in `onnx_text.write_linear_graph`.
    """
    import numpy as np
    import onnx
    from onnx import helper

    model = onnx.load(str(vectors))
    nodes, constants = term_nodes(terms, idf)
    node = helper.make_node
    nodes += [
        # ReduceL2 takes its axis in another way before operator set 18.
        *_length(node, "raw", "terms_length"),
        node("Div", ["raw", "terms_length"], ["tfidf"]),
        node("Concat", ["tfidf", "vector"], ["features"], axis=1),
        node("Gemm", ["features", "weights", "bias"], ["scores"]),
        node("Softmax", ["scores"], ["probabilities"], axis=1),
    ]
    constants |= {
        "axis_1": np.array([1], np.int64),
        "weights": weights.astype(np.float32),
        "bias": bias.astype(np.float32),
    }
    outputs = {"probabilities": weights.shape[1], "vector": weights.shape[0] - len(terms)}
    _rebuild(model.graph, [*model.graph.node, *nodes], constants, outputs)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


def write_embedding_graph(path: Path, vectors: Path) -> int:
    """The graph of a `vector_graph` with its vector as output ``embedding``; returns the width."""
    import onnx
    from onnx import helper

    model = onnx.load(str(vectors))
    width: int = model.graph.output[0].type.tensor_type.shape.dim[-1].dim_value
    nodes = [*model.graph.node, helper.make_node("Identity", ["vector"], ["embedding"])]
    _rebuild(model.graph, nodes, {}, {"embedding": width})
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return width


def _pooling(hidden: Any, pooling: str) -> list[Any]:
    from onnx import TensorProto, helper

    node = helper.make_node
    if len(hidden.type.tensor_type.shape.dim) == 2:  # it pools already
        return [node("Identity", [hidden.name], ["pooled"])]
    if pooling == "first":
        return [
            node("Slice", [hidden.name, "from", "axis_1", "axis_1"], ["first"]),
            node("Squeeze", ["first", "axis_1"], ["pooled"]),
        ]
    return [
        node("Unsqueeze", ["real", "axis_2"], ["inside"]),
        node("Where", ["inside", hidden.name, "nothing"], ["addends"]),
        node("ReduceSum", ["addends", "axis_1"], ["vector_sum"], keepdims=0),
        node("Cast", ["real"], ["mask_float"], to=TensorProto.FLOAT),
        node("ReduceSum", ["mask_float", "axis_1"], ["real_count"], keepdims=1),
        node("Max", ["real_count", "one"], ["tokens"]),
        node("Div", ["vector_sum", "tokens"], ["pooled"]),
    ]


def _length(node: Any, values: str, length: str) -> list[Any]:
    """The Euclidean length of each row of `values`, never zero."""
    return [
        node("Mul", [values, values], [f"{values}_squared"]),
        node("ReduceSum", [f"{values}_squared", "axis_1"], [f"{values}_sum"], keepdims=1),
        node("Sqrt", [f"{values}_sum"], [f"{values}_size"]),
        node("Max", [f"{values}_size", "tiny"], [length]),
    ]


def _rebuild(graph: Any, nodes: list[Any], constants: dict[str, Any], outputs: dict[str, Any]) -> None:
    """Give `graph` these nodes and outputs, the constants beside its own, and ``ids`` as its input."""
    from onnx import TensorProto, helper, numpy_helper

    copied = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend(copied)
    graph.initializer.extend(
        numpy_helper.from_array(value, name)
        for name, value in constants.items()
        if name not in {item.name for item in graph.initializer}
    )
    graph.input.append(helper.make_tensor_value_info("ids", TensorProto.INT64, ["rows", "tokens"]))
    for name, size in outputs.items():
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", size]))


def _bad(detail: str) -> PlatformError:
    return PlatformError(
        "no usable encoder",
        detail=detail,
        fix="export the encoder again, or give its model.safetensors",
        code="bad_encoder",
    )
