"""A reference for a model that has no baseline: what its first full day was like."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import numpy as np

from contracts.baseline import category, number, numbers
from services.monitor.reference import ABSENT
from services.monitor.rules import Rules

_KEPT = 2_000  # values of each column; a fair sample of the day


class FirstDay:
    """Gathers a sample of the first rows until they are a day and enough; see `Rules.first_seconds`.

    Attributes:
        rows: that were seen.
    """

    def __init__(self, document: Mapping[str, Any] | None = None) -> None:
        given = document or {}
        self.rows: int = given.get("rows", 0)
        self._begin: float = given.get("begin", math.inf)
        self._end: float = given.get("end", -math.inf)
        self._sample: list[dict[str, Any]] = list(given.get("sample", ()))

    def add(self, times: Sequence[float], rows: Sequence[dict[str, Any]]) -> None:
        """Rows of watched columns by name, with their event times."""
        for at, row in zip(times, rows, strict=True):
            self._begin, self._end, self.rows = min(self._begin, at), max(self._end, at), self.rows + 1
            if len(self._sample) < _KEPT:
                self._sample.append(row)
            elif (place := Random(self.rows).randrange(self.rows)) < _KEPT:
                self._sample[place] = row

    def complete(self, rules: Rules) -> bool:
        """Whether they are a day and enough."""
        return self.rows >= rules.first_rows and self._end - self._begin >= rules.first_seconds

    @property
    def sample_rows(self) -> int:
        """How many rows the reference is made of."""
        return len(self._sample)

    def described(self) -> dict[str, dict[str, Any]]:
        """The columns as ``baseline.json`` describes them."""
        names = dict.fromkeys(name for row in self._sample for name in row)
        found = {name: _described([row.get(name, ABSENT) for row in self._sample]) for name in names}
        return {name: column for name, column in found.items() if column}

    def to_json(self) -> dict[str, Any]:
        """What the constructor takes."""
        if not self.rows:
            return {}
        return {"rows": self.rows, "begin": self._begin, "end": self._end, "sample": self._sample}


def _described(values: Sequence[Any]) -> dict[str, Any]:
    """One column, by what most of its values are; nothing where the log keeps nothing of it."""
    texts = [value for value in values if isinstance(value, str)]
    lengths = [value["chars"] for value in values if isinstance(value, Mapping) and "chars" in value]
    known = [float(value) for value in values if isinstance(value, float | int)]
    most = max(len(texts), len(lengths), len(known))
    if most == len(known):
        return number(
            np.array([value if isinstance(value, float | int) else math.nan for value in values], dtype=float)
        )
    if most == len(lengths):
        return {"kind": "text", "length": numbers(np.array(lengths, dtype=float)), "missing": 1 - most / len(values)}
    return category([value if isinstance(value, str) else "" for value in values])
