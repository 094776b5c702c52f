"""Measures that texts have as a set: BLEU, chrF and the share of distinct n-grams, as functions of row weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from contracts.texts import language, ngrams, words

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ORDER = 4  # of BLEU
_CHARACTERS, _BETA = 6, 2.0  # of chrF
COMPARED = 100  # answers by which diversity is told
Weighed = Callable[[Any], float]


def bleu(answers: Sequence[str], references: Sequence[str]) -> Weighed:
    """BLEU by sacrebleu, 0 to 100: tokenised as 13a, Chinese references and their answers as zh."""
    from sacrebleu.metrics.bleu import BLEU

    rows = _rows(_bleu_row, answers, references)

    def measure(weight: Any) -> float:
        sums = [round(value) for value in _sums(rows, weight).tolist()]  # a weight says how often a row was drawn
        if not sums or not sums[-1]:
            return float("nan")
        counts, totals = sums[:_ORDER], sums[_ORDER : 2 * _ORDER]
        return float(BLEU.compute_bleu(counts, totals, sums[-2], sums[-1], smooth_method="exp").score)

    return measure


def chrf(answers: Sequence[str], references: Sequence[str]) -> Weighed:
    """chrF2 as sacrebleu defines it, 0 to 100: F of character n-grams up to six, spaces left out."""
    rows = _rows(_chrf_row, answers, references)

    def measure(weight: Any) -> float:
        sums = _sums(rows, weight).reshape(-1, 3)
        used = (sums[:, 0] > 0) & (sums[:, 1] > 0)
        if not used.any():
            return 0.0 if sums[:, 1].any() else float("nan")
        precision, recall = (float((sums[used, 2] / sums[used, side]).mean()) for side in (0, 1))
        below = _BETA**2 * precision + recall
        return 100 * (1 + _BETA**2) * precision * recall / below if below else 0.0

    return measure


def distinct(answers: Sequence[str], size: int) -> Weighed:
    """Different n-grams by all n-grams (J. Li et al., 2016), as expected of `COMPARED` answers drawn without return.

    Of more answers fewer n-grams are new, so shares of sets of other sizes do not compare; the expectation over all
    draws does (rarefaction, S. Hurlbert, 1971). With fewer answers it is the share of all. A row counts once, whatever
    its weight; nan without an n-gram.
    """
    number: dict[tuple[str, ...], int] = {}
    rows = [[number.setdefault(gram, len(number)) for gram in ngrams(words(answer), size)] for answer in answers]
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    codes = [np.unique(np.array(row, dtype=np.int64)) for row in rows]

    def measure(weight: Any) -> float:
        kept = np.arange(len(rows)) if weight is None else np.flatnonzero(np.asarray(weight) > 0)
        grams = int(lengths[kept].sum())
        if not grams:
            return float("nan")
        among = np.bincount(np.concatenate([codes[row] for row in kept]))  # answers that have it, of each n-gram
        drawn = min(COMPARED, len(kept))
        draws = math.comb(len(kept), drawn)
        having, times = np.unique(among[among > 0], return_counts=True)
        missed = sum(n * (math.comb(len(kept) - k, drawn) / draws) for k, n in zip(*_ints(having, times), strict=True))
        return float((times.sum() - missed) / (grams * drawn / len(kept)))

    return measure


def _ints(*columns: NDArray[np.int64]) -> list[list[int]]:
    return [column.tolist() for column in columns]


@lru_cache(maxsize=2)
def _metric(chinese: bool) -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(tokenize="zh" if chinese else "13a")


@lru_cache(maxsize=1 << 14)
def _bleu_row(answer: str, reference: str) -> tuple[int, ...]:
    """Of each order the n-grams that both have, and those of the answer; the lengths of both."""
    one = _metric(language(reference) == "zh").corpus_score([answer], [[reference]])
    return (*one.counts, *one.totals, one.sys_len, one.ref_len)


@lru_cache(maxsize=1 << 14)
def _chrf_row(answer: str, reference: str) -> tuple[int, ...]:
    """Of each order the n-grams of the answer, of the reference, and of both."""
    from sacrebleu.metrics.helpers import extract_all_char_ngrams

    found: list[int] = []
    mine, theirs = (extract_all_char_ngrams(text, _CHARACTERS, False) for text in (answer, reference))
    for one, other in zip(mine, theirs, strict=True):
        total = one.total() if other else 0  # as there: without n-grams of the reference, those do not count
        found += [total, other.total(), (one & other).total()]
    return tuple(found)


def _rows(of_row: Callable[[str, str], tuple[int, ...]], answers: Sequence[str], references: Sequence[str]) -> Any:
    return np.array([of_row(*both) for both in zip(answers, references, strict=True)], dtype=np.float64)


def _sums(rows: NDArray[np.float64], weight: Any) -> NDArray[np.float64]:
    found: NDArray[np.float64] = rows.sum(axis=0) if weight is None else np.asarray(weight) @ rows
    return found
