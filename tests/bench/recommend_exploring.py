"""What exploring costs and brings in the built-in world: nothing left to chance, epsilon-greedy, Thompson sampling.

All begin with the same ranker. Round after round everybody is shown a list of ten and clicks, and the last layer learns
from what was shown so far; the trees stay. What is measured is true: expected clicks of the lists, and what the best
lists of items that the person has not had would have had beyond them (regret).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.bench.recommend_ranking import LISTED, Built, click_chance
from tests.bench.report import Row

SEEDS = (7, 8)
ROUNDS, PEOPLE, AMONG = 8, 150, 50
NEVER = 1e-9
# how much of the posterior is drawn, and how many places are left to chance
POLICIES = {
    "none": (0.0, NEVER),
    "epsilon 0.1": (0.0, 0.1),
    "thompson": (1.0, NEVER),
    "thompson, epsilon 0.1": (1.0, 0.1),
}


def exploring(home: Path) -> Iterator[Row]:
    """Each policy in each world."""
    found: dict[str, list[list[tuple[float, float]]]] = {name: [] for name in POLICIES}
    for seed in SEEDS:
        built = Built("lambdarank", seed, home / f"exploring-{seed}")
        if built.model.ranker is None:
            sys.stdout.write(f"seed {seed}: the ranker was not served, so there is nothing to explore with\n")
            continue
        for name, (drawn, share) in POLICIES.items():
            rounds = list(played(built, seed, drawn, share))
            said = ", ".join(f"{clicks:.3f}" for clicks, _ in rounds)
            sys.stdout.write(f"seed {seed}, {name}: clicks {said}\n")
            sys.stdout.flush()
            found[name].append(rounds)
    for name, worlds in found.items():
        each = np.array(worlds)  # worlds, rounds, (clicks, regret)
        parts = {"first round": each[:, :1], "last two rounds": each[:, -2:], "all rounds": each}
        for part, values in parts.items():
            yield Row(
                case=f"exploring, clicks of a list, {part}",
                contestant=name,
                value=float(values[..., 0].mean()),
                unit="expected",
            )
        yield Row(
            case="exploring, regret of all rounds",
            contestant=name,
            value=float(each[..., 1].sum(axis=1).mean()),
            unit="clicks a person",
        )


def played(built: Built, seed: int, drawn: float, share: float) -> Iterator[tuple[float, float]]:
    """Expected clicks and regret of a list, round by round."""
    from contracts.problems.ranking import listed
    from contracts.ranker import last_layer
    from pipelines.training.ranking import posterior

    world, model = deepcopy(built.world), built.model
    rng = np.random.default_rng(seed)
    world._rng = np.random.default_rng(seed + 100)
    spec = model.spec.model_copy(update={"explore": "thompson", "epsilon": share, "among": AMONG})
    place = {item: at for at, item in enumerate(model.items)}
    names = [int(item[1:]) for item in model.items]
    rows = built.test.iloc[:PEOPLE]
    people = np.array([int(who[1:]) for who in rows["who"]])
    histories = [[place[item] for item in listed(str(text)) if item in place] for text in rows["items"]]
    ranker = model.ranker
    assert ranker is not None
    looked, prior = np.array(ranker.spec.looked), ranker.arrays
    mean, scale = (np.asarray(prior[f"rank.{name}"], dtype=np.float64) for name in ("mean", "scale"))
    weights, spread = prior["rank.weights"], prior["rank.spread"]
    inner, clicked, look = [], [], []
    for _ in range(ROUNDS):
        arrays = {**prior, "rank.weights": weights, "rank.spread": drawn * spread}
        now = replace(model, spec=spec, ranker=replace(ranker, arrays=arrays))
        shown = np.full((len(people), LISTED), -1, dtype=np.int64)
        chosen, told = [], []
        for row, codes in enumerate(histories):
            history, blocked = now.history(codes)
            one = now.ranked(history, blocked, LISTED, 0.0, rng=rng)
            at = np.array([place[item] for item in one.items], dtype=np.int64)
            shown[row, : len(at)] = [names[code] for code in at]
            relative, stands = now.standing(history, at)
            found = now._features(history, at, relative, stands)
            told.append(last_layer(ranker.chances(found, at, history), found, mean, scale))
            chosen.append(at)
        liking = np.where(shown >= 0, world.liking[people[:, None], np.maximum(shown, 0)], -np.inf)
        free = np.where(world.had[people], -np.inf, world.liking[people])[:, sorted(names)]
        best = -np.sort(-free, axis=1)[:, :LISTED]
        clicks = np.array([click_chance(one).sum() for one in liking])
        yield float(clicks.mean()), float((np.array([click_chance(one).sum() for one in best]) - clicks).mean())
        taken = world.take(people, shown)
        for row, at in enumerate(chosen):
            inner.append(told[row])
            clicked.append(taken[row, : len(at)])
            look.append(looked[np.minimum(np.arange(len(at)), len(looked) - 1)])
            histories[row] += at[taken[row, : len(at)]].tolist()
        weights, spread = posterior(np.concatenate(inner), np.concatenate(clicked), np.concatenate(look))
