"""Places of a list that are left to chance, and the exact chance that each item had to stand where it stands.

Without it a log only says how good the lists were that were shown; with it, also how good others would have been.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import comb

import numpy as np

DRAWS = 16  # lists of which Thompson sampling shows one


def explored(
    lists: Sequence[Sequence[int]], drawn: int, pool: Sequence[int], share: float, rng: np.random.Generator
) -> tuple[list[int], list[float]]:
    """One of several lists with some of its places left to chance, and the propensity of each place's item.

    Each place is left to chance with probability `share`; such places get, in any order, items of the pool that stand
    in no other place. Which list is shown is chance too, each is as likely.

    Args:
        lists: of the same length, each item once; `drawn` is the one that is shown.  pool: further candidates.

    Returns:
        items by place, and the chance that the item would stand at its place, over all that is left to chance here.
    """
    shown = list(lists[drawn])
    everything = list(dict.fromkeys([*(item for one in lists for item in one), *pool]))
    places = np.flatnonzero(rng.random(len(shown)) < share).tolist()
    kept = {item for place, item in enumerate(shown) if place not in set(places)}
    others = [item for item in everything if item not in kept]
    for place, at in zip(places, rng.permutation(len(others))[: len(places)].tolist(), strict=True):
        shown[place] = others[at]
    chance = np.mean([propensities(one, shown, len(everything), share) for one in lists], axis=0)
    return shown, [float(one) for one in chance]


def propensities(base: Sequence[int], shown: Sequence[int], pool: int, share: float) -> list[float]:
    """The chance that each place has the item that it shows, where `base` is what it shows without chance.

    Args:
        pool: candidates in all, those of `base` among them.
    """
    count, where = len(base), {item: place for place, item in enumerate(base)}
    alone, both = (_drawn(count, pool, share, others) for others in (1, 2))
    found = []
    for place, item in enumerate(shown):
        own = where.get(item)
        if own == place:
            found.append(1 - share + share * alone)
        else:
            found.append(share * alone if own is None else share**2 * both)
    return found


@lru_cache(maxsize=1024)
def _drawn(count: int, pool: int, share: float, certain: int) -> float:
    """The chance that a place gets one item, where `certain` places, this one too, are left to chance in any case."""
    if count < certain:
        return 0.0
    free = count - certain
    return sum(
        comb(free, more) * share**more * (1 - share) ** (free - more) / (pool - count + certain + more)
        for more in range(free + 1)
    )
