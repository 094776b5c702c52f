"""The smallest change of a row's inputs with which the answer would be the favourable one, found by asking the model.

``reasons.json`` of a bundle says which inputs may change and which way; ``baseline.json`` how values are spread: the
size of a change is the share of rows between the old value and the new one, and 1 for another category. S. Wachter, B.
Mittelstadt, C. Russell: Counterfactual explanations without opening the black box, 2018. What is told was scored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.bundle import Input

_MOST = 12  # values of an input that are tried
_INPUTS = 6  # that are changed two at a time: those with the most effect
_HALVINGS = 6
_CATEGORY = 1.0

Row = dict[str, Any]
Score = Callable[[Mapping[str, NDArray[Any]]], tuple[NDArray[np.bool_], NDArray[np.float64]]]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One input with another value; `size` is how much of a change that is."""

    name: str
    value: Any
    size: float


class Counterfactuals:
    """Searches for one model.

    Args:
        changes: input -> ``up``, ``down`` or ``any``.  normal: ``inputs`` of ``baseline.json``.
        score: of rows, whether the answer is favourable and its probability.
    """

    def __init__(
        self, inputs: Sequence[Input], changes: Mapping[str, str], normal: Mapping[str, Any], score: Score
    ) -> None:
        self._changes = [(item, changes[item.name]) for item in inputs if item.name in changes]
        self._normal, self._score = normal, score
        self._kinds = {item.name: object if item.dtype == "string" else np.float64 for item in inputs}

    def of(self, row: Row) -> list[dict[str, Any]] | None:
        """The changes, each with the old and the new value; None where no allowed change is enough."""
        steps = {item.name: self._steps(item, way, row[item.name]) for item, way in self._changes}
        single: list[tuple[Step, ...]] = [(one,) for some in steps.values() for one in some]
        if not single:
            return None
        flips, chances = self._tried(row, single)
        found: list[tuple[Step, ...]] = [plan for plan, flip in zip(single, flips, strict=True) if flip]
        if not found:
            found = self._pairs(row, single, chances)
        if not found:
            found = self._all(row, single, chances)
        if not found:
            return None
        best = min(found, key=lambda plan: sum(step.size for step in plan))
        return [
            {"feature": step.name, "from": _plain(row[step.name]), "to": _plain(step.value)}
            for step in self._shrunk(row, best)
        ]

    def _pairs(self, row: Row, single: Sequence[tuple[Step, ...]], chances: Any) -> list[tuple[Step, ...]]:
        best: dict[str, float] = {}
        for (step,), chance in zip(single, chances, strict=True):
            best[step.name] = max(best.get(step.name, 0.0), float(chance))
        names = sorted(best, key=lambda name: -best[name])[:_INPUTS]
        few = [step for (step,) in single if step.name in names]
        pairs = [(first, second) for first, second in combinations(few, 2) if first.name != second.name]
        if not pairs:
            return []
        flips, _ = self._tried(row, pairs)
        return [pair for pair, flip in zip(pairs, flips, strict=True) if flip]

    def _all(self, row: Row, single: Sequence[tuple[Step, ...]], chances: Any) -> list[tuple[Step, ...]]:
        """Every input at its best value, without those that can stay as they are."""
        now = float(self._tried(row, [()])[1][0])
        best: dict[str, tuple[float, Step]] = {}
        for (step,), chance in zip(single, chances, strict=True):
            if chance > best[step.name][0] if step.name in best else chance > now:
                best[step.name] = (float(chance), step)
        plan = tuple(step for _, step in sorted(best.values(), key=lambda pair: pair[0]))
        if not plan or not self._tried(row, [plan])[0][0]:
            return []
        for step in plan:
            rest = tuple(one for one in plan if one is not step)
            if rest and self._tried(row, [rest])[0][0]:
                plan = rest
        return [plan]

    def _shrunk(self, row: Row, plan: tuple[Step, ...]) -> tuple[Step, ...]:
        """Numbers drawn back towards what they were, as far as the answer stays; three digits are kept."""
        for at, step in enumerate(plan):
            old = row[step.name]
            if isinstance(step.value, str) or np.isnan(old):
                continue
            far, near = float(step.value), float(old)
            for _ in range(_HALVINGS):
                middle = float(f"{(far + near) / 2:.3g}")
                closer = (*plan[:at], Step(name=step.name, value=middle, size=step.size), *plan[at + 1 :])
                if middle not in (far, near) and self._tried(row, [closer])[0][0]:
                    far, plan = middle, closer
                else:
                    near = middle
        return plan

    def _steps(self, item: Input, way: str, old: Any) -> list[Step]:
        """Other values of an input that may be tried."""
        if item.dtype == "string":
            names = [name for name in item.categories or [] if name != old]
            return [Step(name=item.name, value=name, size=_CATEGORY) for name in names]
        known = self._normal.get(item.name, {})
        edges, shares = np.array(known.get("edges", [])), np.array(known.get("shares", []))
        if not len(edges) or np.isnan(old):
            return []
        below = np.concatenate([[0.0], np.cumsum(shares)])
        place = np.interp(old, edges, below[: len(edges)])
        allowed = [
            at for at, edge in enumerate(edges) if (edge > old and way != "down") or (edge < old and way != "up")
        ]
        chosen = sorted({allowed[int(at)] for at in np.linspace(0, len(allowed) - 1, _MOST)}) if allowed else []
        steps = [(float(f"{edges[at]:.3g}"), abs(float(below[at] - place))) for at in chosen]
        up, down = way != "down", way != "up"
        return [
            Step(name=item.name, value=value, size=size)
            for value, size in steps
            if (value > old and up) or (value < old and down)
        ]

    def _tried(self, row: Row, plans: Sequence[Sequence[Step]]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        columns = {}
        for name, kind in self._kinds.items():
            values = np.empty(len(plans), dtype=kind)
            values[:] = row[name]
            columns[name] = values
        for at, plan in enumerate(plans):
            for step in plan:
                columns[step.name][at] = step.value
        return self._score(columns)


def _plain(value: Any) -> Any:
    if isinstance(value, str) or value is None:
        return value
    return None if np.isnan(value) else float(value)
