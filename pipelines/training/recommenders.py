"""Methods of recommending: from a matrix of who took what to the arrays of a `contracts.recommender.Recommender`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass as settings

from contracts.errors import PlatformError
from pipelines.settings import setting
from pipelines.task import STRICT
from pipelines.training import two_tower
from pipelines.training.taken import Taken as Taken
from pipelines.training.taken import power

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Arrays = dict[str, NDArray[Any]]
Share = Annotated[float, Field(ge=0)]
Several = Annotated[tuple[Share, ...], Field(min_length=1)]
_BLOCK = 2_000  # items whose neighbours are computed at once
_DENSE_BLOCK, _PAIRS = 500, 100_000  # items whose weights to all others are there at once, and at most
_DENSE = 15_000  # items of which all pairs fit into memory as numbers


@settings(frozen=True, kw_only=True, config=STRICT)
class PopularModel:
    """What most people take. half_life: days after which it counts half, candidates; 0: all count alike."""

    method: Literal["popular"] = "popular"
    half_life: Several = (0.0, 7.0, 30.0)


@settings(frozen=True, kw_only=True, config=STRICT)
class ItemKnnModel:
    """Items that the same people take: cosine with shrinkage (B. Sarwar et al., 2001; R. Bell, Y. Koren, 2007).

    recency: here and below, items after which one of the history counts half, candidates; 0: all count alike.
    """

    method: Literal["item_knn"] = "item_knn"
    shrink: Several = (0.0, 10.0, 50.0)
    neighbours: Annotated[int, Field(ge=1)] = 100
    recency: Several = (0.0, 5.0)


@settings(frozen=True, kw_only=True, config=STRICT)
class EaseModel:
    """A linear model of all items in closed form (H. Steck: Embarrassingly shallow autoencoders, 2019).

    l2: candidates.  neighbours: weights that are kept of each item; 0: all.
    """

    method: Literal["ease"] = "ease"
    l2: Several = (200.0, 500.0)
    neighbours: Annotated[int, Field(ge=0)] = 1_000
    recency: Several = (0.0, 3.0, 5.0, 10.0)


@settings(frozen=True, kw_only=True, config=STRICT)
class AlsModel:
    """Factors of people and items by alternating least squares (Y. Hu, Y. Koren, C. Volinsky, 2008)."""

    method: Literal["als"] = "als"
    factors: Annotated[int, Field(ge=1, le=512)] = 48
    l2: Several = (1.0, 5.0)
    confidence: Several = (5.0, 20.0)
    rounds: Annotated[int, Field(ge=1)] = 8
    recency: Several = (0.0, 5.0)


@settings(frozen=True, kw_only=True, config=STRICT)
class GraphModel:
    """A walk from items to people and back, scaled by degrees; needs no training.

    With (1, 1, 0) it is D_i^-1 R' D_u^-1 R, the low-pass filter of the normalised graph in one hop with its degree
    scaling (Y. Shen et al.: How powerful is graph convolution for recommendation?, 2021), which is also the walk P3 (C.
    Cooper et al., 2014). The last exponent takes from items that are popular (B. Paudel et al.: RP3beta, 2017).

    from_item, person, to_item: exponents of the degrees, candidates.  neighbours: items that are kept of each.
    smooth: how much of an ideal low-pass filter is added, of the `rank` smoothest vectors of the graph, candidates (of
    the same paper; with these degrees in J. Choi et al.: Blurring-sharpening process models, 2023). It compares all
    pairs of items.
    """

    method: Literal["graph_filter"] = "graph_filter"
    from_item: Several = (0.5, 0.75)
    person: Several = (0.5, 0.75)
    to_item: Several = (0.25, 0.0)
    neighbours: Annotated[int, Field(ge=1)] = 400
    smooth: Several = (0.0,)
    rank: Annotated[int, Field(ge=1)] = 512
    recency: Several = (0.0, 5.0)


@settings(frozen=True, kw_only=True, config=STRICT)
class TowerModel:
    """Two networks that meet in a vector, see `pipelines.training.two_tower`; items that nobody took have one as well.

    dimensions: of the vectors.  hidden: units of the person's layer.  context: items before one that foretell it.
    temperature: of the softmax, candidates.  dropped: share of the items that are shown by their attributes and text
    alone.  negatives: items drawn from all, beside those of the batch.  epochs, examples: whichever ends first.
    """

    method: Literal["two_tower"] = "two_tower"
    dimensions: Annotated[int, Field(ge=2, le=512)] = 64
    hidden: Annotated[int, Field(ge=1)] = 128
    context: Annotated[int, Field(ge=1)] = 50
    temperature: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (0.1, 0.2)
    dropped: Annotated[float, Field(ge=0, le=1)] = 0.2
    recency: Share = 10.0
    batch: Annotated[int, Field(ge=2)] = 1_024
    negatives: Annotated[int, Field(ge=0)] = 1_024
    epochs: Annotated[int, Field(ge=1)] = 20
    examples: Annotated[int, Field(ge=1)] = 2_000_000


Model = PopularModel | ItemKnnModel | EaseModel | AlsModel | GraphModel | TowerModel


def fit(taken: Taken, chosen: Mapping[str, Any]) -> Arrays:
    """The arrays of a method with one value of each setting."""
    makers: Mapping[str, Callable[[Taken, Mapping[str, Any]], Arrays]] = {
        "popular": lambda taken, chosen: {},
        "item_knn": _item_knn,
        "ease": _ease,
        "als": _als,
        "graph_filter": _graph_filter,
        "two_tower": two_tower.fit,
    }
    return makers[chosen["method"]](taken, chosen)


def _item_knn(taken: Taken, chosen: Mapping[str, Any]) -> Arrays:
    length = np.sqrt(taken.people)

    def weights(item: int, others: NDArray[Any], counts: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(counts / np.maximum(length[item] * length[others] + chosen["shrink"], 1e-12))

    return _neighbours(taken.matrix, taken.matrix, chosen["neighbours"], weights)


def _graph_filter(taken: Taken, chosen: Mapping[str, Any]) -> Arrays:
    if chosen.get("smooth"):
        return _smoothed(taken, chosen)
    from scipy.sparse import diags

    people = np.asarray(taken.matrix.sum(axis=1), dtype=np.float64).ravel()
    scaled = diags(power(people, chosen["person"])) @ taken.matrix
    source, target = (power(taken.people, chosen[name]) for name in ("from_item", "to_item"))

    def weights(item: int, others: NDArray[Any], counts: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(counts * source[item] * target[others])

    return _neighbours(taken.matrix, scaled.tocsr(), chosen["neighbours"], weights)


def _smoothed(taken: Taken, chosen: Mapping[str, Any]) -> Arrays:
    """One hop and the low-pass filter, the largest weights of each item."""
    count, most = taken.matrix.shape[1], int(chosen["neighbours"])
    if count > _PAIRS:
        raise PlatformError(
            f"model.smooth compares all pairs of {count:,} items, which takes too long",
            detail=f"at most {_PAIRS:,} items are accepted",
            fix=setting("model.smooth", [0.0]),
            code="too_many_items",
        )
    hop, vectors = taken.normalised(chosen["person"]), taken.smooth(chosen["person"], int(chosen["rank"]))
    turned = hop.T.tocsr()
    left = power(taken.people, chosen["from_item"] - 0.5).astype(np.float32)
    right = power(taken.people, chosen["to_item"] - 0.5).astype(np.float32)
    rows = []
    for start in range(0, count, _DENSE_BLOCK):
        block = slice(start, min(start + _DENSE_BLOCK, count))
        weights = (turned[block] @ hop).toarray()
        weights += (np.float32(chosen["smooth"]) * vectors[block]) @ vectors.T
        weights *= left[block, None] * right
        weights[np.arange(len(weights)), np.arange(block.start, block.stop)] = 0
        kept = np.argpartition(-np.abs(weights), min(most, count) - 1, axis=1)[:, :most]
        rows += [_largest(places, row[places], 0) for places, row in zip(kept, weights, strict=True)]
    return _rows(rows)


def _neighbours(
    left: csr_matrix,
    right: csr_matrix,
    most: int,
    weights: Callable[[int, NDArray[Any], NDArray[Any]], NDArray[Any]],
) -> Arrays:
    """The largest weights of each item, made of ``left' right`` some items at a time."""
    turned, count = left.T.tocsr(), left.shape[1]
    rows = []
    for start in range(0, count, _BLOCK):
        block = (turned[start : start + _BLOCK] @ right).tocsr()
        for at in range(block.shape[0]):
            part = slice(block.indptr[at], block.indptr[at + 1])
            others = block.indices[part]
            values = np.where(others == start + at, 0.0, weights(start + at, others, block.data[part]))
            rows.append(_largest(others, values, most))
    return _rows(rows)


def _largest(places: NDArray[Any], values: NDArray[Any], most: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Places, rising, and values of the largest magnitudes; `most` 0: of all that are not zero."""
    kept = np.flatnonzero(values)
    if most and len(kept) > most:
        kept = kept[np.argpartition(-np.abs(values[kept]), most - 1)[:most]]
    kept = kept[np.argsort(places[kept])]
    return places[kept].astype(np.int32), values[kept].astype(np.float32)


def _rows(rows: list[tuple[NDArray[np.int32], NDArray[np.float32]]]) -> Arrays:
    return {
        "similar.indptr": np.cumsum([0, *(len(places) for places, _ in rows)], dtype=np.int64),
        "similar.indices": np.concatenate([places for places, _ in rows]),
        "similar.weights": np.concatenate([values for _, values in rows]),
    }


def _ease(taken: Taken, chosen: Mapping[str, Any]) -> Arrays:
    from scipy.linalg.lapack import dpotrf, dpotri

    count = taken.matrix.shape[1]
    if count > _DENSE:
        raise PlatformError(
            f"ease compares all pairs of {count:,} items, which takes too much memory",
            detail=f"at most {_DENSE:,} items are accepted",
            fix=f"take --recipe graph_filter, or leave rare items out: {setting('split.min_people', 5)}",
            code="too_many_items",
        )
    gram = np.asfortranarray((taken.matrix.T @ taken.matrix).toarray().astype(np.float64))
    gram[np.diag_indices(count)] += max(float(chosen["l2"]), 1e-6)
    lower, failed = dpotrf(gram, lower=True, overwrite_a=True)
    inverse, failed = dpotri(lower, lower=True, overwrite_c=True) if not failed else (lower, failed)
    if failed:
        raise PlatformError("ease cannot be solved", fix=f"raise {setting('model.l2', [100.0])}", code="bad_config")
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    weights = inverse / -np.diag(inverse)
    weights[np.diag_indices(count)] = 0
    places = np.arange(count)
    return _rows([_largest(places, row, chosen["neighbours"]) for row in weights])


def _als(taken: Taken, chosen: Mapping[str, Any]) -> Arrays:
    size, matrix = int(chosen["factors"]), taken.matrix.tocsr()
    turned = matrix.T.tocsr()
    items = np.random.default_rng(taken.seed).normal(0, 0.1, (matrix.shape[1], size))
    items[taken.people == 0] = 0
    for _ in range(chosen["rounds"]):
        people = _solved(matrix, items, chosen["l2"], chosen["confidence"])
        items = _solved(turned, people, chosen["l2"], chosen["confidence"])
    return {"factors": items.astype(np.float32)}


def _solved(rows: csr_matrix, others: NDArray[np.float64], l2: float, confidence: float) -> NDArray[np.float64]:
    """The factors of each row, given those of what it took: confidence is 1, and more for what was taken."""
    gram = others.T @ others + max(l2, 1e-6) * np.eye(others.shape[1])
    found = np.zeros((rows.shape[0], others.shape[1]))
    for at in range(rows.shape[0]):
        mine = others[rows.indices[rows.indptr[at] : rows.indptr[at + 1]]]
        if len(mine):
            found[at] = np.linalg.solve(gram + confidence * (mine.T @ mine), (1 + confidence) * mine.sum(axis=0))
    return found
