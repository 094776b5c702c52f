"""What normal looks like, ``baseline.json`` of a bundle: distributions of inputs and answers, the reference for drift.

A column is described by its ``kind``: ``number`` has ``edges`` (deciles) with the ``shares`` of the known values
between them, ``category`` the ``shares`` of its commonest values and of all ``other`` ones, ``text`` a number's of its
``length``, and ``file`` nothing but its traits. ``missing`` is the share without a value, and ``rows`` of the document
says how many were counted, that of a trait how many for it. Where rows have moments, ``varies`` is how far single hours
and days of the week are from all rows, as PSI beyond chance.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.bundle import Input

FILE = "baseline.json"
_QUANTILES, _QUARTERS = np.linspace(0, 1, 11), (0.25, 0.5, 0.75)
_GROUP = 50  # rows of an hour or day that can be told from chance
_CATEGORIES = 30
_PLACES = 9


def describe_inputs(
    columns: Mapping[str, NDArray[Any]], inputs: Sequence[Input], seconds: NDArray[np.int64] | None = None
) -> dict[str, Any]:
    """``inputs`` of the document; `Evaluation.baseline` and `Evaluation.watched` say what the answers are.

    Args:
        seconds: the moment of each row, since 1970.
    """
    found = {item.name: describe(columns[item.name], item) for item in inputs}
    return _with_variation(found, columns, seconds)


def describe_answers(
    columns: Mapping[str, NDArray[Any]], seconds: NDArray[np.int64] | None = None
) -> dict[str, dict[str, Any]]:
    """``answer`` of the document: columns of numbers, or of names of categories; `seconds` as in `describe_inputs`."""
    found = {
        name: number(values) if values.dtype.kind in "fiub" else category(values.tolist())
        for name, values in columns.items()
    }
    return _with_variation(found, columns, seconds)


def _with_variation(
    found: dict[str, dict[str, Any]], columns: Mapping[str, NDArray[Any]], seconds: NDArray[np.int64] | None
) -> dict[str, dict[str, Any]]:
    if seconds is not None:
        for name, described in found.items():
            if described["kind"] != "file":
                described["varies"] = variation(columns[name], described, seconds)
    return found


def describe(values: NDArray[Any] | Sequence[Any], item: Input) -> dict[str, Any]:
    """The distribution of one input.

    A text of few different values counts as a category. A log keeps only the length of what is no declared category,
    so the length is described beside it.
    """
    if item.dtype == "bytes":
        return {"kind": "file"}
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
    edges = np.unique(np.round(_edges(known), _PLACES))
    return {
        "missing": missing,
        "mean": float(known.mean()),
        "deviation": float(known.std()),
        "edges": listed(edges),
        "shares": shares_of(known, edges),
    }


def _edges(known: NDArray[np.float64]) -> NDArray[np.float64]:
    """Deciles, the outer ones the extremes. A value that fills more than one is a bin of its own, beside the others."""
    found = np.quantile(known, _QUANTILES)
    values, times = np.unique(found, return_counts=True)
    often = values[times > 1]
    if not len(often):
        return found
    rest = known[~np.isin(known, often)]
    below = [(value + known[known < value].max()) / 2 for value in often if (known < value).any()]
    above = [(value + known[known > value].min()) / 2 for value in often if (known > value).any()]
    return np.concatenate([found, below, above, np.quantile(rest, _QUARTERS) if len(rest) else []])


def variation(values: NDArray[Any], described: Mapping[str, Any], seconds: NDArray[np.int64]) -> dict[str, float]:
    """How far single hours of the day, and days of the week, are from all rows; see the module."""
    if described["kind"] == "category":
        places = {name: at for at, name in enumerate(described["shares"], 1)}
        codes = np.array([places.get(value or "", 0) for value in values], dtype=np.int64)
    else:
        numeric = np.array([len(value or "") for value in values]) if described["kind"] == "text" else values
        edges = np.array(described.get("length", described).get("edges", ()))
        known = np.asarray(numeric, dtype=np.float64)
        codes = np.where(np.isfinite(known), 1 + bins_of(known, edges), 0)
    groups = {"hour": seconds // 3_600 % 24, "day": seconds // 86_400 % 7}
    return {name: round(_widest(codes, group), 6) for name, group in groups.items()}


def _widest(codes: NDArray[np.int64], groups: NDArray[np.int64]) -> float:
    """The largest PSI between a group and all, beyond what chance gives (mean and three deviations)."""
    whole, widest = np.bincount(codes), 0.0
    kept = whole > 0
    degrees = int(kept.sum()) - 1
    for group in np.unique(groups):
        some = np.bincount(codes[groups == group], minlength=len(whole))
        if some.sum() >= _GROUP:
            now = (some[kept] + 0.5) / (some.sum() + kept.sum() / 2)
            then = (whole[kept] + 0.5) / (whole.sum() + kept.sum() / 2)
            chance = (degrees + 3 * math.sqrt(2 * degrees)) * (1 / some.sum() + 1 / whole.sum())
            widest = max(widest, float(((now - then) * np.log(now / then)).sum() - chance))
    return widest


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
