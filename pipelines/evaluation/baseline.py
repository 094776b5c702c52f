"""What normal looks like: distributions of inputs, scores and labels, as the reference for drift."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.bundle import Input

_QUANTILES = np.linspace(0, 1, 11)
_CATEGORIES = 30


def describe_inputs(columns: Mapping[str, NDArray[Any]], inputs: Sequence[Input]) -> dict[str, Any]:
    """``inputs`` of the document ``baseline.json``; `Evaluation.baseline` says what the answers are.

    Each input has either ``edges`` (deciles) with the ``shares`` of values between them, or ``shares`` of the commonest
    categories, or, for free text, the same of its length; with the share that is ``missing``.
    """
    return {item.name: _input(columns[item.name], item) for item in inputs}


def _input(values: NDArray[Any], item: Input) -> dict[str, Any]:
    if item.dtype != "string":
        return {"kind": "number", **numbers(np.asarray(values, dtype=np.float64))}
    texts = [value or "" for value in values]
    counts = Counter(texts)
    if item.categories is None and len(counts) > max(_CATEGORIES, len(texts) // 20):
        lengths = np.array([len(text) for text in texts], dtype=np.float64)
        return {"kind": "text", "length": numbers(lengths), "missing": counts[""] / max(len(texts), 1)}
    shares = {name: round(count / len(texts), 6) for name, count in counts.most_common(_CATEGORIES)}
    return {"kind": "category", "shares": shares, "other": round(max(0.0, 1 - sum(shares.values())), 6)}


def numbers(values: NDArray[np.float64]) -> dict[str, Any]:
    """Mean, deviation, deciles and the shares between them, of the values that are known."""
    known = values[np.isfinite(values)]
    missing = 1 - len(known) / max(len(values), 1)
    if not len(known):
        return {"missing": missing}
    # Repeated deciles (many equal values) make one edge; the outer edges are the extremes.
    edges = np.unique(np.quantile(known, _QUANTILES))
    return {
        "missing": missing,
        "mean": float(known.mean()),
        "deviation": float(known.std()),
        "edges": listed(edges),
        "shares": shares_of(known, edges),
    }


def shares_of(values: NDArray[np.float64], edges: NDArray[np.float64]) -> list[float]:
    """Share of values in each bin [edge, next edge), the last one closed."""
    if len(edges) < 2:
        return [1.0]
    counts, _ = np.histogram(values, bins=edges)
    return listed(counts / max(len(values), 1))


def listed(values: NDArray[Any]) -> list[float]:
    """As JSON, to nine places."""
    return [round(float(value), 9) for value in values]
