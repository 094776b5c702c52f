"""Vectors of texts in which those of a like meaning lie close: by the terms of an index, or by an encoder in ONNX.

The files beside an index: of ``terms`` ``lsa.projection.npy``, of ``onnx`` ``encoder.onnx`` (input ``ids``, output
``vector``, see `pipelines.training.onnx_encoder`) and ``tokenizer.json``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from contracts.document import Document
from contracts.lexical import Lexical
from contracts.search_terms import terms

PROJECTION, ENCODER, TOKENIZER = "lsa.projection", "encoder.onnx", "tokenizer.json"
Vector = NDArray[np.float32]


class VectorsSpec(Document):
    """How texts become vectors.

    Attributes:
        kind: ``terms``, by latent semantic analysis (S. Deerwester et al., 1990) of the passages themselves; ``onnx``;
            ``none``: there are no vectors.
        max_tokens, pad_id: of ``onnx``.
    """

    kind: Literal["none", "terms", "onnx"] = "terms"
    dimensions: int = Field(0, ge=0)
    max_tokens: int = Field(256, ge=4)
    pad_id: int = 0


class Vectors(Protocol):
    """Makes vectors of length one; of a text of which nothing is known, zero."""

    def of(self, texts: Sequence[str]) -> Vector:
        """Shape (texts, dimensions)."""
        ...


@dataclass(frozen=True)
class TermVectors:
    """Sums of the vectors of terms.

    Attributes:
        projection: shape (terms of the index, dimensions); zero of a term that has none.
    """

    lexical: Lexical
    projection: NDArray[Any]

    def of(self, texts: Sequence[str]) -> Vector:
        """See `Vectors`."""
        return unit(np.array([self._of(terms(text)) for text in texts], dtype=np.float32))

    def _of(self, found: Sequence[str]) -> NDArray[np.float64]:
        counts = Counter(place for term in found if (place := self.lexical.places.get(term)) is not None)
        if not counts:
            return np.zeros(self.projection.shape[1])
        weights = 1 + np.log(np.array(list(counts.values()), dtype=np.float64))
        return weights @ np.asarray(self.projection[list(counts)], dtype=np.float64)


class OnnxVectors:
    """An encoder; each text is encoded alone, so that its vector does not depend on the others."""

    def __init__(self, folder: Path, spec: VectorsSpec, threads: int) -> None:
        import onnxruntime
        from tokenizers import Tokenizer

        from contracts.engine import onnx_providers

        self._spec = spec
        self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = onnx_providers(onnxruntime.get_available_providers())
        self._session = onnxruntime.InferenceSession(str(folder / ENCODER), options, providers=providers)

    def of(self, texts: Sequence[str]) -> Vector:
        """See `Vectors`."""
        return unit(np.concatenate([self._one(text) for text in texts]))

    def _one(self, text: str) -> Vector:
        ids = self._tokenizer.encode(text).ids[: self._spec.max_tokens] or [self._spec.pad_id]
        found: Vector = self._session.run(["vector"], {"ids": np.array([ids], dtype=np.int64)})[0]
        return found


def open_vectors(folder: Path, spec: VectorsSpec, lexical: Lexical, threads: int = 1) -> Vectors | None:
    """What makes the vectors of questions; None where there are none.

    Raises:
        OSError, ValueError: a file is missing or none.
    """
    if spec.kind == "none":
        return None
    if spec.kind == "onnx":
        for name in (ENCODER, TOKENIZER):
            if not (folder / name).exists():
                raise FileNotFoundError(f"{name} is missing, which turns questions into vectors")
        return OnnxVectors(folder, spec, threads)
    projection = np.load(folder / f"{PROJECTION}.npy", mmap_mode="r", allow_pickle=False)
    if projection.shape != (len(lexical.vocabulary), spec.dimensions):
        raise ValueError(f"{PROJECTION} has shape {projection.shape}: it is of another index")
    return TermVectors(lexical, projection)


def unit(vectors: NDArray[Any]) -> Vector:
    """Of length one, but for those of zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-9), dtype=np.float32)
