"""Ways to train a model of two classes that treats groups alike; each has a price, which the card shows.

None of them needs the group when the model is asked. Strengths are tried on the validation rows, never on the test.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from contracts.errors import PlatformError
from pipelines.data.sensitive import NOT_STATED, read_groups
from pipelines.settings import setting
from pipelines.task import STRICT

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Mitigation:
    """How training rows are weighed.

    method: ``reweighing`` gives every group and class the weight that it would have if both were independent (F.
    Kamiran, T. Calders: Data preprocessing techniques for classification without discrimination, 2012), to the power
    of `strength`. ``parity`` gives every row its part in the error and in `strength` times the gap of selection between
    its group and all rows, the best response of a reduction to learning with costs (A. Agarwal et al.: A reductions
    approach to fair classification, 2018); the answer is one model and no lottery.
    column: the sensitive column.
    strengths: what is tried; the card shows each. `strength` is taken, or, with `target`, the least one with which the
    lowest rate of selection is at least so much of the highest.
    """

    method: Literal["none", "reweighing", "parity"] = "none"
    column: str = ""
    strength: Annotated[float, Field(ge=0)] = 1.0
    strengths: tuple[float, ...] = (0.0, 0.5, 1.0)
    target: Annotated[float, Field(gt=0, le=1)] | None = None

    @property
    def is_on(self) -> bool:
        """Whether rows are weighed."""
        return self.method != "none"

    @property
    def cuts_at_zero(self) -> bool:
        """Whether the answer that costs less is that of the raw score's sign, as costs are in the weights."""
        return self.method == "parity"

    def apply(
        self, dataset: Path, part: str, ids: Any, label: Ints, costs: tuple[float, float]
    ) -> tuple[Ints, Floats | None]:
        """The labels and weights to train with.

        Args:
            ids: of rows of the part, some perhaps more than once.
            costs: of a false alarm and of a miss.
        """
        if not self.is_on:
            return label, None
        group = self._groups(dataset, part, ids)
        if self.method == "reweighing":
            return reweighed(group, label, self.strength)
        return with_parity(group, label, self.strength, costs)

    def _groups(self, dataset: Path, part: str, ids: Any) -> NDArray[Any]:
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
    """The cheaper answer of each row as its label, and what the other one would cost more as its weight.

    Groups whose share of the second class is below that of all rows gain by it, others lose.
    """
    stated = group != NOT_STATED
    overall, push = label[stated].mean(), np.zeros(len(label))
    for name in set(group[stated]):
        rows = group == name
        push[rows] = np.sign(overall - label[rows].mean()) / rows[stated].mean()
    push[stated] -= push[stated].mean()
    alarm, miss = (2 * cost / sum(costs) for cost in costs)
    gain = np.where(label == 1, miss, -alarm) + strength * push
    return (gain > 0).astype(np.int64), np.abs(gain)
