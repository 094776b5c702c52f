"""Counts of token n-grams as a sparse matrix, the same numbers that the ONNX operator TfIdfVectorizer gives."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class NgramVocabulary:
    """The n-grams (n = 1 .. `longest`) of token ids that count as terms.

    Attributes:
        terms: int32, shape (terms, longest): token ids, padded on the right by -1; ordered by n, then by ids.
    """

    def __init__(self, terms: NDArray[np.int32]) -> None:
        self.terms = terms
        self.longest = terms.shape[1]
        self._base = int(terms.max(initial=0)) + 2
        self._lengths = (terms >= 0).sum(axis=1)

    @classmethod
    def learn(
        cls, rows: Sequence[Sequence[int]], *, longest: int, min_documents: int, max_terms: int, unused: Collection[int]
    ) -> NgramVocabulary:
        """The n-grams found in at least `min_documents` rows, at most `max_terms`, the most frequent first.

        N-grams with one of the ids `unused` (padding, unknown) are left out.
        """
        import numpy as np

        base = max((max(row, default=0) for row in rows), default=0) + 2
        if base**longest >= 2**63:
            raise ValueError(f"a vocabulary of {base} tokens is too large for n-grams of {longest}")
        found, documents = [], []
        for n in range(1, longest + 1):
            keys, owners = _keys(rows, n, base, unused)
            pairs = np.unique(np.stack([keys, owners]), axis=1)
            values, frequency = np.unique(pairs[0], return_counts=True)
            found.append(_unpack(values, n, base, longest))
            documents.append(frequency)
        terms, frequency = np.concatenate(found), np.concatenate(documents)
        keep = np.flatnonzero(frequency >= min_documents)
        if len(keep) > max_terms:
            keep = np.sort(keep[np.argsort(-frequency[keep], kind="stable")[:max_terms]])
        return cls(terms[keep])

    def count(self, rows: Sequence[Sequence[int]]) -> Any:
        """Occurrences, a float32 CSR matrix of shape (rows, terms)."""
        import numpy as np
        from scipy import sparse

        columns, owners = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for n in range(1, self.longest + 1):
            mine = np.flatnonzero(self._lengths == n)
            if not len(mine):
                continue
            known = np.zeros(len(mine), np.int64)
            for at in range(n):
                known = known * self._base + self.terms[mine, at]
            keys, owner = _keys(rows, n, self._base, ())
            at = np.searchsorted(known, keys)
            hit = np.flatnonzero(known[np.minimum(at, len(known) - 1)] == keys)
            columns.append(mine[at[hit]])
            owners.append(owner[hit])
        column, owner = np.concatenate(columns), np.concatenate(owners)
        shape = (len(rows), len(self.terms))
        counts = sparse.csr_matrix((np.ones(len(column), np.float32), (owner, column)), shape=shape)
        counts.sum_duplicates()
        return counts


def _keys(rows: Sequence[Sequence[int]], n: int, base: int, unused: Collection[int]) -> tuple[Any, Any]:
    """Every n-gram as one number, and the row it is in; ids that do not fit `base` make no n-gram."""
    import numpy as np

    lengths = np.array([len(row) for row in rows], np.int64)
    flat = np.fromiter((i for row in rows for i in row), np.int64, int(lengths.sum()))
    owner = np.repeat(np.arange(len(rows)), lengths)
    count = max(len(flat) - n + 1, 0)
    keys, good = np.zeros(count, np.int64), owner[:count] == owner[n - 1 :][:count]
    for at in range(n):
        part = flat[at : at + count]
        keys = keys * base + np.minimum(part, base - 1)
        good &= part < base - 1
        for one in unused:
            good &= part != one
    return keys[good], owner[:count][good]


def _unpack(keys: Any, n: int, base: int, width: int) -> Any:
    import numpy as np

    terms = np.full((len(keys), width), -1, np.int32)
    for at in range(n - 1, -1, -1):
        terms[:, at], keys = keys % base, keys // base
    return terms
