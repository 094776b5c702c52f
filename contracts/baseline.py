"""What normal looks like, ``baseline.json`` of a bundle: distributions of inputs and answers, the reference for drift.

A column is described by its ``kind``: ``number`` has ``edges`` (deciles) with the ``shares`` of the known values
between them, ``category`` the ``shares`` of its commonest values and of all ``other`` ones, ``text`` a number's of its
``length``. ``missing`` is the share without a value, and ``rows`` of the document says how many were counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.bundle import Input

FILE = "baseline.json"
_QUANTILES = np.linspace(0, 1, 11)
_CATEGORIES = 30
_PLACES = 9


def describe_inputs(columns: Mapping[str, NDArray[Any]], inputs: Sequence[Input]) -> dict[str, Any]:
    """``inputs`` of the document; `Evaluation.baseline` and `Evaluation.normal_answers` say what the answers are."""
    return {item.name: describe(columns[item.name], item) for item in inputs}


def describe(values: NDArray[Any] | Sequence[Any], item: Input) -> dict[str, Any]:
    """The distribution of one input.

    A text of few different values counts as a category. A log keeps only the length of what is no declared category,
    so the length is described beside it.
    """
    if item.dtype != "string":
        return number(np.asarray(values, dtype=np.float64))
    texts = [value or "" for value in values]
    if item.categories is not None:
        return category(texts)
    lengths = numbers(np.array([len(text) for text in texts], dtype=np.float64))
    if len(set(texts)) <= max(_CATEGORIES, len(texts) // 20):
        return {**category(texts), "length": lengths}
    return {"kind": "text", "length": lengths, "missing": texts.count("") / max(len(texts), 1)}


def number(values: NDArray[np.float64]) -> dict[str, Any]:
    """The distribution of numbers."""
    return {"kind": "number", **numbers(values)}


def category(texts: Sequence[str]) -> dict[str, Any]:
    """The distribution of values that are names; "" is a missing one."""
    shares = {name: round(count / len(texts), 6) for name, count in Counter(texts).most_common(_CATEGORIES)}
    return {"kind": "category", "shares": shares, "other": round(max(0.0, 1 - sum(shares.values())), 6)}


def numbers(values: NDArray[np.float64]) -> dict[str, Any]:
    """Mean, deviation, deciles and the shares between them, of the values that are known."""
    known = values[np.isfinite(values)]
    missing = 1 - len(known) / max(len(values), 1)
    if not len(known):
        return {"missing": missing}
    # Repeated deciles (many equal values) make one edge; the outer edges are the extremes.
    edges = np.unique(np.round(np.quantile(known, _QUANTILES), _PLACES))
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
    return listed(np.bincount(bins_of(values, edges), minlength=len(edges) - 1) / max(len(values), 1))


def bins_of(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """The bin of each value, the outer ones for what lies outside; a value at a rounded edge is above it."""
    return np.searchsorted(edges[1:-1] - slack(edges[1:-1]), values, side="right")


def slack(edges: Any) -> Any:
    """How far an edge may be from where it was before it was rounded."""
    return 10.0**-_PLACES + 4e-16 * np.abs(edges)


def listed(values: NDArray[Any]) -> list[float]:
    """As JSON, to nine places."""
    return [round(float(value), _PLACES) for value in values]
