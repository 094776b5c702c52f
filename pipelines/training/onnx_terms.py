"""ONNX graphs of models that are linear in the terms of a text: labels, a number with its interval, a vector."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.training.onnx_text import tfidf_nodes, write_graph

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipelines.training.text_numbers import NumberModel


@dataclass(frozen=True, kw_only=True)
class WeighedTerms:
    """terms: as in `NgramVocabulary`.  idf: shape (terms,)."""

    terms: NDArray[np.int32]
    idf: NDArray[np.float64]


def write_labels_graph(
    path: Path, given: WeighedTerms, weights: NDArray[np.float64], bias: NDArray[np.float64]
) -> None:
    """A probability for each label: ``probabilities``; weights: shape (terms, labels).

    ``contributions`` (rows, terms) has what each term adds to the score of the likeliest label.
    """
    import numpy as np
    from onnx import helper

    node = helper.make_node
    nodes, constants = tfidf_nodes(given.terms, given.idf)
    nodes += [
        node("Gemm", ["tfidf", "weights", "bias"], ["scores"]),
        node("Sigmoid", ["scores"], ["probabilities"]),
        node("ArgMax", ["scores"], ["likeliest"], axis=1, keepdims=0),
        node("Transpose", ["weights"], ["by_label"], perm=[1, 0]),
        node("Gather", ["by_label", "likeliest"], ["chosen"], axis=0),
        node("Mul", ["tfidf", "chosen"], ["contributions"]),
    ]
    constants |= {"weights": weights.astype(np.float32), "bias": bias.astype(np.float32)}
    write_graph(path, nodes, constants, {"probabilities": weights.shape[1], "contributions": len(given.terms)})


def write_number_graph(path: Path, given: WeighedTerms, model: NumberModel) -> None:
    """``value``, and with a margin ``low`` and ``high``; ``contributions`` has what each term adds to the value."""
    import numpy as np
    from onnx import helper

    node = helper.make_node
    nodes, constants = tfidf_nodes(given.terms, given.idf)
    nodes += [
        node("Gemm", ["tfidf", "weights", "bias"], ["value"]),
        node("Mul", ["tfidf", "by_value"], ["contributions"]),
    ]
    constants |= {
        "weights": model.weights[:, None].astype(np.float32),
        "bias": np.array([model.bias], np.float32),
        "by_value": model.weights[None, :].astype(np.float32),
    }
    outputs = {"value": 1, "contributions": len(given.terms)}
    if (spread := model.spread) is not None:
        nodes += [
            node("Gemm", ["tfidf", "spread_weights", "spread_bias"], ["spread"]),
            node("Clip", ["spread", "least", "most"], ["usual_spread"]),
            node("Exp", ["usual_spread"], ["scale"]),
            node("Mul", ["scale", "margin"], ["half"]),
            node("Sub", ["value", "half"], ["low"]),
            node("Add", ["value", "half"], ["high"]),
        ]
        constants |= {
            "spread_weights": spread.weights[:, None].astype(np.float32),
            "spread_bias": np.array([spread.bias], np.float32),
            "least": np.array(spread.least, np.float32),
            "most": np.array(spread.most, np.float32),
            "margin": np.array([spread.margin], np.float32),
        }
        outputs |= {"low": 1, "high": 1}
    write_graph(path, nodes, constants, outputs)


def write_vector_graph(path: Path, given: WeighedTerms, directions: NDArray[np.float64]) -> None:
    """``embedding``, of length one: the text along each of `directions`, shape (terms, dimensions).

    A text without a known term lies along all of them alike.
    """
    import numpy as np
    from onnx import TensorProto, helper

    node = helper.make_node
    nodes, constants = tfidf_nodes(given.terms, given.idf)
    nodes += [
        node("MatMul", ["tfidf", "directions"], ["along"]),
        node("ReduceL2", ["along", "last"], ["size"], keepdims=1),
        node("Less", ["size", "least"], ["is_nothing"]),
        node("Cast", ["is_nothing"], ["nothing"], to=TensorProto.FLOAT),
        node("Add", ["along", "nothing"], ["something"]),
        node("ReduceL2", ["something", "last"], ["whole"], keepdims=1),
        node("Div", ["something", "whole"], ["embedding"]),
    ]
    constants |= {"directions": directions.astype(np.float32), "least": np.full(1, 1e-6, np.float32)}
    write_graph(path, nodes, constants, {"embedding": directions.shape[1]})
