"""Personal parts over one recommender: whether they help people whose taste has changed, and what 10,000 of them cost.

The world is the built-in simulator's: after the base has learned from it, half of the people get another taste.
Everybody is shown a list a round and clicks; tastes are known to the measure alone. The base is fixed, and each
contender has a world of its own with the same people. Settings of the layer were chosen on other seeds than those that
are measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.adapter import Adapter
from contracts.recommender import Recommender
from contracts.taste import BASE_ALONE, Taste
from services.adapters.layer import Example
from services.adapters.layers.ranking import TasteLayer
from tests.bench.report import FOLDER, Row

SEEDS = (11, 12, 13)
ROUNDS, LISTED = 8, 10
UNITS = {"ndcg": "NDCG@10", "liking": "true liking", "clicks": "clicks"}
BASE = "0" * 64


class Stand:
    """A recommender as `TasteLayer` sees its engine."""

    def __init__(self, model: Recommender) -> None:
        self.model = model
        self.places = {item: at for at, item in enumerate(model.items)}


@dataclass(frozen=True)
class Town:
    """A trained base, what everybody had before, and who has another taste since."""

    world: Any
    model: Recommender
    histories: list[list[int]]
    changed: NDArray[np.bool_]


def town(seed: int, share: float = 0.5) -> Town:
    """The shipped recipe learns from the built-in data of a seed; then tastes change."""
    from dataclasses import replace

    from pipelines.tasks import get_task, recipe_config
    from pipelines.tasks.recommend.bubble import _begin, _histories
    from pipelines.training.recommend import candidates, read_log, recommender
    from pipelines.training.recommenders import fit

    config: Any = replace(recipe_config(get_task("recommend"), "graph_filter"), seed=seed)
    config = replace(config, simulator=replace(config.simulator, local=0.0))
    world, log = _begin(config)
    read = read_log([log])
    taken = read.taken(np.arange(len(log)), seed)
    chosen = candidates(config.model)[0]
    model = recommender(read, taken, chosen, fit(taken, chosen), config.list)
    rng = np.random.default_rng(seed + 1000)
    changed = rng.random(config.simulator.people) < share
    others = rng.dirichlet(np.full(world.tastes.shape[1], 0.35), len(changed))
    quality = world.liking - 6 * world.tastes @ world.kind.T
    world.tastes = np.where(changed[:, None], others, world.tastes)
    world.liking = 6 * world.tastes @ world.kind.T + quality
    return Town(world, model, _histories(read, config.simulator.people), changed)


class Contender:
    """How lists are made, and what is done with clicks. `kind`: base, session (clicks join the history) or adapter."""

    def __init__(self, town: Town, kind: str) -> None:
        self.town, self.kind = town, kind
        self.stand = Stand(town.model)
        self.layer = TasteLayer(self.stand, None)  # type: ignore[arg-type]
        self.adapters: list[Adapter | None] = [None] * len(town.histories)
        self.clicked: list[list[int]] = [[] for _ in town.histories]

    def lists(self) -> list[Any]:
        """A list for everybody."""
        tastes = [BASE_ALONE if one is None else self.layer._taste(one) for one in self.adapters]
        return [self._list(person, taste) for person, taste in enumerate(tastes)]

    def _list(self, person: int, taste: Taste) -> Any:
        model, clicked = self.town.model, [] if self.kind == "base" else self.clicked[person]
        history, blocked = model.history([*self.town.histories[person], *clicked])
        blocked[self.clicked[person]] = True  # whatever the contender, nobody is shown what they took
        return model.ranked(history, blocked, LISTED, model.spec.diversity, taste)

    def learn(self, person: int, answer: Any, clicked: Sequence[str]) -> None:
        """What a person took of a list."""
        places = self.stand.places
        self.clicked[person] += [places[item] for item in clicked]
        if self.kind != "adapter" or not clicked:
            return
        shown = {"items": [places[item] for item in answer.items], "base": list(answer.base)}
        known = self.adapters[person]
        tensors = self.layer.learned(known, [Example(shown=shown, parts=clicked)])
        version = 1 if known is None else known.version + 1
        self.adapters[person] = Adapter(
            layer=self.layer.name, base=BASE, entity="e" * 32, version=version, tensors=tensors
        )


def rounds_of(town: Town, kind: str, rounds: int = ROUNDS) -> list[dict[str, NDArray[np.float64]]]:
    """Of each round and person: true liking of what is shown, NDCG against the most liked, clicks so far."""
    one, people, world = Contender(town, kind), np.arange(len(town.histories)), town.world
    numbers = np.array([int(item[1:]) for item in town.model.items])
    found = []
    for _ in range(rounds):
        answers = one.lists()
        shown = np.full((len(people), LISTED), -1)
        for row, answer in enumerate(answers):
            shown[row, : len(answer.items)] = [int(item[1:]) for item in answer.items]
        liking, there = np.take_along_axis(world.liking, np.maximum(shown, 0), 1), shown >= 0
        clicks_before = np.array([len(each) for each in one.clicked], float)
        free = world.liking[:, numbers].copy()
        for person, history in enumerate(town.histories):
            free[person, [*{*history, *one.clicked[person]}]] = -np.inf
        found.append({
            "liking": (liking * there).sum(axis=1) / np.maximum(there.sum(axis=1), 1),
            "ndcg": _ndcg(liking, there, free),
            "clicks": clicks_before,
        })  # fmt: skip
        taken = world.take(people, shown)
        for person, answer in enumerate(answers):
            one.learn(person, answer, [answer.items[at] for at in np.flatnonzero(taken[person][: len(answer.items)])])
    return found


def _ndcg(liking: Any, there: Any, free: Any) -> NDArray[np.float64]:
    """With the chance of a click, if the item were seen, as the gain."""

    def gain(values: Any) -> Any:
        return 1 / (1 + np.exp(3.0 - values))

    discount = 1 / np.log2(np.arange(2, LISTED + 2))
    best = -np.sort(-free, axis=1)[:, :LISTED]
    return np.asarray((gain(liking) * there) @ discount / (gain(best) @ discount))


def help_rows(say: Callable[[str], object]) -> Iterator[Row]:
    """Whether adapters help, on all seeds together."""
    runs = {kind: [_split(town(seed), kind) for seed in SEEDS] for kind in ("base", "session", "adapter")}
    _draw(runs)
    for group in ("changed", "same"):
        for kind, found in runs.items():
            for at in (0, 3, ROUNDS - 1):
                mean = {name: float(np.mean([one[group][at][name] for one in found])) for name in UNITS}
                say(f"{group} {kind} round {at + 1}: {mean}\n")
                for name in ("ndcg", "liking"):
                    case = f"adapters, taste {group}, round {at + 1} ({mean['clicks']:.1f} clicks), {UNITS[name]}"
                    yield Row(case=case, contestant=kind, value=mean[name], unit=UNITS[name])


def _draw(runs: dict[str, list[dict[str, list[dict[str, float]]]]]) -> None:
    """NDCG by round of people whose taste has changed."""
    from pipelines.evaluation.plots import BLUE, GREY, ORANGE, figure

    with figure(FOLDER / "recommend-adapters.png", "People whose taste has changed", "round", "NDCG@10") as axes:
        for (kind, found), colour in zip(runs.items(), (GREY, ORANGE, BLUE), strict=True):
            line = [np.mean([one["changed"][at]["ndcg"] for one in found]) for at in range(ROUNDS)]
            axes.plot(range(1, ROUNDS + 1), line, marker="o", color=colour, label=kind)
        axes.legend(loc="best")


def _split(here: Town, kind: str) -> dict[str, list[dict[str, float]]]:
    """The rounds of those whose taste has changed, and of the others, as means over people."""
    rounds = rounds_of(here, kind)
    groups = {"changed": here.changed, "same": ~here.changed}
    return {
        group: [{name: float(one[name][who].mean()) for name in one} for one in rounds] for group, who in groups.items()
    }


PEOPLE, ITEMS, WIDTH, NEAR = 10_000, 5_000, 64, 60
ASKED, WARM = 4_000, 400
SALT = "of-the-bench"


def base_of(folder: Path) -> Any:
    """A bundle of 10,000 people, 5,000 items with 60 neighbours each, and vectors of 64 numbers."""
    from contracts.engines.recommend import request_inputs, write_model
    from contracts.recommender import RecommendSpec
    from tests.problem_bundles import publish

    rng = np.random.default_rng(7)
    vectors = rng.normal(size=(ITEMS, WIDTH)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    arrays: dict[str, Any] = {
        "similar.indptr": np.arange(0, ITEMS * NEAR + 1, NEAR, dtype=np.int64),
        "similar.indices": np.concatenate([np.sort(rng.choice(ITEMS, NEAR, replace=False)) for _ in range(ITEMS)]),
        "similar.weights": rng.random(ITEMS * NEAR).astype(np.float32),
        "people": rng.integers(1, 500, ITEMS).astype(np.float32),
        "trend": rng.random(ITEMS).astype(np.float32),
        "fresh": np.zeros(ITEMS, bool),
        "vectors": vectors,
    }
    arrays["similar.indices"] = arrays["similar.indices"].astype(np.int32)
    spec = RecommendSpec(method="similar", k=20, everybody=PEOPLE, diversity=0.3)
    model = Recommender(spec, [f"i{at}" for at in range(ITEMS)], [], arrays)
    histories = [rng.choice(ITEMS, 40, replace=False).tolist() for _ in range(PEOPLE)]
    write_model(folder / "source" / "model", model, [f"u{at}" for at in range(PEOPLE)], histories)
    output = {"problem": "ranking", "k": 20, "longest": 100, "catalogue": ITEMS}
    return publish(folder, "recommend", "recommend", output, inputs=[one.model_dump() for one in request_inputs(spec)])


def fill(folder: Path, redis: str, bundle: Any) -> int:
    """An adapter for each of the 10,000, in the store and in Redis; the bytes of one."""
    from services.adapters.hot import HotCopies
    from services.adapters.store import AdapterStore, Kept
    from services.feedback.hashing import hashed

    store, hot = AdapterStore(str(folder), "ranking", bundle.digest), HotCopies(redis, "ranking", bundle.digest)
    rng, size = np.random.default_rng(8), 0
    for at in range(PEOPLE):
        entity = hashed(SALT.encode(), f"u{at}")
        mean = np.concatenate([[-2.0, 4.0], rng.normal(0, 0.3, WIDTH)]).astype(np.float32)
        tensors = {
            "mean": mean, "precision": np.full(WIDTH + 2, 16, np.float32),
            "taken": rng.choice(ITEMS, 10, replace=False).astype(np.int32),
        }  # fmt: skip
        data = Adapter(layer="taste-1", base=bundle.digest, entity=entity, version=1, tensors=tensors).to_bytes()
        assert store.put(entity, 1, data)
        hot.put(entity, Kept(version=1, data=data))
        size = len(data)
    return size


def cost_rows(home: Path, say: Callable[[str], object]) -> Iterator[Row]:
    """The same people ask, in turn, a service with the base alone and one with 10,000 adapters beside it."""
    import psutil

    from tests.integration.redis_servers import Server
    from tests.integration.test_services import services

    bundle, redis = base_of(home), Server(home / "redis")
    size = fill(home / "adapters", redis.address, bundle)
    given = {"adapters.folder": str(home / "adapters"), "adapters.redis": redis.address, "predictions.salt": SALT}
    try:
        with services(home) as begin:
            served = {"base alone": begin(bundle), "10,000 adapters": begin(bundle, **given)}
            for one in served.values():
                one.wait()
            people = np.random.default_rng(9).integers(0, PEOPLE, WARM + ASKED)
            times: dict[str, list[float]] = {name: [] for name in served}
            cpu: dict[str, float] = {}
            flags = 0
            for number, person in enumerate(people):
                if number == WARM:
                    cpu = {name: _cpu(psutil.Process(one.process.pid)) for name, one in served.items()}
                for name in list(served)[:: 1 if number % 2 else -1]:
                    start = perf_counter()
                    answer = served[name].http.post("/recommend", json={"user": f"u{person}"})
                    times[name].append(perf_counter() - start)
                    flags += bool(answer.json()["flags"])
            cpu = {name: _cpu(psutil.Process(one.process.pid)) - cpu[name] for name, one in served.items()}
            assert flags == 0, "everybody has an adapter, and is known"
    finally:
        redis.stop()
    measured = {name: np.array(found[WARM:]) * 1e3 for name, found in times.items()}
    for name, found in measured.items():
        p50, p99, each = np.median(found), np.percentile(found, 99), cpu[name] / ASKED * 1e3
        say(f"{name}: p50 {p50:.2f} p99 {p99:.2f} ms, {each:.2f} cpu ms a request\n")
        for part in (50, 99):
            yield Row(case=f"adapters, p{part}", contestant=name, value=float(np.percentile(found, part)), unit="ms")
        yield Row(case="adapters, processor", contestant=name, value=cpu[name] / ASKED * 1e3, unit="cpu ms a request")
    base, with_adapters = measured["base alone"], measured["10,000 adapters"]
    for part, goal in ((50, ""), (99, "<= 1.3")):
        ratio = float(np.percentile(with_adapters, part) / np.percentile(base, part))
        yield Row(case=f"adapters, p{part} beside the base", contestant="10,000 adapters", value=ratio, unit="times",
                  goal=goal)  # fmt: skip
    yield Row(case="adapters, one of 64 numbers", contestant="10,000 adapters", value=float(size), unit="bytes")


def _cpu(process: Any) -> float:
    """Seconds of a server and its children so far."""
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return float(sum(one.user + one.system for one in times))
