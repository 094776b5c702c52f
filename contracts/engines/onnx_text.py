"""Text models as an ONNX graph.

The files of ``model/`` beside those of `contracts.text_engine`: ``model.onnx`` (input ``ids``: int64, shape (rows,
tokens), padded on the right; outputs: `graph_outputs`, and `VECTOR` where it has an encoder) and, when the graph is
linear in its terms, ``terms.npy`` (int32, shape (terms, longest n-gram): the token ids of each term, padded by -1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from contracts.engine import VECTOR, EngineOptions, EngineSpec, Reason, onnx_providers, side_by_side
from contracts.errors import PlatformError
from contracts.text_engine import TextEngine

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from contracts.bundle import Bundle


class OnnxTextEngine(TextEngine):
    """An ONNX graph. Results do not depend on the other rows of a call, unless its weights are int8.

    A graph with int8 weights takes the scale of its activations from all rows of a run.

    Attributes:
        has_vector: see `contracts.engine.VectorEngine`.
    """

    def __init__(self, bundle: Bundle, threads: int) -> None:
        import onnxruntime as ort

        super().__init__(bundle)
        folder = bundle.model_path
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = onnx_providers(ort.get_available_providers())
        self._session = ort.InferenceSession(str(folder / "model.onnx"), options, providers=providers)
        self._only_needed = ort.RunOptions()
        self._only_needed.only_execute_path_to_fetches = True  # explanations cost nothing when not asked for
        self.has_vector = VECTOR in {one.name for one in self._session.get_outputs()}
        # Read now: what lies on the disk later may be another model.
        terms = folder / "terms.npy"
        self._terms: NDArray[np.int32] | None = np.load(terms, allow_pickle=False) if terms.exists() else None

    def vector(self, row: Sequence[int]) -> NDArray[np.float64]:
        """The encoder's vector of one text's token ids."""
        found: NDArray[np.float64] = self._output([VECTOR], [row])[0]
        return found

    def _run(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        return self._output(self._names, rows)

    def _output(self, names: Sequence[str], rows: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        found = self._session.run(names, {"ids": self._pad(rows)}, self._only_needed)
        return side_by_side([np.asarray(one, np.float64) for one in found], len(rows))

    def _explain(self, text: str, top: int) -> list[Reason]:
        if self._spec.explain != "terms":
            return self._explain_by_occlusion(text, top)
        contributions = self._output(["contributions"], [self._tokenise(text)])[0]
        if self._terms is None:
            raise PlatformError("this model gives no reasons", detail="terms.npy is missing", code="not_explainable")
        present = np.flatnonzero(contributions)
        order = present[np.argsort(-np.abs(contributions[present]), kind="stable")][:top]
        return [
            Reason(feature=self._term(self._terms[at]), value=None, contribution=float(contributions[at]))
            for at in order
        ]

    def _term(self, ids: NDArray[np.int32]) -> str:
        words = [self._tokenizer.id_to_token(int(i)) or "" for i in ids if i >= 0]
        chinese = all(not word.isascii() for word in words)
        return ("" if chinese else self._spec.separator).join(words)


def load(bundle: Bundle, options: EngineOptions) -> OnnxTextEngine:
    """See `contracts.engines.load_engine`."""
    return OnnxTextEngine(bundle, options.threads)


ENGINE = EngineSpec(name="onnx", modality="text", extra="services", batch_rows=64, load=load)
