"""Texts made of passages of the source: how many, of which unit, and which ones the references speak for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from contracts.engines.extractive import ExtractSpec, extract, signs
from contracts.passages import Unit, passages
from pipelines.evaluation.text_measures import pair, rouge_l

UNITS: tuple[Unit, ...] = ("sentence", "clause", "line")
_COMPARED = 2_000  # rows that choose; more tell nothing new
_SCORED = 5_000  # rows that weights are learned from
_OFTEN = 3  # passages that have a sign, so that it is learned
_MOST = 50_000  # signs that are learned, the most frequent ones
_STRENGTHS = (10.0, 30.0, 100.0)  # of the ridge


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Sources, and for each the text that a person wrote."""

    sources: Sequence[str]
    wanted: Sequence[str]

    def __add__(self, other: Texts) -> Texts:
        return Texts(sources=[*self.sources, *other.sources], wanted=[*self.wanted, *other.wanted])

    def head(self, rows: int) -> Texts:
        """The first of them."""
        return Texts(sources=self.sources[:rows], wanted=self.wanted[:rows])


def choose(
    texts: Texts, method: Literal["lead", "textrank"], units: Sequence[Unit], numbers: Sequence[int], most: int
) -> tuple[ExtractSpec, list[dict[str, Any]]]:
    """The unit and number of passages with the most ROUGE-L, and that of all; of equal ones the first and fewest.

    Args:
        most: characters of a source that are read.
    """
    tried = [
        ExtractSpec(method=method, unit=unit, passages=number, max_characters=most)
        for unit in units
        for number in sorted(set(numbers))
    ]
    return _best(texts.head(_COMPARED), tried)


def learn(
    train: Texts, valid: Texts, units: Sequence[Unit], numbers: Sequence[int], most: int
) -> tuple[ExtractSpec, list[dict[str, Any]]]:
    """Passages by the signs that stand for a large ROUGE-L with the reference (a ridge regression of it).

    Learned of ``train``; unit, number and strength are what `valid` likes best, and weights are then learned of both.
    """
    tried, strengths = [], {}
    for unit in units:
        design = _Design(train.head(_SCORED), unit, most)
        for strength in _STRENGTHS:
            weights = design.weights(strength)
            for number in sorted(set(numbers)):
                spec = ExtractSpec(method="scored", unit=unit, passages=number, max_characters=most, weights=weights)
                strengths[id(spec)] = strength
                tried.append(spec)
    best, history = _best(valid.head(_COMPARED), tried)
    for row, spec in zip(history, tried, strict=True):
        row["strength"] = strengths[id(spec)]
    whole = _Design((train + valid).head(_SCORED), best.unit, most)
    return best.model_copy(update={"weights": whole.weights(strengths[id(best)])}), history


def overlap(texts: Texts, spec: ExtractSpec) -> float:
    """The mean ROUGE-L of what `spec` takes of each text."""
    found = [rouge_l(pair(extract(*one), wanted)) for one, wanted in _with(texts, spec)]
    return sum(found) / max(1, len(found))


def _with(texts: Texts, spec: ExtractSpec) -> list[tuple[tuple[str, ExtractSpec], str]]:
    return [((source, spec), wanted) for source, wanted in zip(texts.sources, texts.wanted, strict=True)]


def _best(texts: Texts, tried: Sequence[ExtractSpec]) -> tuple[ExtractSpec, list[dict[str, Any]]]:
    history: list[dict[str, Any]] = [
        {"unit": spec.unit, "passages": spec.passages, "rouge_l": overlap(texts, spec)} for spec in tried
    ]
    values = [row["rouge_l"] for row in history]
    return tried[values.index(max(values))], history


class _Design:
    """The passages of some texts with their signs, and how much each has of the reference."""

    def __init__(self, texts: Texts, unit: Unit, most: int) -> None:
        import numpy as np
        from scipy.sparse import csr_matrix

        rows: list[Mapping[str, float]] = []
        value: list[float] = []
        for source, wanted in zip(texts.sources, texts.wanted, strict=True):
            parts = passages(source[:most], unit)
            told = signs(parts)
            rows += told
            value += [rouge_l(pair(part, wanted)) for part in parts[: len(told)]]
        counts = Counter(name for row in rows for name in row)
        self._names = [name for name, times in counts.most_common(_MOST) if times >= _OFTEN]
        number = {name: at for at, name in enumerate(self._names)}
        cells = [
            (at, number[name], found) for at, row in enumerate(rows) for name, found in row.items() if name in number
        ]
        at, sign, found = zip(*cells, strict=True) if cells else ((), (), ())
        self._signs = csr_matrix((found, (at, sign)), shape=(len(rows), len(self._names)))
        self._value = np.array(value)

    def weights(self, strength: float) -> dict[str, float]:
        """Of each sign; a larger strength keeps them nearer to zero."""
        if not self._names:
            return {}
        from sklearn.linear_model import Ridge

        fitted = Ridge(alpha=strength, solver="sparse_cg").fit(self._signs, self._value)
        return {name: round(float(one), 6) for name, one in zip(self._names, fitted.coef_, strict=True)}
