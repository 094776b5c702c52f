"""People with tastes who are shown items: the built-in data, and a world in which recommenders can be tried.

A person likes attributes, and is bored for a while by what they had of late; items appear day by day, some are better
than others; what is shown first is looked at more. Nothing of this is in the data but clicks: tastes are the truth that
only an evaluation may see.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from contracts.problems.ranking import SEPARATOR
from pipelines.task import STRICT

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

ATTRIBUTES = (
    "adventure", "animals", "cooking", "crime", "family", "history",
    "humour", "music", "nature", "romance", "science", "sports",
)  # fmt: skip
_FORGOTTEN = 0.9  # of boredom, what is left after a visit
_APART = 40  # seconds between the clicks of two places
REGIONS = ("east", "north", "south", "west")
_UNSTATED = 0.05  # of people, whose region nobody knows


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SimulatorConfig:
    """The default data.

    shown: items of a visit.  new_share: items that appear after the first day.  crowd: how much what is shown follows
    what others click.  boredom: how much liking an item of the same kind takes from the next one.  local: how much more
    people like an item of their own region than of another; half of the items are of one.
    """

    people: int = 400
    items: int = 300
    days: int = 60
    start: str = "2026-01-05"
    visits: float = 0.5
    shown: int = 10
    new_share: float = 0.3
    crowd: float = 0.5
    boredom: float = 0.25
    local: float = 0.0


def looks(places: int) -> NDArray[np.float64]:
    """The chance that each place of a list is looked at: the truth that a ranker has to estimate."""
    found: NDArray[np.float64] = 1 / np.arange(1, places + 1) ** 0.5
    return found


class World:
    """People, items, and what they would like; the state is what people had so far.

    Attributes:
        has: attributes of the items, 0 or 1.  appears: the day of each item.  liking: of each person for each item.
    """

    def __init__(self, config: SimulatorConfig, seed: int) -> None:
        self.config, self._rng = config, np.random.default_rng(seed)
        rng, count = self._rng, len(ATTRIBUTES)
        likely = rng.dirichlet(np.full(count, 2.0))
        self.has = np.zeros((config.items, count))
        for row in self.has:
            row[rng.choice(count, rng.integers(1, 4), replace=False, p=likely)] = 1
        self.kind = self.has / self.has.sum(axis=1, keepdims=True)
        self.appears = np.where(
            rng.random(config.items) < config.new_share, rng.integers(1, config.days, config.items), 0
        )
        self.tastes = rng.dirichlet(np.full(count, 0.35), config.people)
        self.liking = 6 * self.tastes @ self.kind.T + rng.normal(0, 0.6, config.items)
        if config.local:
            people, of = _regions(config, seed)
            same = (people[:, None] == of) - (of >= 0) / len(REGIONS)
            self.liking += config.local * same
        self.active = rng.lognormal(0, 0.6, config.people)
        self.bored = np.zeros((config.people, count))
        self.had = np.zeros((config.people, config.items), dtype=bool)

    def show(self, people: NDArray[np.int64], day: int) -> NDArray[np.int64]:
        """Items as an editor might choose them: what the crowd takes and what the person likes, with much chance."""
        clicks = np.log1p(self.had.sum(axis=0))
        value = (
            self.config.crowd * clicks + 0.6 * self.liking[people] + self._rng.gumbel(0, 1, (len(people), len(clicks)))
        )
        value[self.had[people] | (self.appears > day)] = -np.inf
        order = np.argsort(-value, axis=1, kind="stable")
        return np.asarray(order[:, : self.config.shown])

    def take(self, people: NDArray[np.int64], lists: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of the items that they are shown people click, place by place; -1 is no item. They remember it."""
        look = looks(lists.shape[1])
        kind = self.kind[lists] * (lists >= 0)[:, :, None]
        bored = self.config.boredom * np.einsum("pia,pa->pi", kind, self.bored[people])
        likes = 1 / (1 + np.exp(-(np.take_along_axis(self.liking[people], np.maximum(lists, 0), 1) - bored - 3.0)))
        taken: NDArray[np.bool_] = (self._rng.random(lists.shape) < look * likes) & (lists >= 0)
        self.bored[people] = _FORGOTTEN * self.bored[people] + np.einsum("pia,pi->pa", kind, taken.astype(float))
        rows, places = np.nonzero(taken)
        self.had[people[rows], lists[rows, places]] = True
        return taken

    def visitors(self) -> NDArray[np.int64]:
        """Who comes on a day."""
        chance = 1 - np.exp(-self.config.visits * self.active)
        return np.flatnonzero(self._rng.random(len(chance)) < chance)

    def names(self, item: int) -> str:
        """The attributes of an item as the data have them."""
        return SEPARATOR.join(ATTRIBUTES[at] for at in np.flatnonzero(self.has[item]))


class Visit(NamedTuple):
    """A list that a person was shown.

    Attributes:
        items: by their places.  taken: which of them were clicked.
    """

    person: int
    at: datetime
    items: NDArray[np.int64]
    taken: NDArray[np.bool_]


def visits(config: SimulatorConfig, seed: int, world: World | None = None) -> Iterator[Visit]:
    """The visits of all days, in a `world` that goes on afterwards."""
    world = world or World(config, seed)
    start, rng = datetime.fromisoformat(f"{config.start}T00:00:00+00:00"), np.random.default_rng(seed + 1)
    for day in range(config.days):
        people = world.visitors()
        lists = world.show(people, day)
        taken = world.take(people, lists)
        at = rng.integers(6 * 3600, 23 * 3600, len(people))
        for row, person in enumerate(people.tolist()):
            yield Visit(person, start + timedelta(days=day, seconds=int(at[row])), lists[row], taken[row])


def simulate(config: SimulatorConfig, seed: int, world: World | None = None) -> Iterator[pa.Table]:
    """Clicks of all days, in the columns of the task; those in a `world` that goes on afterwards."""
    import pyarrow as pa

    world = world or World(config, seed)
    rows: list[tuple[str, str, datetime, str]] = []
    for visit in visits(config, seed, world):
        for place in np.flatnonzero(visit.taken).tolist():
            item = int(visit.items[place])
            moment = visit.at + timedelta(seconds=_APART * place)
            rows.append((f"u{visit.person:04d}", f"i{item:04d}", moment, world.names(item)))
    rows.sort(key=lambda row: (row[2], row[0], row[1]))
    users, items, moments, attributes = zip(*rows, strict=True)
    yield pa.table({
        "id": [f"{number:06d}" for number in range(1, len(rows) + 1)],
        "user": users,
        "item": items,
        "time": pa.array(moments, pa.timestamp("us", tz="UTC")),
        "rating": pa.nulls(len(rows), pa.float64()),
        "attributes": attributes,
        "part": pa.nulls(len(rows), pa.string()),
    })  # fmt: skip


def impressions(config: SimulatorConfig, seed: int) -> pd.DataFrame:
    """What was shown in the visits of `simulate`, see `pipelines.recipes.recommend.impressions`."""
    import pandas as pd

    found = list(visits(config, seed))
    shown = np.array([len(visit.items) for visit in found])
    return pd.DataFrame({
        "list": np.repeat([f"v{number:06d}" for number in range(len(found))], shown),
        "user": np.repeat([f"u{visit.person:04d}" for visit in found], shown),
        "item": [f"i{item:04d}" for visit in found for item in visit.items.tolist()],
        "place": np.concatenate([np.arange(1, count + 1) for count in shown]),
        "clicked": np.concatenate([visit.taken for visit in found]),
        "time": np.repeat(pd.DatetimeIndex([visit.at for visit in found]), shown),
    })  # fmt: skip


def users(config: SimulatorConfig, seed: int) -> pd.DataFrame:
    """Where people live, columns user and region; None where nobody knows."""
    import pandas as pd

    home, _ = _regions(config, seed)
    unstated = np.random.default_rng(seed + 3).random(len(home)) < _UNSTATED
    said = [None if nobody_knows else REGIONS[at] for at, nobody_knows in zip(home, unstated, strict=True)]
    return pd.DataFrame({"user": [f"u{person:04d}" for person in range(config.people)], "region": said})


def _regions(config: SimulatorConfig, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The region of each person, and of each item; -1: of none. Drawn by itself, so that nothing else changes by it."""
    rng = np.random.default_rng(seed + 2)
    people, items = (rng.integers(0, len(REGIONS), count) for count in (config.people, config.items))
    return people, np.where(rng.random(config.items) < 0.5, items, -1)
