"""BM25 as arrays: of each term the passages that have it, and what it adds to the score of each.

S. Robertson, H. Zaragoza: The probabilistic relevance framework: BM25 and beyond, 2009; weights are computed when the
index is made, as in X. H. Lu: BM25S: orders of magnitude faster lexical search via eager sparse scoring, 2024.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

K1, B = 1.2, 0.75
ARRAYS = ("bm25.indptr", "bm25.indices", "bm25.weights", "bm25.idf")
Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Lexical:
    """An index of `passages` passages.

    Attributes:
        vocabulary: the terms, in the order of the arrays.
        arrays: ``bm25.indptr`` (of each term where its passages begin), ``bm25.indices`` and ``bm25.weights`` (the
            passages of a term in rising order, and what it adds), ``bm25.idf`` (of each term).
    """

    vocabulary: Sequence[str]
    arrays: Mapping[str, NDArray[Any]]
    passages: int

    @cached_property
    def places(self) -> dict[str, int]:
        """The place of each term."""
        return {term: at for at, term in enumerate(self.vocabulary)}

    @property
    def rarest(self) -> float:
        """What a term weighs that no passage has."""
        return float(np.log(1 + (self.passages + 0.5) / 0.5))

    def idf(self, term: str) -> float:
        """How much a term tells, from 0 on."""
        at = self.places.get(term)
        return self.rarest if at is None else float(self.arrays["bm25.idf"][at])

    def scores(self, wanted: Sequence[str]) -> Scores:
        """Of all passages, shape (passages,), for the terms of a question; each term counts once."""
        indptr, indices, weights = (self.arrays[name] for name in ARRAYS[:3])
        found = np.zeros(self.passages, dtype=np.float32)
        for term in dict.fromkeys(wanted):
            at = self.places.get(term)
            if at is not None:
                part = slice(int(indptr[at]), int(indptr[at + 1]))
                found[indices[part]] += weights[part]
        return found


def lexical_index(documents: Sequence[Sequence[str]]) -> Lexical:
    """The index of passages that are given as their terms."""
    counts = [Counter(one) for one in documents]
    lengths = np.array([len(one) for one in documents], dtype=np.float64)
    usual = max(float(lengths.mean()) if len(lengths) else 1.0, 1.0)
    vocabulary = sorted({term for one in counts for term in one})
    places = {term: at for at, term in enumerate(vocabulary)}
    size = sum(map(len, counts))
    row, column = np.zeros(size, np.int64), np.zeros(size, np.int64)
    count = np.zeros(size, np.float64)
    at = 0
    for number, one in enumerate(counts):
        end = at + len(one)
        row[at:end], column[at:end], count[at:end] = number, [places[term] for term in one], list(one.values())
        at = end
    having = np.bincount(column, minlength=len(vocabulary))
    idf = np.log(1 + (len(documents) - having + 0.5) / (having + 0.5))
    order = np.lexsort((row, column))
    row, column, count = row[order], column[order], count[order]
    weights = idf[column] * count * (K1 + 1) / (count + K1 * (1 - B + B * lengths[row] / usual))
    arrays: dict[str, NDArray[Any]] = {
        "bm25.indptr": np.concatenate([[0], np.cumsum(having)]).astype(np.int64),
        "bm25.indices": row.astype(np.int32),
        "bm25.weights": weights.astype(np.float32),
        "bm25.idf": idf.astype(np.float32),
    }
    return Lexical(vocabulary, arrays, len(documents))
