"""ONNX graphs from token ids to probabilities, built by hand so that no exporter is needed.

Every graph has the input ``ids`` (int64, shape (rows, tokens), padded on the right with id 0) and the output
``probabilities`` (float32, shape (rows, classes)).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

OPSET, IR_VERSION = 18, 9


def write_linear_graph(
    path: Path,
    *,
    terms: NDArray[np.int32],
    idf: NDArray[np.float64],
    weights: NDArray[np.float64],
    bias: NDArray[np.float64],
) -> None:
    """Sublinear TF-IDF of n-grams, scaled to length one, and a softmax of linear scores.

    Args:
        terms: as in `NgramVocabulary`.  idf: shape (terms,).  weights: shape (terms, classes).  bias: shape (classes,).

    A second output, ``contributions`` (rows, terms), has what each term adds to the score of the likeliest class.
    """
    import numpy as np
    from onnx import helper

    node = helper.make_node
    nodes, constants = tfidf_nodes(terms, idf)
    nodes += [
        node("Gemm", ["tfidf", "weights", "bias"], ["scores"]),
        node("Softmax", ["scores"], ["probabilities"], axis=1),
        node("ArgMax", ["scores"], ["likeliest"], axis=1, keepdims=0),
        node("Transpose", ["weights"], ["by_class"], perm=[1, 0]),
        node("Gather", ["by_class", "likeliest"], ["chosen"], axis=0),
        node("Mul", ["tfidf", "chosen"], ["contributions"]),
    ]
    constants |= {"weights": weights.astype(np.float32), "bias": bias.astype(np.float32)}
    write_graph(path, nodes, constants, {"probabilities": weights.shape[1], "contributions": len(terms)})


def tfidf_nodes(terms: NDArray[np.int32], idf: NDArray[np.float64]) -> tuple[list[Any], dict[str, Any]]:
    """Nodes and constants from ``ids`` to ``tfidf`` (rows, terms), of length one; zero without a known term."""
    import numpy as np
    from onnx import helper

    node = helper.make_node
    nodes, constants = term_nodes(terms, idf)
    nodes += [
        node("ReduceL2", ["raw", "last"], ["norm"], keepdims=1),
        node("Max", ["norm", "tiny"], ["length"]),
        node("Div", ["raw", "length"], ["tfidf"]),
    ]
    return nodes, constants | {"last": np.array([1], np.int64)}


def term_nodes(terms: NDArray[np.int32], idf: NDArray[np.float64]) -> tuple[list[Any], dict[str, Any]]:
    """Nodes and constants from ``ids`` to ``raw`` (rows, terms): sublinear TF-IDF that is not scaled yet."""
    import numpy as np
    from onnx import helper

    longest, lengths = terms.shape[1], (terms >= 0).sum(axis=1)
    node = helper.make_node
    count = node(
        "TfIdfVectorizer",
        ["ids"],
        ["count"],
        mode="TF",
        min_gram_length=1,
        max_gram_length=longest,
        max_skip_count=0,
        pool_int64s=terms[terms >= 0].tolist(),
        ngram_counts=[int(((lengths < n) * lengths).sum()) for n in range(1, longest + 1)],
        ngram_indexes=list(range(len(terms))),
    )
    nodes = [
        count,
        node("Max", ["count", "one"], ["at_least_one"]),
        node("Log", ["at_least_one"], ["log"]),
        node("Min", ["count", "one"], ["present"]),
        node("Add", ["log", "present"], ["tf"]),
        node("Mul", ["tf", "idf"], ["raw"]),
    ]
    constants = {"one": np.ones(1, np.float32), "tiny": np.full(1, 1e-12, np.float32), "idf": idf.astype(np.float32)}
    return nodes, constants


def write_lstm_graph(path: Path, tensors: Mapping[str, NDArray[np.float32]]) -> None:
    """Embedding, a (bi)directional LSTM, maximum and mean of its states and of the vectors, linear layer, softmax.

    Args:
        tensors: a torch state_dict with ``embedding.weight``, ``lstm.*_l0``, ``lstm_reverse.*_l0`` (if bidirectional),
            ``head.*``.
    """
    import numpy as np
    from onnx import helper

    directions = ["lstm", "lstm_reverse"] if "lstm_reverse.weight_ih_l0" in tensors else ["lstm"]
    hidden = tensors["lstm.weight_hh_l0"].shape[1]
    node = helper.make_node
    nodes = [
        node("Equal", ["ids", "pad"], ["is_pad"]),
        node("Not", ["is_pad"], ["real"]),
        node("Cast", ["real"], ["real_int"], to=6),  # int32
        node("ReduceSum", ["real_int", "axis_1"], ["tokens"], keepdims=0),
        node("Max", ["tokens", "one_int"], ["length"]),  # an empty text is one padding token
        node("Gather", ["embedding", "ids"], ["vectors"], axis=0),
        node("Transpose", ["vectors"], ["sequence"], perm=[1, 0, 2]),
        node(
            "LSTM",
            ["sequence", "w", "r", "b", "length"],
            ["states"],
            hidden_size=hidden,
            direction="bidirectional" if len(directions) == 2 else "forward",
        ),  # states: (tokens, directions, rows, hidden), zero past the end of a row
        node("Transpose", ["states"], ["by_row"], perm=[2, 0, 1, 3]),
        node("Reshape", ["by_row", "merge"], ["merged"]),
        node("Concat", ["merged", "vectors"], ["features"], axis=2),
        *_pooling(node),
        node("Gemm", ["pooled", "head_weight", "head_bias"], ["scores"], transB=1),
        node("Softmax", ["scores"], ["probabilities"], axis=1),
    ]
    constants = {
        "pad": np.array([0], np.int64),
        "axis_1": np.array([1], np.int64),
        "axis_2": np.array([2], np.int64),
        "zero": np.array(0, np.int32),
        "one": np.array(1, np.int32),
        "one_int": np.array([1], np.int32),
        "nothing": np.array([0], np.float32),
        "lowest": np.array([-1e9], np.float32),
        "merge": np.array([0, 0, hidden * len(directions)], np.int64),
        "embedding": tensors["embedding.weight"],
        "w": np.stack([gates(tensors[f"{name}.weight_ih_l0"]) for name in directions]),
        "r": np.stack([gates(tensors[f"{name}.weight_hh_l0"]) for name in directions]),
        "b": np.stack(
            [np.concatenate([gates(tensors[f"{name}.bias_{part}_l0"]) for part in ("ih", "hh")]) for name in directions]
        ),
        "head_weight": tensors["head.weight"],
        "head_bias": tensors["head.bias"],
    }
    write_graph(path, nodes, constants, {"probabilities": len(tensors["head.bias"])})


def _pooling(node: Any) -> list[Any]:
    """``features`` (rows, tokens, size) -> ``pooled`` (rows, 2 size), over the first `length` tokens."""
    return [
        node("Shape", ["ids"], ["width"], start=1, end=2),
        node("Squeeze", ["width"], ["width_0"]),
        node("Cast", ["width_0"], ["width_int"], to=6),
        node("Range", ["zero", "width_int", "one"], ["places"]),
        node("Unsqueeze", ["length", "axis_1"], ["length_column"]),
        node("Less", ["places", "length_column"], ["inside_2d"]),
        node("Unsqueeze", ["inside_2d", "axis_2"], ["inside"]),
        node("Where", ["inside", "features", "lowest"], ["candidates"]),
        node("ReduceMax", ["candidates", "axis_1"], ["maximum"], keepdims=0),
        node("Where", ["inside", "features", "nothing"], ["addends"]),
        node("ReduceSum", ["addends", "axis_1"], ["sum"], keepdims=0),
        node("Cast", ["length_column"], ["length_float"], to=1),
        node("Div", ["sum", "length_float"], ["mean"]),
        node("Concat", ["maximum", "mean"], ["pooled"], axis=1),
    ]


def gates(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """torch orders the gates input, forget, cell, output; ONNX input, output, forget, cell."""
    import numpy as np

    i, f, c, o = np.split(np.asarray(weights, np.float32), 4)
    return np.concatenate([i, o, f, c])


def write_graph(path: Path, nodes: list[Any], constants: Mapping[str, Any], outputs: Mapping[str, int]) -> None:
    """Write a model from ``ids`` to `outputs`, by name with their width, float32."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        nodes,
        "text",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["rows", "tokens"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", size]) for name, size in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
