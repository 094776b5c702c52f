"""The reference of one column of a log: its bins, the share of each, and in which one a logged value falls.

The first bins are for what is no value of the column: none, one that the reference never had (out of its range, or a
new category), an input that the record lacks, one of another type. The others have a share each; those with few rows
are merged: ten thousand categories are twenty and the rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from contracts.baseline import bins_of, slack
from contracts.bundle import Input
from services.monitor.divergence import Numbers, Places

MISSING, FOREIGN, LACKED, ODD, FIRST = range(5)  # positions of the bins; those from FIRST on are the column's own
UNSAID = -1  # a logged value that says nothing about the column
ABSENT = object()  # in the place of a value whose name the record lacks
SILENT = object()  # the same of a part of an answer or a trait: who wrote the record says nothing about it
_LEAST, _MOST = 0.01, 20  # share of a bin, and the number of categories
_OTHER = "(other)"
_NUMBERS = frozenset({float, int, bool, type(None)})
_WORDS = ("(missing)", "(out of range)", "(absent)", "(other type)")


@dataclass(frozen=True, kw_only=True, eq=False)
class Column:
    """One watched column.

    Attributes:
        name: of the input, or of a part of the answer in parentheses.  kind: number, category or text (its length).
        bins: in words.  shares: of the reference, one for each bin.  edges, names: what decides a value's bin.
        closed: whether a name that is not among `names` is new.
        varies: how far single hours of the day and days of the week are from all, as PSI.
        rows: of the reference that have this column; 0: all of them.
    """

    name: str
    kind: str
    bins: tuple[str, ...]
    shares: Numbers
    edges: Numbers
    names: Mapping[str, int]
    closed: bool = True
    varies: tuple[float, float] = (0.0, 0.0)
    rows: int = 0

    def place(self, values: Sequence[Any]) -> Places:
        """The bin of each logged value; `UNSAID` for one that says nothing."""
        if self.kind == "category":
            return np.fromiter((self._category(value) for value in values), dtype=np.int64, count=len(values))
        if _NUMBERS.issuperset(set(map(type, values))):
            return self._numbers(np.array(values, dtype=np.float64))
        one = self._length if self.kind == "text" else self._odd_number
        found = [one(value) for value in values]
        places = self._numbers(np.array([math.nan if isinstance(each, int) else each for each in found]))
        return np.array([each if isinstance(each, int) else at for each, at in zip(found, places, strict=True)])

    def _numbers(self, values: Numbers) -> Places:
        if not len(self.edges):
            return np.where(np.isnan(values), MISSING, FOREIGN)
        first, last = self.edges[0], self.edges[-1]
        outside = (values < first - slack(first)) | (values > last + slack(last))
        return np.where(np.isnan(values), MISSING, np.where(outside, FOREIGN, FIRST + bins_of(values, self.edges)))

    def _odd_number(self, value: Any) -> float | int:
        if value is SILENT:
            return UNSAID
        if value is None or value is ABSENT:
            return LACKED if value is ABSENT else MISSING
        return float(value) if isinstance(value, float | int) else ODD

    def _length(self, value: Any) -> float | int:
        if value is None or value is ABSENT:
            return LACKED if value is ABSENT else MISSING
        if isinstance(value, Mapping) and isinstance(value.get("chars"), int):
            return float(value["chars"]) or MISSING
        # The beginning of a text says nothing about its length.
        return UNSAID if isinstance(value, str) else ODD

    def _category(self, value: Any) -> int:
        if value is SILENT:
            return UNSAID
        if isinstance(value, str):
            return self.names.get(value, FOREIGN if self.closed else len(self.bins) - 1) if value else MISSING
        if value is None or value is ABSENT:
            return LACKED if value is ABSENT else MISSING
        if not isinstance(value, Mapping):
            return ODD
        return MISSING if value.get("chars") == 0 else FOREIGN


def column_of(name: str, described: Mapping[str, Any], item: Input | None = None) -> Column | str:
    """The column of what `contracts.baseline` says about it; else why it is not watched.

    Args:
        item: its entry in the signature, when it is an input: the log keeps categories only where they are declared.
    """
    if item is not None and item.dtype == "bytes":
        return "the log keeps nothing of a file"
    varies = described.get("varies", {})
    found = _column_of(name, described, item)
    if isinstance(found, str):
        return found
    hours_and_days = (varies.get("hour", 0.0), varies.get("day", 0.0))
    return replace(found, varies=hours_and_days, rows=int(described.get("rows", 0)))


def _column_of(name: str, described: Mapping[str, Any], item: Input | None) -> Column | str:
    kind = described.get("kind", "")
    if kind == "number":
        return _of_numbers(name, "number", described, described.get("missing", 0.0))
    if kind == "text" or (kind == "category" and item is not None and item.categories is None):
        if "length" not in described:
            return "the log keeps only the length of this text, of which the baseline says nothing"
        missing = described.get("missing", described.get("shares", {}).get("", 0.0))
        return _of_numbers(name, "text", described["length"], missing)
    if kind == "category":
        return _of_categories(name, described, item)
    return f"the baseline describes it as {kind or 'nothing'}"


def _of_numbers(name: str, kind: str, described: Mapping[str, Any], missing: float) -> Column:
    edges = np.array(described.get("edges", ()), dtype=np.float64)
    shares = np.array(described.get("shares", ()) if len(edges) else (), dtype=np.float64)
    if kind == "text" and missing and len(shares):  # an empty text is a missing one, and was counted as a length
        shares = np.clip(np.append(shares[0] - missing, shares[1:]), 0.0, None)
    edges, shares = _merged(edges, shares)
    known = shares * (1 - missing) / max(shares.sum(), 1e-12)
    texts = [f"{low:.6g} to {high:.6g}" for low, high in pairwise(edges)] or [f"{edge:.6g}" for edge in edges]
    return Column(
        name=name,
        kind=kind,
        bins=(*_WORDS, *texts),
        shares=np.concatenate([[missing if len(shares) else 1.0, 0.0, 0.0, 0.0], known]),
        edges=edges,
        names={},
    )


def _merged(edges: Numbers, shares: Numbers) -> tuple[Numbers, Numbers]:
    """Bins that are too narrow for nine places, or have too few rows, joined with their neighbour."""
    if len(edges) < 2:
        return edges, shares
    kept, sums, gathered = [edges[0]], list[float](), 0.0
    for edge, share in zip(edges[1:], shares, strict=True):
        gathered += share
        if gathered >= _LEAST and edge - kept[-1] > 4 * slack(edge):
            kept.append(edge)
            sums.append(gathered)
            gathered = 0.0
    if not sums:
        return np.array([edges[0], edges[-1]]), np.array([shares.sum()])
    kept[-1], sums[-1] = edges[-1], sums[-1] + gathered
    return np.array(kept), np.array(sums)


def _of_categories(name: str, described: Mapping[str, Any], item: Input | None) -> Column:
    given = {key: float(share) for key, share in described["shares"].items()}
    missing, other = given.pop("", 0.0), float(described.get("other", 0.0))
    common = sorted((key for key in given if given[key] >= _LEAST / 2), key=lambda key: (-given[key], key))[:_MOST]
    declared = set(item.categories or ()) if item is not None else set()
    places = {key: FIRST + at for at, key in enumerate(common)}
    last = FIRST + len(common)
    places |= dict.fromkeys((declared | set(given)) - set(common), last)
    rest = max(0.0, 1 - missing - sum(given[key] for key in common))
    return Column(
        name=name,
        kind="category",
        bins=(_WORDS[0], "(new)", *_WORDS[2:], *common, _OTHER),
        shares=np.array([missing, 0.0, 0.0, 0.0, *(given[key] for key in common), rest if rest > 2e-5 else 0.0]),
        edges=np.array([]),
        names=places,
        closed=bool(declared) or other < 2e-5,
    )
