"""A linear chain of tags over hashed features, in numpy, and its graph in ONNX.

J. Lafferty, A. McCallum, F. Pereira, Conditional Random Fields, 2001; steps by J. Duchi, E. Hazan, Y. Singer, Adaptive
Subgradient Methods, 2011. The score of a tag at a token is the sum of what each of the token's hashes has for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from contracts.tagging import possible

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from contracts.token_hashes import WordList

_FIRST = 0.1  # of the sums of squares: the first steps are at most the rate
_LEARNED = 1e-3  # a token whose chances are all this near to the truth changes nothing


class Expected(NamedTuple):
    """Of `expected`: chances of each tag, shape (rows, tokens, tags); how often one tag (row) is expected behind
    another (column), shape (tags, tags); and the sum of the logs of what the paths of each row weigh."""

    chances: NDArray[np.float64]
    pairs: NDArray[np.float64]
    total: float


class LinearCrf:
    """Weights, float32, shape (size, tags), of which row 0 stays zero; and moves, float64, shape (tags, tags)."""

    def __init__(self, size: int, tags: int) -> None:
        self.weights = np.zeros((size, tags), np.float32)
        self.squares = np.full((size, tags), _FIRST, np.float32)
        self.moves = np.zeros((tags, tags))
        self.move_squares = np.ones((tags, tags))

    def kept(self, whole: bool = False) -> dict[str, NDArray[Any]]:
        """Copies of what it answers with, and where `whole` of what it goes on learning with."""
        names = ["weights", "moves", *(["squares", "move_squares"] if whole else [])]
        return {name: getattr(self, name).copy() for name in names}

    def restore(self, found: Mapping[str, NDArray[Any]]) -> None:
        """What `kept` gave."""
        for name, value in found.items():
            setattr(self, name, value.copy())

    def scores(self, ids: NDArray[np.int64]) -> NDArray[np.float64]:
        """Shape (..., tags), of ids of shape (..., hashes)."""
        found = np.zeros((*ids.shape[:-1], self.weights.shape[1]))
        for column in range(ids.shape[-1]):
            found += self.weights[ids[..., column]]
        return found

    def step(
        self, ids: NDArray[np.int64], lengths: NDArray[np.int64], tags: NDArray[np.int64], rate: float
    ) -> tuple[float, int]:
        """Go one step up the likelihood of `tags`, and tell minus its logarithm as it was, summed over the rows, and of
        how many tokens it is.

        Args:
            ids: shape (rows, tokens, hashes), 0 where there is none.  tags: shape (rows, tokens), -100 behind a text.
        """
        scores, real, known = self.scores(ids), tags >= 0, tags.clip(min=0)
        found = expected(scores, self.moves, np.where(real.any(axis=1), lengths, 0))
        before = np.concatenate([np.zeros_like(known[:, :1]), known[:, :-1]], axis=1)
        paths = np.take_along_axis(scores, known[:, :, None], axis=2)[:, :, 0] + self.moves[before, known]
        wrong = found.chances
        wrong[(*np.nonzero(real), known[real])] -= 1
        moves = found.pairs
        np.subtract.at(moves, (before[real], known[real]), 1)
        self.move_squares += moves**2
        self.moves -= rate * moves / np.sqrt(self.move_squares)
        self._learn(ids, wrong, rate)
        return found.total - float(paths[real].sum()), int(real.sum())

    def _learn(self, ids: NDArray[np.int64], wrong: NDArray[np.float64], rate: float) -> None:
        rows = np.flatnonzero(np.abs(wrong).max(axis=2) > _LEARNED)
        if not len(rows):
            return
        slopes = wrong.reshape(-1, wrong.shape[2])[rows].astype(np.float32)
        flat = ids.reshape(-1, ids.shape[2])[rows].ravel()
        order = np.argsort(flat, kind="stable")
        flat = flat[order]
        starts = np.flatnonzero(np.diff(flat, prepend=-1))
        sums, touched = np.add.reduceat(slopes[order // ids.shape[2]], starts, axis=0), flat[starts]
        sums, touched = sums[touched > 0], touched[touched > 0]
        self.squares[touched] += sums**2
        self.weights[touched] -= rate * sums / np.sqrt(self.squares[touched])


def expected(scores: NDArray[np.float64], moves: NDArray[np.float64], lengths: NDArray[np.int64]) -> Expected:
    """Sums over all paths that can be, which begin as if behind an O, by the forward-backward algorithm.

    Args:
        scores: shape (rows, tokens, tags).  lengths: tokens of each row; what is behind them is left out.
    """
    count = scores.shape[1]
    inside = np.arange(count) < lengths[:, None]
    highest = scores.max(axis=2, keepdims=True)
    weight = np.exp(scores - highest)
    ways = np.where(possible(len(moves)), np.exp(moves), 0.0)
    forth, sums = np.empty_like(weight), np.empty(inside.shape)
    for at in range(count):
        reached = (forth[:, at - 1] @ ways if at else ways[0]) * weight[:, at]
        sums[:, at] = reached.sum(axis=1)
        forth[:, at] = reached / sums[:, at, None]
    back = np.ones_like(weight)
    for at in range(count - 2, -1, -1):
        behind = (back[:, at + 1] * weight[:, at + 1]) @ ways.T / sums[:, at + 1, None]
        back[:, at] = np.where(inside[:, at + 1, None], behind, 1.0)
    chances = forth * back * inside[:, :, None]
    later = back[:, 1:] * weight[:, 1:] / sums[:, 1:, None] * inside[:, 1:, None]
    pairs = ways * (forth[:, :-1].reshape(-1, len(moves)).T @ later.reshape(-1, len(moves)))
    pairs[0] += chances[:, 0].sum(axis=0)
    return Expected(chances, pairs, float((np.log(sums) + highest[:, :, 0])[inside].sum()))


def write_crf_graph(path: Path, weights: NDArray[np.float32], words: WordList | None = None, around: int = 1) -> None:
    """The scores of `LinearCrf` as `contracts.engines.tagger` executes them; weights in half precision."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from contracts.token_hashes import width
    from pipelines.training.onnx_text import IR_VERSION, OPSET

    nodes = [
        helper.make_node("Gather", ["weights", "ids"], ["rows"], axis=0),
        helper.make_node("Cast", ["rows"], ["full"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["full", "axis"], ["logits"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "crf",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["rows", "tokens", width(words, around)])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", "tokens", weights.shape[1]])],
        [
            numpy_helper.from_array(weights.astype(np.float16), "weights"),
            numpy_helper.from_array(np.array([2], np.int64), "axis"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
