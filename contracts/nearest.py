"""An HNSW index as a file: the items whose vectors have the largest products with one, found without looking at all.

Y. Malkov, D. Yashunin: Efficient and robust approximate nearest neighbor search using hierarchical navigable small
world graphs, 2018; by usearch, which maps the file into memory and reads it in place, see docs/adr/0025. Products
become angles by one more dimension, so that vectors may have any length (Y. Bachrach et al.: Speeding up the Xbox
recommender system using a Euclidean transformation for inner-product spaces, 2014).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from contracts.document import Document

FILE, SPEC = "nearest.usearch", "nearest.json"
LEAST = 0.98  # of the items of an exact search, the share that an index must find
_LINKS, _ADDED = 16, 96  # neighbours of an item, and candidates that are looked at for them
_WIDTHS = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0)  # candidates of a search, times what it gives
_RESERVE = 0.6  # of what may be missed; the rest is for questions that were not tried
_PROBED, _CLOSE = 64, 5e-3  # vectors of the index that are compared with those of the model
_BLOCK = 10_000
_ROUNDING = 1e-6  # of a product, which the order of a sum decides

Vectors = NDArray[np.float32]


class NearestSpec(Document):
    """The content of ``nearest.json``.

    Attributes:
        library: that wrote the file, and its version.
        items, dimensions: of the vectors.
        longest: length of the longest vector, which the index measures by.
        width: candidates of a search, times what it gives.
        recall: share of the items of exact searches that it found when it was made.
        least: that it must find in the gate.
    """

    format: Literal[1] = 1
    library: str
    items: int = Field(ge=1)
    dimensions: int = Field(ge=1)
    longest: float = Field(gt=0)
    width: float = Field(ge=1)
    recall: float = Field(ge=0, le=1)
    least: float = Field(LEAST, ge=0, le=1)


@dataclass(frozen=True)
class Nearest:
    """An index in memory, or mapped from its file."""

    spec: NearestSpec
    index: Any

    def search(self, vector: NDArray[Any], count: int) -> NDArray[np.int64]:
        """Places of at most `count` items, the largest product first as far as the index knows.

        Args:
            vector: shape (dimensions,).
        """
        count = min(count, self.spec.items)
        asked = np.zeros(self.spec.dimensions + 1, dtype=np.float32)
        asked[:-1] = vector
        length = float(np.linalg.norm(asked))
        if not length:
            return np.zeros(0, dtype=np.int64)
        self.index.expansion_search = int(count * self.spec.width)
        found: NDArray[np.int64] = self.index.search(asked / length, count, threads=1).keys.astype(np.int64)
        return found


def recall(nearest: Nearest, vectors: NDArray[Any], asked: Sequence[NDArray[Any]], count: int) -> float:
    """Share of the `count` items of the largest products that the index gives, the mean over questions."""
    return _share(nearest, vectors, asked, _worst(vectors, asked, count))


def _worst(vectors: NDArray[Any], asked: Sequence[NDArray[Any]], count: int) -> list[tuple[int, float]]:
    """Of each question how many items are wanted, and the product of the last of them."""
    count = min(count, len(vectors))
    return [(count, float(np.partition(vectors @ one, len(vectors) - count)[-count])) for one in asked]


def _share(
    nearest: Nearest, vectors: NDArray[Any], asked: Sequence[NDArray[Any]], worst: Sequence[tuple[int, float]]
) -> float:
    """Mean share of what is found that is as good as the worst that is wanted."""
    shares = []
    for one, (count, least) in zip(asked, worst, strict=True):
        products = vectors[nearest.search(one, count)] @ one
        shares.append(float((products >= least - _ROUNDING * abs(least)).sum()) / count)
    return float(np.mean(shares)) if shares else 0.0


def write_nearest(
    folder: Path,
    vectors: NDArray[Any],
    asked: Sequence[NDArray[Any]],
    count: int,
    least: float = LEAST,
    threads: int = 1,
) -> NearestSpec:
    """Build the index of `vectors`, shape (items, dimensions), as wide as questions like those of `asked` need.

    Args:
        count: items that a search gives.  threads: that build; 0: as many as there are cores.
    """
    import usearch
    from usearch.index import Index

    items, dimensions = vectors.shape
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    longest = max(float(lengths.max(initial=0.0)), 1e-12)
    index = Index(ndim=dimensions + 1, metric="ip", dtype="f16", connectivity=_LINKS, expansion_add=_ADDED)
    for start in range(0, items, _BLOCK):
        places = np.arange(start, min(start + _BLOCK, items))
        index.add(places, _wider(vectors[places], longest), threads=threads)
    known = {"library": f"usearch {usearch.__version__}", "items": items, "dimensions": dimensions, "longest": longest}
    worst = _worst(vectors, asked, count)
    for width in _WIDTHS:
        nearest = Nearest(NearestSpec(**known, width=width, recall=0, least=least), index)
        found = _share(nearest, vectors, asked, worst)
        if found >= 1 - _RESERVE * (1 - least):
            break
    spec = nearest.spec.model_copy(update={"recall": round(found, 6)})
    folder.mkdir(parents=True, exist_ok=True)
    index.save(folder / FILE)
    (folder / SPEC).write_text(spec.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return spec


def read_nearest(folder: Path, vectors: NDArray[Any] | None) -> Nearest | None:
    """The index of a folder, mapped; None where there is none.

    Args:
        vectors: of the items of the model that it is for.

    Raises:
        ValueError: the file is none, or it is an index of another version, of other items, or of other vectors.
    """
    if not (folder / SPEC).exists() and not (folder / FILE).exists():
        return None
    spec = NearestSpec.model_validate_json((folder / SPEC).read_bytes())
    try:
        from usearch.index import Index
    except ImportError as err:
        raise ValueError(f"{FILE} needs usearch: pip install 'fairlead[recommend]'") from err
    if vectors is None:
        raise ValueError(f"there is {FILE}, but the model has no vectors of items to search in")
    if not (folder / FILE).exists():
        raise FileNotFoundError(f"{FILE} is missing, which {SPEC} describes")
    try:
        said = Index.metadata(folder / FILE)
        index = Index.restore(folder / FILE, view=True)
    except (ValueError, RuntimeError) as err:
        raise ValueError(f"{FILE} is no index, or not a whole one: {err}") from err
    if said is None or index is None:
        raise ValueError(f"{FILE} is no index")
    major = str(said["version"]).split(".")[0]
    if major != spec.library.removeprefix("usearch ").split(".")[0]:
        raise ValueError(
            f"{FILE} is of usearch {said['version']}, {SPEC} says {spec.library}: it is of another version"
        )
    shape, wanted = (int(said["count_present"]), int(said["dimensions"]) - 1), (spec.items, spec.dimensions)
    if shape != wanted or shape != vectors.shape:
        told = f"{shape[0]:,} items of {shape[1]} dimensions"
        raise ValueError(
            f"{FILE} has {told}, the model {vectors.shape[0]:,} of {vectors.shape[1]}: it is of another model"
        )
    places = np.unique(np.linspace(0, spec.items - 1, _PROBED).astype(np.int64))
    stored = np.asarray(index.get(places, dtype="f32"))
    if np.abs(stored - _wider(np.asarray(vectors[places]), spec.longest)).max() > _CLOSE:
        raise ValueError(f"{FILE} has other vectors than the model: it is of another version of it")
    return Nearest(spec, index)


def _wider(vectors: NDArray[Any], longest: float) -> Vectors:
    """The vectors with one dimension more, in which all have length one."""
    scaled = np.asarray(vectors, dtype=np.float32) / np.float32(longest)
    rest = np.sqrt(np.maximum(1 - (scaled * scaled).sum(axis=1, keepdims=True), 0))
    return np.hstack([scaled, rest]).astype(np.float32)
