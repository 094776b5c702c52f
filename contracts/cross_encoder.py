"""A cross-encoder in ONNX: it reads a question and a passage together, and says how well the passage answers it.

R. Nogueira, K. Cho: Passage re-ranking with BERT, 2019. Beside an index stand ``reranker.onnx``, with the inputs of a
BERT (``input_ids``, perhaps ``attention_mask`` and ``token_type_ids``) and scores as its first output, one for each
pair, or two, of which the last is that it answers; and ``reranker.tokenizer.json``, which joins two texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from contracts.document import Document

GRAPH, TOKENIZER = "reranker.onnx", "reranker.tokenizer.json"
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class RerankerSpec(Document):
    """max_tokens: that are read of question and passage together; of a longer pair the longer text is cut."""

    max_tokens: int = Field(512, ge=8)


class CrossEncoder:
    """See the module; each pair is read alone, so that its score does not depend on the others.

    Raises:
        OSError, ValueError: a file is missing, or the graph has inputs or outputs of another kind.
    """

    def __init__(self, folder: Path, spec: RerankerSpec, threads: int = 1) -> None:
        import onnxruntime
        from tokenizers import Tokenizer

        from contracts.engine import onnx_providers

        for name in (GRAPH, TOKENIZER):
            if not (folder / name).exists():
                raise FileNotFoundError(f"{name} is missing, which orders passages")
        try:
            self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            providers = onnx_providers(onnxruntime.get_available_providers())
            self._session = onnxruntime.InferenceSession(str(folder / GRAPH), options, providers=providers)
        except Exception as err:  # both raise classes of their own
            raise ValueError(f"the reranker cannot be opened: {str(err).splitlines()[0]}") from err
        self._inputs = [item.name for item in self._session.get_inputs()]
        if unknown := [name for name in self._inputs if name not in _INPUTS]:
            raise ValueError(f"the reranker has an input {unknown[0]}; known are {', '.join(_INPUTS)}")
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(spec.max_tokens, strategy="longest_first")

    def scores(self, question: str, passages: Sequence[str]) -> NDArray[np.float64]:
        """How well each passage answers, shape (passages,); higher is better.

        Raises:
            ValueError: the graph gives something else than one or two finite numbers for a pair.
        """
        return np.array([self._one(question, passage) for passage in passages], dtype=np.float64)

    def _one(self, question: str, passage: str) -> float:
        read = self._tokenizer.encode(question, passage)
        given: dict[str, Any] = {
            "input_ids": read.ids,
            "attention_mask": read.attention_mask,
            "token_type_ids": read.type_ids,
        }
        fed = {name: np.array([given[name]], dtype=np.int64) for name in self._inputs}
        found = np.asarray(self._session.run(None, fed)[0], dtype=np.float64)
        if found.size not in (1, 2) or not np.isfinite(found).all():
            raise ValueError(
                f"the reranker answers a pair with shape {found.shape}, not with one or two finite numbers"
            )
        values = found.ravel()
        return float(values[-1] - values[0] if found.size == 2 else values[0])
