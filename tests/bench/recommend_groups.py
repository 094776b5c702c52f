"""What is popular in a person's group, for people of whom little is known: the built-in world, whose regions differ.

A quarter of the people is held out in turn: nothing is learned of them, and their lists follow from the last items of
their history before the test part, and from their region. Whom nobody knows the region of is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.report import Row

SEEDS, FOLDS, LENGTHS = (7, 8, 9), 4, (0, 1, 3, 100)


def groups(home: Path) -> Iterator[Row]:
    """NDCG@20 by the length of the history, with the group and without."""
    found: dict[tuple[int, str], list[float]] = {}
    for seed in SEEDS:
        for model, codes, histories, wanted in _folds(seed):
            for length in LENGTHS:
                shortened = [history[-length:] if length else [] for history in histories]
                for name, weight in (("by all people", None), ("by the group", 0.0), ("weight 3", 3.0)):
                    lists = _lists(model, codes, shortened, weight)
                    found.setdefault((length, name), []).extend(_ndcg(lists, wanted))
    for (length, name), values in found.items():
        case = (
            f"people held out, {length} items of history" if length < 100 else "people held out, all of their history"
        )
        goal = f">= {np.mean(found[length, 'by all people']):.6f}" if name != "by all people" and not length else ""
        yield Row(case=case, contestant=name, value=float(np.mean(values)), unit="NDCG@20", goal=goal)
        if name != "by all people":
            gain = np.array(values) - np.array(found[length, "by all people"])
            error = gain.std() / np.sqrt(len(gain))
            yield Row(case=case, contestant=f"{name}, gain", value=float(gain.mean()), unit="NDCG@20")
            yield Row(case=case, contestant=f"{name}, standard error of it", value=float(error), unit="NDCG@20")


def _folds(seed: int) -> Iterator[tuple[Any, list[int], list[list[int]], list[list[str]]]]:
    """For each fold a model of the others, and of those who are held out: groups, histories and what they took."""
    from pipelines.recipes.recommend.users import checked
    from pipelines.tasks import get_task, recipe_config
    from pipelines.tasks.recommend.simulator import simulate, users
    from pipelines.training.near import Near
    from pipelines.training.recommend import candidates, read_log, recommender
    from pipelines.training.recommenders import fit

    config: Any = recipe_config(get_task("recommend"))
    near = Near(checked(users(config.simulator, seed), config.users.groups), config.users)
    frame = next(simulate(config.simulator, seed)).to_pandas()
    seconds = frame["time"].to_numpy(dtype="datetime64[us]").astype(np.int64) / 1e6
    frame = frame.assign(label=frame["item"], seconds=seconds, liked=True, item_attributes=frame["attributes"])
    order = np.random.default_rng(seed).permutation(near.users)
    fold = frame["user"].map({user: at % FOLDS for at, user in enumerate(order)})
    late = frame["seconds"] > frame["seconds"].quantile(0.8)
    chosen = candidates(config.model)[0] | {"recency": 5.0}
    lives = near.table.set_index("user")["region"]
    for at in range(FOLDS):
        log = read_log([frame[(fold != at) & ~late]])
        taken = log.taken(np.arange(len(log.user_of)), seed)
        model = near.joined(recommender(log, taken, chosen, fit(taken, chosen), config.list), log.users, taken)
        place = {item: number for number, item in enumerate(log.items)}
        mine, after = frame[(fold == at) & ~late], frame[(fold == at) & late]
        people = [user for user in sorted(after["user"].unique()) if lives[user]]
        before, wanted = (rows.groupby("user")["item"].agg(list) for rows in (mine, after))
        histories = [[place[item] for item in before.get(user, []) if item in place] for user in people]
        codes = [model.groups.of(row, {})[0] for row in near.codes(model.groups, people).tolist()]
        yield model, codes, histories, [wanted[user] for user in people]


def _lists(model: Any, codes: list[int], histories: list[list[int]], weight: float | None) -> list[Any]:
    made = replace(model, spec=model.spec.model_copy(update={"group_weight": weight or 0.0}))
    views = {code: made if weight is None else made.of_group(code) for code in set(codes)}
    asked = zip(codes, histories, strict=True)
    return [views[code].ranked(*made.history(history), 20, made.spec.diversity).items for code, history in asked]


def _ndcg(lists: list[Any], wanted: list[list[str]]) -> list[float]:
    from pipelines.evaluation.list_measures import ranks

    found: list[float] = ranks(lists, wanted, 20)[:, 0].tolist()
    return found
