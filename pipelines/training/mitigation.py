"""Ways to train a model of two classes that treats groups alike; each has a price, which the card shows.

None of them needs the group when the model is asked. Strengths are tried on the validation rows, never on the test.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from contracts.errors import PlatformError
from contracts.fairness import NOT_STATED
from pipelines.data.sensitive import read_groups
from pipelines.settings import setting
from pipelines.task import STRICT
from pipelines.training.adversary import UNKNOWN, Opponent
from pipelines.training.exponentiated_gradient import Constraint
from pipelines.training.group_thresholds import thresholds

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Method = Literal[
    "reweighing",
    "oversampling",
    "undersampling",
    "parity",
    "exponentiated_gradient",
    "adversarial",
    "thresholds",
]
_REASON = 10  # characters of one that says something


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Mitigation:
    """How groups are to be treated alike.

    method: ``reweighing`` gives every group and class the weight that it would have if both were independent (F.
    Kamiran, T. Calders: Data preprocessing techniques for classification without discrimination, 2012), to the power
    of `strength`. ``parity`` gives every row its part in the error and in `strength` times the gap of selection between
    its group and all rows, the best response of a reduction to learning with costs (A. Agarwal et al.: A reductions
    approach to fair classification, 2018). ``exponentiated_gradient`` finds that part by fairlearn so that a share
    `strength` of the gap is gone, for any number of groups and either `constraint`. Each is one model, no lottery.
    ``oversampling`` draws rows of groups and classes that are too few again, ``undersampling`` leaves out some of those
    that are too many, until both are independent, to the power of `strength`; without `column` until classes are as
    many. Training rows alone are drawn: what is measured, and how probabilities are calibrated, is by rows as they are.
    ``adversarial`` trains a network against one that guesses the group from its answer, see
    `pipelines.training.adversary`, `strength` times as hard as for the label; for all epochs.
    ``thresholds`` changes no model: each group gets a threshold of its own that takes away a share `strength` of the
    gap of selection. Requests say no group and keep the common one, by which the gate judges; ``fairlead score`` with
    ``groups.table`` takes them. reason: why, which the bundle keeps; there must be one.
    constraint: of the two before: equal selection, or equal errors in each class.
    column: the sensitive column.
    strengths: what is tried; the card shows each. `strength` is taken, or, with `target`, the least one with which the
    lowest rate of selection is at least so much of the highest.
    compare: other methods that are tried with these strengths too, for the plot alone; none of them is taken.
    """

    method: Literal["none"] | Method = "none"
    constraint: Constraint = "demographic_parity"
    column: str = ""
    strength: Annotated[float, Field(ge=0)] = 1.0
    strengths: tuple[float, ...] = (0.0, 0.5, 1.0)
    target: Annotated[float, Field(gt=0, le=1)] | None = None
    compare: tuple[Method, ...] = ()
    reason: str = ""

    @property
    def is_on(self) -> bool:
        """Whether groups are treated at all."""
        return self.method != "none"

    @property
    def cuts_at_zero(self) -> bool:
        """Whether the answer that costs less is that of the raw score's sign, as costs are in the weights."""
        return self.method in ("parity", "exponentiated_gradient")

    def apply(
        self, dataset: Path, parts: Sequence[tuple[str, Any, Ints]], x: Floats, costs: tuple[float, float]
    ) -> list[tuple[Ints, Floats | None]]:
        """The labels and weights to train with, of each part.

        Args:
            parts: name, ids of rows, some perhaps more than once, and labels; the training rows are the first.
            x: inputs of the training rows.  costs: of a false alarm and of a miss.
        """
        if not self.is_on:
            return [(label, None) for _, _, label in parts]
        given = [(self._groups(dataset, name, ids), label) for name, ids, label in parts]
        return _WEIGHINGS[self.method](self, given, x, costs)

    def opponent(self, dataset: Path, ids: Any, kind: str = "network") -> Opponent | None:
        """Whom a network is trained against, by the ids of its training rows; None without ``adversarial``.

        Raises:
            PlatformError: ``code="bad_config"``: a model of another `kind`.
        """
        if self.method != "adversarial":
            return None
        if kind != "network":
            raise PlatformError(
                f"a {kind} cannot be trained against an adversary, as it is not trained with torch",
                fix=f"train a network, with --recipe network, or {setting('mitigation.method', 'parity')}",
                code="bad_config",
            )
        names = self._groups(dataset, "train", ids)
        number = {name: at for at, name in enumerate(sorted(set(names) - {NOT_STATED}))}
        groups = np.array([number.get(name, UNKNOWN) for name in names], dtype=np.int64)
        return Opponent(groups=groups, strength=self.strength, sees_truth=self.constraint == "equalized_odds")

    def by_group(self, dataset: Path, ids: Any, probability: Floats, common: float) -> dict[str, Any] | None:
        """The thresholds of groups by the validation rows, for a bundle's decision; None without ``thresholds``."""
        if self.method != "thresholds":
            return None
        found = thresholds(probability, self._groups(dataset, "valid", ids), common, self.strength)
        return {"column": self.column, "thresholds": found, "reason": self.reason.strip()}

    def check_reason(self) -> None:
        """Refuse thresholds by group that nobody gave a reason for.

        Raises:
            PlatformError: ``code="bad_config"``.
        """
        if self.method == "thresholds" and len(self.reason.strip()) < _REASON:
            raise PlatformError(
                "thresholds by group need a reason, which is kept in the bundle",
                detail="the same probability gets other answers in another group, which is unlawful in many places",
                fix=setting("mitigation.reason", "who allowed it, when, and for what"),
                code="bad_config",
            )

    def _groups(self, dataset: Path, part: str, ids: Any) -> NDArray[Any]:
        if not self.column and self.method in _SAMPLINGS:
            return np.full(len(ids), "all", dtype=object)
        groups = read_groups(dataset, part, ids)
        known = [] if groups is None else list(map(str, groups.columns))
        if groups is None or self.column not in known:
            raise PlatformError(
                f"mitigation.column {self.column!r} is no sensitive column of the task",
                detail=f"sensitive columns: {', '.join(known) or 'none'}",
                fix=setting("mitigation.column", known[0]) if known else setting("mitigation.method", "none"),
                code="bad_config",
            )
        names = groups[self.column].to_numpy(dtype=object)
        if len(set(names) - {NOT_STATED}) < 2:
            raise PlatformError(
                f"mitigation.column {self.column!r} has fewer than two groups in the {part} rows",
                detail=f"values: {', '.join(sorted(set(names)))}",
                fix=setting("mitigation.method", "none"),
                code="bad_data",
            )
        return np.asarray(names)


def reweighed(group: NDArray[Any], label: Ints, strength: float) -> tuple[Ints, Floats]:
    """Labels as they are, and the weights of reweighing; rows whose group is not stated weigh one."""
    weight, stated = np.ones(len(label)), group != NOT_STATED
    for name in set(group[stated]):
        for value in (0, 1):
            rows = (group == name) & (label == value)
            if rows.any():
                expected = (group == name)[stated].mean() * (label == value)[stated].mean()
                weight[rows] = (expected / rows[stated].mean()) ** strength
    return label, weight


def with_parity(
    group: NDArray[Any], label: Ints, strength: float, costs: tuple[float, float] = (1.0, 1.0)
) -> tuple[Ints, Floats]:
    """`with_push` by the gap of each group.

    Groups whose share of the second class is below that of all rows gain by it, others lose.
    """
    stated = group != NOT_STATED
    overall, push = label[stated].mean(), np.zeros(len(label))
    for name in set(group[stated]):
        rows = group == name
        push[rows] = np.sign(overall - label[rows].mean()) / rows[stated].mean()
    push[stated] -= push[stated].mean()
    return with_push(label, strength * push, costs)


def with_push(label: Ints, push: Floats, costs: tuple[float, float]) -> tuple[Ints, Floats]:
    """The cheaper answer of each row as its label, and what the other one would cost more as its weight.

    push: what the second class gains.  costs: of a false alarm and of a miss; only which part of both counts.
    """
    alarm, miss = (2 * cost / sum(costs) for cost in costs)
    gain = np.where(label == 1, miss, -alarm) + push
    return (gain > 0).astype(np.int64), np.abs(gain)


Given = Sequence[tuple[NDArray[Any], Ints]]  # groups and labels of each part


def _reweigh(
    asked: Mitigation, given: Given, x: Floats, costs: tuple[float, float]
) -> list[tuple[Ints, Floats | None]]:
    return [reweighed(group, label, asked.strength) for group, label in given]


def _parity(asked: Mitigation, given: Given, x: Floats, costs: tuple[float, float]) -> list[tuple[Ints, Floats | None]]:
    return [with_parity(group, label, asked.strength, costs) for group, label in given]


def _by_gradient(
    asked: Mitigation, given: Given, x: Floats, costs: tuple[float, float]
) -> list[tuple[Ints, Floats | None]]:
    from pipelines.training.exponentiated_gradient import gains

    group, label = given[0]
    stated, table = group != NOT_STATED, dict[tuple[str, int], float]()
    if asked.strength > 0:
        alarm, miss = (2 * cost / sum(costs) for cost in costs)
        table = gains(
            x[stated], group[stated], label[stated], asked.strength, asked.constraint, (alarm, miss), asked.column
        )
    pushes = [np.array([table.get((str(g), int(y)), 0.0) for g, y in zip(*one, strict=True)]) for one in given]
    return [with_push(label, push, costs) for (_, label), push in zip(given, pushes, strict=True)]


def _as_they_are(
    asked: Mitigation, given: Given, x: Floats, costs: tuple[float, float]
) -> list[tuple[Ints, Floats | None]]:
    return [(label, np.ones(len(label))) for _, label in given]


def _resample(
    asked: Mitigation, given: Given, x: Floats, costs: tuple[float, float]
) -> list[tuple[Ints, Floats | None]]:
    (group, label), *others = given
    drawn = resampled(group, label, asked.strength, _SAMPLINGS[asked.method], bool(asked.column))
    return [(label, drawn), *((one, np.ones(len(one))) for _, one in others)]


def resampled(group: NDArray[Any], label: Ints, strength: float, over: bool, by_group: bool) -> Floats:
    """How often each row is drawn: of a group and class that is short at least once, `over`; else at most once."""
    cells = [(group == name) & (label == value) for name in sorted(set(group) - {NOT_STATED}) for value in (0, 1)]
    cells = [cell for cell in cells if cell.any()]
    sizes = np.array([cell.sum() for cell in cells], dtype=np.float64)
    stated = group != NOT_STATED
    wanted = np.array(
        [
            (group == group[cell][0]).sum() * (label[stated] == label[cell][0]).mean() if by_group else 1.0
            for cell in cells
        ]
    )
    ratio = wanted / sizes
    share = (ratio / (ratio.min() if over else ratio.max())) ** strength
    rng, drawn = np.random.default_rng(7), np.ones(len(label))
    for cell, often in zip(cells, share, strict=True):
        rows, whole = np.flatnonzero(cell), int(often)
        more = rng.permutation(rows)[: round((often - whole) * len(rows))]
        drawn[rows] = whole
        drawn[more] += 1
    return drawn


_SAMPLINGS = {"oversampling": True, "undersampling": False}
_WEIGHINGS = {
    "oversampling": _resample,
    "undersampling": _resample,
    "reweighing": _reweigh,
    "parity": _parity,
    "exponentiated_gradient": _by_gradient,
    "adversarial": _as_they_are,
    "thresholds": _as_they_are,
}
