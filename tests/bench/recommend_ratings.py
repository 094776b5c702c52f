"""How far off ratings of ml-latest-small are predicted: root mean squared error of five random folds.

Ratings of a person are a Gaussian process over items (C. Rasmussen, C. Williams, 2006): a mean of each item, shrunk;
what the person rates higher or lower in general; what is common to items that share attributes; and, in the last
contender, a mood that fades with the time between two ratings. A random fold has ratings between those that are known,
so the mood knows what a forecast would not: the others are without it. The variances are chosen for each fold, one
after another, on a tenth of what is not its test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.bench.report import Row

FOLDS, HELD, SEED = 5, 0.1, 3
LOW, HIGH = 0.5, 5.0
SHRINK_PEOPLE, SHRINK_ITEMS, ROUNDS = 5.0, 3.0, 8
START = {"person": 0.1, "attributes": 0.3, "mood": 0.0, "days": 0.05, "noise": 0.7}
TRIED: Mapping[str, tuple[float, ...]] = {
    "attributes": (0.15, 0.6), "noise": (0.6, 0.8), "person": (0.05, 0.2),
    "mood": (0.05, 0.15, 0.3), "days": (0.01, 0.2),
}  # fmt: skip
PLAIN = ("attributes", "noise", "person")


@dataclass(frozen=True)
class Ratings:
    """Attributes: person, item, day, value: of each rating.  attributes: of items, of length one."""

    person: NDArray[np.int64]
    item: NDArray[np.int64]
    day: NDArray[np.float64]
    value: NDArray[np.float64]
    attributes: NDArray[np.float64]
    rows: list[NDArray[np.int64]] = field(init=False)  # of each person

    def __post_init__(self) -> None:
        order = np.argsort(self.person, kind="stable")
        ends = np.cumsum(np.bincount(self.person))
        object.__setattr__(self, "rows", np.split(order, ends[:-1]))


def read(folder: Path) -> Ratings:
    """ratings.csv and movies.csv of MovieLens."""
    import pandas as pd

    ratings, movies = pd.read_csv(folder / "ratings.csv"), pd.read_csv(folder / "movies.csv")
    items = ratings["movieId"].astype("category").cat
    kinds = movies.set_index("movieId").loc[items.categories, "genres"].str.get_dummies("|").to_numpy(float)
    return Ratings(
        person=ratings["userId"].astype("category").cat.codes.to_numpy().astype(np.int64),
        item=items.codes.to_numpy().astype(np.int64),
        day=ratings["timestamp"].to_numpy(float) / 86_400,
        value=ratings["rating"].to_numpy(float),
        attributes=kinds / np.maximum(np.linalg.norm(kinds, axis=1, keepdims=True), 1),
    )


def items_of(data: Ratings, known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """What each item is rated by everybody, from the known ratings, apart from who rates high or low."""
    person, item, value = data.person[known], data.item[known], data.value[known]
    mean, count = value.mean(), len(data.attributes)
    people, items = np.zeros(int(data.person.max()) + 1), np.zeros(count)
    for _ in range(ROUNDS):
        rest = np.bincount(item, value - mean - people[person], count)
        items = rest / (np.bincount(item, minlength=count) + SHRINK_ITEMS)
        rest = np.bincount(person, value - mean - items[item], len(people))
        people = rest / (np.bincount(person, minlength=len(people)) + SHRINK_PEOPLE)
    found: NDArray[np.float64] = mean + items
    return found


def predicted(
    data: Ratings, items: NDArray[np.float64], known: NDArray[np.bool_], asked: NDArray[np.bool_], by: Any
) -> NDArray[np.float64]:
    """The ratings that are asked for, from the known ones, in their order."""
    found = np.full(len(data.value), np.nan)
    for rows in data.rows:
        mine, wanted = rows[known[rows]], rows[asked[rows]]
        if not len(wanted):
            continue
        found[wanted] = items[data.item[wanted]]
        if len(mine):
            off = data.value[mine] - items[data.item[mine]]
            near = alike(data, mine, mine, by) + by["noise"] * np.eye(len(mine))
            found[wanted] += alike(data, wanted, mine, by) @ np.linalg.solve(near, off)
    return np.clip(found[asked], LOW, HIGH)


def alike(data: Ratings, rows: Any, columns: Any, by: Mapping[str, float]) -> NDArray[np.float64]:
    """The covariance of what a person thinks of two ratings' items at their moments."""
    kinds = data.attributes[data.item[rows]] @ data.attributes[data.item[columns]].T
    found: NDArray[np.float64] = by["person"] + by["attributes"] * kinds
    if by["mood"]:
        found = found + by["mood"] * np.exp(-np.abs(data.day[rows][:, None] - data.day[columns]) / by["days"])
    return found


def chosen(
    data: Ratings, rest: NDArray[np.bool_], names: tuple[str, ...], rng: np.random.Generator
) -> dict[str, float]:
    """The variances that are best on a part of what may be learned from, one after another."""
    held = rest & (rng.random(len(rest)) < HELD)
    known, best = rest & ~held, dict(START)
    items = items_of(data, known)

    def error(by: Mapping[str, float]) -> float:
        return rmse(predicted(data, items, known, held, by), data.value[held])

    least = error(best)
    for name in names:
        for value in TRIED[name]:
            if (found := error({**best, name: value})) < least:
                least, best = found, {**best, name: value}
    return best


def rmse(found: NDArray[np.float64], true: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean((found - true) ** 2)))


def rating_rows(folder: Path, say: Callable[[str], object]) -> Iterator[Row]:
    """Five folds of three contenders."""
    data, rng = read(folder), np.random.default_rng(SEED)
    folds = rng.integers(0, FOLDS, len(data.value))
    off: dict[str, list[NDArray[np.float64]]] = {}
    for fold in range(FOLDS):
        test = folds == fold
        items = items_of(data, ~test)
        plain = chosen(data, ~test, PLAIN, rng)
        alone = {**plain, "attributes": 0.0}
        mood = chosen(data, ~test, tuple(TRIED), rng)
        say(f"fold {fold}: {plain} {mood}\n")
        for name, by in (("means of items and people", alone), ("attributes", plain), ("attributes and mood", mood)):
            off.setdefault(name, []).append(predicted(data, items, ~test, test, by) - data.value[test])
    for name, errors in off.items():
        value = rmse(np.concatenate(errors), np.zeros(len(data.value)))
        say(f"{name}: {value:.4f} {[round(rmse(one, np.zeros(len(one))), 4) for one in errors]}\n")
        goal = "<= 0.85" if name != "means of items and people" else ""
        yield Row(case="movielens, ratings, five random folds", contestant=f"fairlead {name}", value=value,
                  unit="RMSE", goal=goal)  # fmt: skip
    yield Row(case="movielens, ratings, five random folds", contestant="bias and ALS, known", value=0.852, unit="RMSE")
