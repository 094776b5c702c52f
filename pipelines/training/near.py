"""What is popular in groups of people: arrays of `contracts.groups` from who took what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from contracts.groups import NONE, PEOPLE, SMALL, TRENDS, Groups

if TYPE_CHECKING:
    import pandas as pd

    from contracts.recommender import Recommender
    from pipelines.training.taken import Taken

_MOST = 1_000  # items of a group that are kept


@dataclass(frozen=True)
class Near:
    """Groups of people, by a table of them.

    Attributes:
        table: columns user and one for each kind of group, see `pipelines.recipes.recommend.users`.
        settings: a `pipelines.recipes.recommend.settings.UsersConfig`.
    """

    table: pd.DataFrame
    settings: Any

    @property
    def users(self) -> list[str]:
        """Everybody of the table."""
        return [str(user) for user in self.table["user"]]

    def joined(self, model: Recommender, users: Sequence[str], taken: Taken) -> Recommender:
        """The model with the groups, told of who took what.

        A group has at least ``least`` people who took something; of smaller ones no name and no number is kept. An
        item's share of what its people took, lately more than before, is drawn to that of everybody by ``prior``.

        Args:
            users: the people of `taken`.
        """
        least, days, prior = self.settings.least, self.settings.half_life, self.settings.prior
        rows = self._rows(users)
        there = np.unique(taken.user_of)
        names = dict[str, list[str]]()
        for kind, said in rows.items():
            found, counts = np.unique(said[there].astype(str), return_counts=True)
            names[kind] = [
                name for name, count in zip(found.tolist(), counts.tolist(), strict=True) if name and count >= least
            ]
        weights = 0.5 ** (taken.ages / days) if days else np.ones(len(taken.ages))
        total = np.bincount(taken.item_of, weights=weights, minlength=taken.matrix.shape[1])
        every = total / max(float(total.sum()), 1e-12)
        made = []
        for kind, kept in names.items():
            for name in kept:
                mine = (rows[kind] == name)[taken.user_of]
                counts = np.bincount(taken.item_of[mine], weights=weights[mine], minlength=len(total))
                share = (counts + prior * every) / max(float(counts.sum()) + prior, 1e-12)
                places = np.flatnonzero(share)
                if len(places) > _MOST:
                    places = np.sort(places[np.argpartition(-share[places], _MOST - 1)[:_MOST]])
                made.append((places, share[places] / max(float(share.max()), 1e-12), (share > every)[places]))
        parts = [
            np.concatenate(column) if made else np.zeros(0)
            for column in (zip(*made, strict=True) if made else ((),) * 3)
        ]
        dtypes = (np.int32, np.float32, np.bool_)
        ends = np.cumsum([0, *(len(places) for places, _, _ in made)], dtype=np.int64)
        arrays = dict(
            zip(TRENDS, (ends, *(part.astype(dtype) for part, dtype in zip(parts, dtypes, strict=True))), strict=True)
        )
        groups = Groups(names)
        return replace(model, groups=groups, arrays={**model.arrays, **arrays, PEOPLE: self.codes(groups, users)})

    def codes(self, groups: Groups, users: Sequence[str]) -> NDArray[np.int32]:
        """``group.people`` of these people."""
        found = np.full((len(users), len(groups.names)), NONE, dtype=np.int32)
        for at, (kind, said) in enumerate(self._rows(users).items()):
            for name in set(said.tolist()) - {""}:
                found[said == name, at] = groups.codes.get((kind, name), SMALL)
        return found

    def _rows(self, users: Sequence[str]) -> Mapping[str, NDArray[Any]]:
        """The group of each of these people by kind; "" where nothing is stated."""
        rows = self.table.set_index("user").reindex(list(users)).fillna("")
        return {kind: rows[kind].to_numpy(dtype=object) for kind in self.settings.groups}


def weighed(model: Recommender, weights: Sequence[float], measure: Callable[[Sequence[Recommender]], float]) -> float:
    """The weight of groups that `measure` likes best, the first of equal ones.

    Args:
        measure: given the model for each row of ``group.people``.
    """
    best, most = weights[0], -1.0
    group = [model.groups.of(row, {})[0] for row in model.arrays[PEOPLE].tolist()]
    for weight in weights:
        one = replace(model, spec=model.spec.model_copy(update={"group_weight": weight}))
        views = {code: one.of_group(code) for code in set(group)}
        found = measure([views[code] for code in group])
        if found > most:
            best, most = weight, found
    return best
