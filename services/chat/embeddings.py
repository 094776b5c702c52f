"""Vectors of texts for ``/v1/embeddings``: by llama.cpp, of the weights that chat or others, or by an ONNX encoder."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import orjson

from contracts.errors import PlatformError
from contracts.llama_process import LlamaOptions, LlamaProcess
from services.chat.request import EmbeddingRequest, refused
from services.errors import Problem
from services.settings import EmbeddingSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

OWN = "model"  # the source that means the weights that chat
_RUN = 16  # texts of one run of a graph
_TOKENS = 512  # what an encoder reads at most, where its folder does not say


class Encoder(Protocol):
    """What makes vectors.

    Attributes:
        name: that clients call it by.
        longest: tokens of one text.
    """

    name: str
    longest: int

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], int]:
        """Vectors of length 1, shape (texts, width), and the tokens of all texts; called by one thread at a time.

        Raises:
            Problem: 400, a text is too long.
            PlatformError: llama.cpp has ended.
        """

    def close(self) -> None:
        """Free what it holds."""


class LlamaEncoder:
    """llama.cpp with one GGUF file, in a process of its own; the file is mapped, so that two processes share it."""

    def __init__(self, file: Path, settings: EmbeddingSettings, name: str, longest: int, threads: int) -> None:
        self.name, self.longest = name, longest
        self._process = LlamaProcess(
            LlamaOptions(model=str(file), window=longest, threads=threads, embeds=True, pooling=settings.pooling)
        )

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], int]:
        """See `Encoder`."""
        for at, text in enumerate(texts):
            tokens = len(self._process.call("POST", "/tokenize", {"content": text, "add_special": True})["tokens"])
            _check_length(at, tokens, self.longest)
        found = self._process.call("POST", "/v1/embeddings", {"input": list(texts)})
        rows = sorted(found["data"], key=lambda one: int(one["index"]))
        return normalised(np.array([one["embedding"] for one in rows], np.float32)), found["usage"]["prompt_tokens"]

    def close(self) -> None:
        """End the process."""
        self._process.stop()


class OnnxEncoder:
    """A folder with ``tokenizer.json`` and one ONNX graph, as sentence-transformers exports it.

    The graph takes ``input_ids``, ``attention_mask`` and perhaps ``token_type_ids``, and gives a vector for each token,
    shape (texts, tokens, width), or for each text.
    """

    def __init__(self, folder: Path, settings: EmbeddingSettings, threads: int) -> None:
        try:
            import onnxruntime
            from tokenizers import Tokenizer
        except ImportError as err:
            raise _bad(folder, f"{err.name} is not installed", "pip install 'fairlead[text]'") from err
        graphs = sorted(folder.rglob("*.onnx"))
        if len(graphs) != 1 or not (folder / "tokenizer.json").is_file():
            names = ", ".join(graph.name for graph in graphs) or "none"
            raise _bad(folder, f"it needs tokenizer.json and one .onnx file, and has of these: {names}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(str(graphs[0]), options, providers=["CPUExecutionProvider"])
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as err:  # the libraries raise their own
            raise _bad(folder, f"{type(err).__name__}: {str(err)[:200]}") from err
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._inputs = [one.name for one in self._session.get_inputs()]
        if unknown := set(self._inputs) - {"input_ids", "attention_mask", "token_type_ids"}:
            raise _bad(folder, f"its graph takes {', '.join(sorted(unknown))}")
        self.name = settings.name or folder.name
        longest = _read(folder, "sentence_bert_config.json").get("max_seq_length")
        self.longest = int(settings.max_tokens or longest or _TOKENS)
        pooling = _read(folder, "1_Pooling/config.json")
        first = (
            pooling.get("pooling_mode_cls_token", False) if settings.pooling == "auto" else settings.pooling == "cls"
        )
        self._pooling = "last" if settings.pooling == "last" else "cls" if first else "mean"

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], int]:
        """See `Encoder`."""
        rows = [one.ids for one in self._tokenizer.encode_batch(list(texts))]
        for at, row in enumerate(rows):
            _check_length(at, len(row), self.longest)
        order = sorted(range(len(rows)), key=lambda at: -len(rows[at]))  # texts of a run are of about one length
        found: list[Any] = [None] * len(rows)
        for start in range(0, len(order), _RUN):
            some = order[start : start + _RUN]
            for at, vector in zip(some, self._run([rows[at] for at in some]), strict=True):
                found[at] = vector
        return normalised(np.stack(found)), sum(map(len, rows))

    def close(self) -> None:
        """Nothing is held that is not freed."""

    def _run(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        longest = max(map(len, rows))
        ids, mask = np.zeros((len(rows), longest), np.int64), np.zeros((len(rows), longest), np.int64)
        for at, row in enumerate(rows):
            ids[at, : len(row)], mask[at, : len(row)] = row, 1
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        vectors: NDArray[np.float32] = self._session.run(None, {name: given[name] for name in self._inputs})[0]
        if vectors.ndim == 2:
            return vectors
        if self._pooling == "mean":
            return np.asarray((vectors * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True), np.float32)
        places = mask.sum(1) - 1 if self._pooling == "last" else np.zeros(len(rows), np.int64)
        return np.asarray(vectors[np.arange(len(rows)), places])


def open_encoder(settings: EmbeddingSettings, name: str, weights: Path, window: int, threads: int) -> Encoder | None:
    """The encoder that settings ask for; None when they ask for none.

    Args:
        name, weights, window: of the model that chats.

    Raises:
        PlatformError: ``code="bad_encoder"``, or of llama.cpp ``code="bad_weights"``.
    """
    if not settings.source:
        return None
    if settings.source == OWN:
        return LlamaEncoder(weights, settings, name, settings.max_tokens or window, threads)
    path = Path(settings.source)
    if path.is_dir():
        return OnnxEncoder(path, settings, threads)
    if path.is_file():
        return LlamaEncoder(path, settings, settings.name or path.stem, settings.max_tokens or _TOKENS, threads)
    raise _bad(path, "there is nothing", f"name a folder with an ONNX encoder, a GGUF file, or {OWN!r}")


async def embedded(encoder: Encoder, asked: EmbeddingRequest, texts: Sequence[str]) -> tuple[bytes, int]:
    """The answer to a request as JSON, and the tokens that were read.

    Raises:
        Problem: 400, and 503 when llama.cpp has ended.
    """
    try:
        vectors, tokens = await asyncio.to_thread(encoder.encode, texts)
    except PlatformError as err:
        if err.code != "llama_refused":
            raise
        raise Problem(400, "invalid_request", "the encoder refuses this text", errors=[("input", err.detail)]) from err
    if asked.dimensions is not None:
        if asked.dimensions > vectors.shape[1]:
            raise refused("dimensions", f"vectors of this model have {vectors.shape[1]} numbers")
        vectors = normalised(vectors[:, : asked.dimensions])
    packed = asked.encoding_format == "base64"
    data = [
        {
            "object": "embedding",
            "index": at,
            "embedding": base64.b64encode(vector.astype("<f4").tobytes()).decode() if packed else vector,
        }
        for at, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    document = {"object": "list", "data": data, "model": encoder.name, "usage": usage}
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY), tokens


def normalised(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The rows, of length 1; a row of zeros stays one."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.where(lengths > 0, lengths, 1), np.float32)


def _check_length(at: int, tokens: int, longest: int) -> None:
    if tokens > longest:
        raise Problem(
            400,
            "context_length_exceeded",
            "a text is too long",
            errors=[(f"input[{at}]", f"it has {tokens} tokens, and this model reads {longest}")],
        )


def _read(folder: Path, name: str) -> dict[str, Any]:
    try:
        found = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _bad(path: Path, detail: str, fix: str = "correct embeddings.source, or the folder") -> PlatformError:
    return PlatformError(f"cannot open the encoder {path}", detail=detail, fix=fix, code="bad_encoder")
