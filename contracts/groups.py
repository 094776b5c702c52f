"""Groups of people, such as those of a region: who is of which, and what is popular in each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.problems.ranking import OF_GROUP, listed

TRENDS = ("group.indptr", "group.indices", "group.values", "group.more")
PEOPLE = "group.people"
NONE, SMALL = -1, -2  # codes of who is of no group, and of one that is too small to be told apart
UNKNOWN_GROUP, SMALL_GROUP = "unknown_group", "small_group"


@dataclass(frozen=True)
class Groups:
    """Names of groups by their kinds; the code of a group is its place among all names, kind by kind.

    The arrays that belong to them are rows of groups, ``group.indptr``, ``group.indices``, ``group.values`` (from 0 to
    1, how popular each of its most popular items is in a group) and ``group.more`` (whether more than among all
    people); and ``group.people``, the code of each known person of each kind, shape (people, kinds).
    """

    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    codes: dict[tuple[str, str], int] = field(init=False)

    def __post_init__(self) -> None:
        every = [(kind, name) for kind, names in self.names.items() for name in names]
        object.__setattr__(self, "codes", {pair: code for code, pair in enumerate(every)})

    def label(self, code: int) -> str:
        """A group as requests and answers write it; "" of none."""
        return "" if code < 0 else OF_GROUP.join(list(self.codes)[code])

    def of(self, known: Sequence[int] | None, said: Mapping[str, str]) -> tuple[int, list[str]]:
        """The group that counts for a person, and flags: of the first kind that says one.

        Args:
            known: codes of the person, by kind.  said: what a request says, which goes before what is known; a name
                that there is not is no other one, and what is known does not stand in for it.
        """
        found, flags = NONE, list[str]()
        for at, kind in enumerate(self.names):
            if kind in said:
                code = self.codes.get((kind, said[kind]), NONE)
                flags += [UNKNOWN_GROUP] if code == NONE else []
            else:
                code = NONE if known is None else int(known[at])
                flags += [SMALL_GROUP] if code == SMALL and found < 0 else []
            found = max(code, NONE) if found < 0 else found
        return found, list(dict.fromkeys(flags))

    def check(self, arrays: Mapping[str, NDArray[Any]], items: int, people: int) -> None:
        """Refuse arrays of other groups.

        Raises:
            ValueError: naming the first that does not fit; KeyError: one is missing.
        """
        if not self.names:
            return
        ends, places, values, more = (arrays[name] for name in TRENDS)
        if len(ends) != len(self.codes) + 1 or not int(ends[-1]) == len(places) == len(values) == len(more):
            raise ValueError(f"{TRENDS[0]} is not of {len(self.codes)} groups")
        if len(places) and not 0 <= int(places.min()) <= int(places.max()) < items:
            raise ValueError(f"{TRENDS[1]} names items that are not in the catalogue")
        codes = arrays[PEOPLE]
        if codes.shape != (people, len(self.names)):
            raise ValueError(f"{PEOPLE} is of {codes.shape}, not of {people} people and {len(self.names)} kinds")
        if codes.size and not SMALL <= int(codes.min()) <= int(codes.max()) < len(self.codes):
            raise ValueError(f"{PEOPLE} names groups that there are not")


def said_groups(text: str) -> dict[str, str]:
    """What the input `group` says, by kind."""
    return {kind: name for kind, _, name in (one.partition(OF_GROUP) for one in listed(text))}


def trend_of(arrays: Mapping[str, NDArray[Any]], group: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """How popular each item is in a group, from 0 to 1, and whether it is more so there than among all people.

    Below its most popular items come all others, in the order of everybody.
    """
    ends, places, values, more = (arrays[name] for name in TRENDS)
    row = slice(int(ends[group]), int(ends[group + 1]))
    found = np.asarray(arrays["trend"], dtype=np.float32) * np.float32(min(values[row], default=1.0))
    found[places[row]] = values[row]
    above = np.zeros(len(found), dtype=bool)
    above[places[row]] = more[row]
    return found, above
