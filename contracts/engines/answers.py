"""Answers from passages of documents, by a `contracts.answering`: arrays, names and texts, read where they lie.

``model/`` has ``answers.json`` (`AnsweringSpec`), ``names.json`` (the terms of the index, the documents with their
titles, the sections, and the sets of labels), ``passages.txt`` (their texts, one after another) and a ``.npy`` for each
array; of vectors see `contracts.text_vectors`, and `contracts.nearest` where there is an index of them.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from contracts.answering import Access, Answerer, AnsweringSpec
from contracts.bundle import Bundle, Input
from contracts.cross_encoder import CrossEncoder
from contracts.engine import EngineOptions, EngineSpec, Reason
from contracts.errors import PlatformError
from contracts.lexical import ARRAYS, Lexical
from contracts.nearest import read_nearest
from contracts.problems.answering import SEPARATOR, Passage, listed
from contracts.text_vectors import PROJECTION, open_vectors

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPEC, NAMES, TEXTS = "answers.json", "names.json", "passages.txt"
_OF_PASSAGES = ("passages.document", "passages.section", "passages.page", "passages.number", "passages.labels")
_ENDS, VECTORS = "passages.ends", "vectors"


def request_inputs(k: int, longest: int) -> list[Input]:
    """What a row asks: the inputs of every model of this engine."""
    several = f"separated by {SEPARATOR}"
    asker = f"labels of who asks, {several}: what may be read with one of them, or with none, is searched"
    return [
        Input(name="question", dtype="string", default="", description="in the language of the documents"),
        Input(name="labels", dtype="string", default="", optional=True, description=asker),
        Input(
            name="k", dtype="int64", default=k, optional=True, minimum=1, maximum=longest,
            description="passages that come with the answer",
        ),
    ]  # fmt: skip


@dataclass(frozen=True)
class StoredPassages:
    """Passages whose texts stay in their file; see `contracts.answering.PassageStore`."""

    names: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]
    texts: bytes | mmap.mmap

    def __len__(self) -> int:
        return len(self.arrays[_ENDS]) - 1

    def get(self, place: int) -> Passage:
        """See `PassageStore`."""
        document, section, page, number, labels = (int(self.arrays[name][place]) for name in _OF_PASSAGES)
        name, title = self.names["documents"][document]
        start, end = (int(one) for one in self.arrays[_ENDS][place : place + 2])
        return Passage(
            id=f"{name}#{number}",
            document=name,
            title=title,
            section=self.names["sections"][section],
            page=page,
            labels=tuple(self.names["labels"][labels]),
            score=0.0,
            text=self.texts[start:end].decode("utf-8"),
        )


class AnswersEngine:
    """See `contracts.engine.Engine`; the answer to a row does not depend on the others.

    Attributes:
        model: may be exchanged for one that searches vectors elsewhere.
    """

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        self.model = read_model(bundle.model_path, threads)

    def predict(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.object_]:
        """One answer per row."""
        rows = list(zip(columns["question"], columns["labels"], columns["k"], strict=True))
        found = np.empty(len(rows), dtype=object)
        for at, (question, labels, k) in enumerate(rows):
            size = None if k != k else max(1, int(k))
            found[at] = self.model.answer(_text(question), listed(_text(labels)), size)
        return found

    def explain(self, columns: Mapping[str, NDArray[Any]], top: int) -> list[list[Reason]]:
        """None: an answer cites what it rests on."""
        detail = "an answer cites the passages that it rests on"
        raise PlatformError("this model gives no other reasons", detail=detail, code="not_explainable")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def write_model(
    folder: Path, spec: AnsweringSpec, found: Sequence[Passage], lexical: Lexical, vectors: Any, projection: Any
) -> None:
    """Write what `read_model` reads, but for the files of an encoder and of an index of vectors.

    Args:
        vectors: of the passages; None without any.  projection: of `TermVectors`; None where they are others.
    """
    folder.mkdir(parents=True, exist_ok=True)
    documents = {one.document: one.title for one in found}
    sections = list(dict.fromkeys(one.section for one in found))
    labels = list(dict.fromkeys(one.labels for one in found))
    at = [{name: place for place, name in enumerate(names)} for names in (documents, sections, labels)]
    names = {
        "terms": list(lexical.vocabulary),
        "documents": list(documents.items()),
        "sections": sections,
        "labels": labels,
    }
    texts = [one.text.encode() for one in found]
    numbers = [int(one.id.rpartition("#")[2]) for one in found]
    columns = (
        [at[0][one.document] for one in found],
        [at[1][one.section] for one in found],
        [one.page for one in found],
        numbers,
        [at[2][one.labels] for one in found],
    )
    arrays: dict[str, Any] = {
        name: np.array(column, dtype=np.int32) for name, column in zip(_OF_PASSAGES, columns, strict=True)
    }
    arrays |= {_ENDS: np.cumsum([0, *map(len, texts)], dtype=np.int64), **lexical.arrays}
    arrays |= {} if vectors is None else {VECTORS: np.asarray(vectors, dtype=np.float32)}
    arrays |= {} if projection is None else {PROJECTION: np.asarray(projection, dtype=np.float32)}
    (folder / SPEC).write_text(spec.model_dump_json(indent=1) + "\n", encoding="utf-8")
    (folder / NAMES).write_text(json.dumps(names, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / TEXTS).write_bytes(b"".join(texts))
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)


def read_model(folder: Path, threads: int = 1) -> Answerer:
    """The model of a folder.

    Raises:
        PlatformError: ``code="bad_bundle"``.
    """
    try:
        spec = AnsweringSpec.model_validate_json((folder / SPEC).read_bytes())
        names = json.loads((folder / NAMES).read_text(encoding="utf-8"))
        arrays = {file.stem: _mapped(file) for file in folder.glob("*.npy")}
        store = StoredPassages(names, arrays, _texts(folder / TEXTS))
        _check(store)
        lexical = Lexical(names["terms"], {name: arrays[name] for name in ARRAYS}, len(store))
        encoder = open_vectors(folder, spec.vectors, lexical, threads)
        vectors = None if encoder is None else arrays[VECTORS]
        if vectors is not None and vectors.shape != (len(store), spec.vectors.dimensions):
            raise ValueError(f"{VECTORS} has shape {vectors.shape}, and there are {len(store):,} passages")
        access = Access(names["labels"], arrays["passages.labels"])
        crossed = CrossEncoder(folder, spec.reranker, threads) if spec.rerank == "onnx" else None
        near = read_nearest(folder, vectors)
        return Answerer(spec, store, access, lexical, vectors, encoder, nearest=near, reranker=crossed)
    except (OSError, ValidationError, ValueError, KeyError, IndexError) as err:
        raise PlatformError(
            f"index of documents refused: {folder}", detail=str(err), fix="publish the model again", code="bad_bundle"
        ) from err


def _mapped(file: Path) -> NDArray[Any]:
    """An array that is read where it lies; as a plain one, which is quicker to take parts of."""
    return np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))


def _texts(file: Path) -> bytes | mmap.mmap:
    with file.open("rb") as stream:
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) if file.stat().st_size else b""


def _check(store: StoredPassages) -> None:
    """Refuse arrays of another index.

    Raises:
        ValueError: naming the first that does not fit; KeyError: one is missing.
    """
    count = len(store)
    sizes = {"passages.document": "documents", "passages.section": "sections", "passages.labels": "labels"}
    for name in _OF_PASSAGES:
        array = store.arrays[name]
        if len(array) != count:
            raise ValueError(f"{name} has {len(array):,} rows, not {count:,}: it is of another index")
        if name in sizes and not 0 <= int(array.min()) <= int(array.max()) < len(store.names[sizes[name]]):
            raise ValueError(f"{name} names what is not in {NAMES}")
    if int(store.arrays[_ENDS][-1]) != len(store.texts):
        raise ValueError(f"{TEXTS} has {len(store.texts):,} bytes, {_ENDS} says {int(store.arrays[_ENDS][-1]):,}")
    indptr, indices = store.arrays["bm25.indptr"], store.arrays["bm25.indices"]
    if len(indptr) != len(store.names["terms"]) + 1 or int(indptr[-1]) != len(indices):
        raise ValueError("bm25.indptr is of another vocabulary")
    if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < count:
        raise ValueError("bm25.indices names passages that are not in the index")


def load(bundle: Bundle, options: EngineOptions) -> AnswersEngine:
    """See `contracts.engines.load_engine`."""
    return AnswersEngine(bundle, options.threads)


ENGINE = EngineSpec(name="answers", modality="answers", extra="answers", batch_rows=64, load=load)
