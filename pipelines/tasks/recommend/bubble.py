"""The bubble test: people click what they are shown, the model learns from it, and again; what do they see then?

A single number of one evaluation cannot show a bubble: it forms between a model and the people who only click what it
shows (A. Chaney, B. Stewart, B. Engelhardt: How algorithmic confounding in recommendation systems increases
homogeneity, 2018).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from contracts.problems.ranking import Ranked
from pipelines.evaluation.list_measures import Exposure
from pipelines.tasks.recommend.config import RecommendTaskConfig
from pipelines.tasks.recommend.simulator import World, simulate
from pipelines.training.recommend import Log, candidates, lists_of, read_log, recommender
from pipelines.training.recommenders import fit

ROUNDS, LISTED = 20, 10
_DAY = 86_400.0


def without_reranking(config: RecommendTaskConfig) -> RecommendTaskConfig:
    """The same recipe, whose lists are by relevance alone."""
    return replace(config, list=replace(config.list, diversity=0.0, penalty=0.0, new_share=0.0))


def bubble(config: RecommendTaskConfig, rounds: int = ROUNDS, listed: int = LISTED) -> list[dict[str, float]]:
    """What people see in each round, in a world that begins with the built-in data.

    In a round everybody gets a list of a model that has learned from all clicks so far, clicks what they like of it,
    more of what stands first and less of what bores them, and nothing else. Settings with several values take the
    first.

    Returns:
        Of each round ``entropy`` of the attributes that a person sees, in bits and the mean over people; ``tail``, the
        share of what is shown that is not of the tenth that had most clicks before the first round; ``coverage`` and
        ``gini`` of the round; ``liked``, how much people really like what they see; ``drift``, how far the attributes
        of all that a person has clicked, which a model takes for the taste, are from the true one: half the sum of the
        differences, 0 to 1, the mean over people; and ``clicks`` of a list.
    """
    world, log = _begin(config)
    chosen = candidates(config.model)[0]
    people = np.arange(config.simulator.people)
    head = _head(log, config.simulator.items)
    found = []
    for number in range(rounds):
        read = read_log([log])
        taken = read.taken(np.arange(len(log)), config.seed)
        model = recommender(read, taken, chosen, fit(taken, chosen), config.list)
        histories = _histories(read, config.simulator.people)
        answers = list(lists_of(model, histories, listed, config.list.diversity))
        shown = _shown(answers, listed)
        liked = float(world.liking[people[:, None], np.maximum(shown, 0)][shown >= 0].mean())
        clicks = world.take(people, shown)
        found.append({"round": number + 1.0, **_seen(world, answers, shown, head), "liked": liked})
        found[-1] |= {"drift": _drift(world), "clicks": float(clicks.sum(axis=1).mean())}
        log = pd.concat([log, _clicked(world, shown, clicks, log["seconds"].max() + _DAY)], ignore_index=True)
    return found


def _begin(config: RecommendTaskConfig) -> tuple[World, pd.DataFrame]:
    """The world after the built-in data, all items of which have appeared, and these data as a log."""
    world = World(config.simulator, config.seed)
    table = next(simulate(config.simulator, config.seed, world)).to_pandas()
    seconds = table["time"].to_numpy(dtype="datetime64[us]").astype(np.int64) / 1e6
    log = pd.DataFrame({"user": table["user"], "label": table["item"], "seconds": seconds, "liked": True})
    return world, log.assign(item_attributes=table["attributes"])


def _histories(read: Log, people: int) -> list[list[int]]:
    """Of all people, also of those who never clicked."""
    known = dict(zip(read.users, read.histories(np.argsort(-read.ages, kind="stable")), strict=True))
    return [known.get(f"u{person:04d}", []) for person in range(people)]


def _shown(answers: list[Ranked], listed: int) -> NDArray[np.int64]:
    """The lists as numbers of items; -1 where a list is shorter."""
    shown = np.full((len(answers), listed), -1, dtype=np.int64)
    for row, one in enumerate(answers):
        shown[row, : len(one.items)] = [int(item[1:]) for item in one.items]
    return shown


def _head(log: pd.DataFrame, items: int) -> NDArray[np.bool_]:
    """The tenth of the items that had most clicks."""
    counts = np.bincount(log["label"].str[1:].astype(int), minlength=items)
    head = np.zeros(items, dtype=bool)
    head[np.argsort(-counts, kind="stable")[: max(1, items // 10)]] = True
    return head


def _seen(world: World, answers: list[Ranked], shown: NDArray[np.int64], head: NDArray[np.bool_]) -> dict[str, float]:
    there = shown >= 0
    mix = (world.kind[np.maximum(shown, 0)] * there[:, :, None]).sum(axis=1)
    share = mix / np.maximum(mix.sum(axis=1, keepdims=True), 1e-12)
    bits = -(share * np.log2(np.where(share > 0, share, 1))).sum(axis=1)
    every: dict[str, Any] = Exposure([one.items for one in answers], len(head)).measure()
    return {"entropy": float(bits.mean()), "tail": float((~head[shown[there]]).mean()), **every}


def _drift(world: World) -> float:
    mix = world.had @ world.kind
    some = mix.sum(axis=1) > 0
    share = mix[some] / mix[some].sum(axis=1, keepdims=True)
    return float(np.abs(share - world.tastes[some]).sum(axis=1).mean() / 2)


def _clicked(world: World, shown: NDArray[np.int64], clicks: NDArray[np.bool_], seconds: float) -> pd.DataFrame:
    rows, places = np.nonzero(clicks)
    items = shown[rows, places]
    return pd.DataFrame({
        "user": [f"u{person:04d}" for person in rows],
        "label": [f"i{item:04d}" for item in items],
        "seconds": seconds,
        "liked": True,
        "item_attributes": [world.names(int(item)) for item in items],
    })  # fmt: skip
