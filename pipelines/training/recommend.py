"""From a data set of interactions to the folder of a recommender: settings are chosen by the validation part."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from contracts.bundle import Check
from contracts.engines.recommend import write_model
from contracts.groups import PEOPLE
from contracts.nearest import write_nearest
from contracts.problems.ranking import listed
from contracts.ranker import Ranker
from contracts.recommender import Recommender, RecommendSpec
from pipelines.evaluation.list_measures import FLOOR, OF_RANKS, OWN, ranks
from pipelines.evaluation.measures import evenly
from pipelines.evaluation.shown_lists import parameters_of
from pipelines.task import Progress
from pipelines.training.near import Near, weighed
from pipelines.training.recommenders import Arrays, Model, Taken, fit

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_matrix

_ATTRIBUTES = 64  # that are told apart, the commonest
_ASKED = 1_000  # people who choose the settings
_METHOD = {"popular": "popular", "als": "factors", "two_tower": "tower"}  # of the others: similar
_SHARED = frozenset({"recency", "half_life"})  # settings that no array depends on but for `trend`
_SEARCHED = 200  # people whose searches say how wide an index must search
_DAY = 86_400.0
_WORDS, _WORD = 2**14, re.compile(r"\w+")


@dataclass(frozen=True)
class Log:
    """Interactions as numbers, in the order of time; `liked` is false where a person did not like what they took.

    seconds: since 1970.  ages: days before the last one.  items, attributes: their names, and `has` which of them an
    item has; `named` are all of each item.  content: see `Taken`.
    """

    users: list[str]
    items: list[str]
    attributes: list[str]
    user_of: NDArray[np.int64]
    item_of: NDArray[np.int64]
    seconds: NDArray[np.float64]
    ages: NDArray[np.float64]
    liked: NDArray[np.bool_]
    has: NDArray[np.float32]
    named: list[list[str]]
    content: csr_matrix | None = None

    def taken(self, rows: NDArray[Any], seed: int) -> Taken:
        """Of some rows, those that were liked."""
        from scipy.sparse import csr_matrix

        rows = rows[self.liked[rows]]
        shape = (len(self.users), len(self.items))
        matrix = csr_matrix((np.ones(len(rows)), (self.user_of[rows], self.item_of[rows])), shape=shape)
        matrix.data[:] = 1.0
        ages = self.ages[rows] - (self.ages[rows].min() if len(rows) else 0)
        return Taken(matrix, ages, self.item_of[rows], seed, self.user_of[rows], self.content)

    def histories(self, rows: NDArray[Any]) -> list[list[int]]:
        """Of each person the items, the oldest first; one that was not liked is written as ~item."""
        found: list[list[int]] = [[] for _ in self.users]
        codes = np.where(self.liked, self.item_of, ~self.item_of)
        for user, code in zip(self.user_of[rows].tolist(), codes[rows].tolist(), strict=True):
            found[user].append(code)
        return found


def train_recommender(
    dataset: Path,
    model: Model,
    lists: Any,
    seed: int,
    out: Path,
    progress: Progress,
    again: SecondStage | None = None,
    index: Any = None,
    floor: Model | None = None,
    people: Any = None,
) -> dict[str, Any]:
    """Choose the settings by NDCG of what the validation part holds, then learn from both parts.

    Nothing is learned from the test part; but what people took there is part of the histories that are served, so that
    it is not listed again.

    Args:
        lists: a `pipelines.recipes.recommend.settings.ListConfig`.  again: makes the second stage, see
            `pipelines.training.second_stage`; None: there is none.  index: an `IndexConfig` there; None: no index.
        floor: what the method must beat by NDCG of the validation part, with the best of its own settings, to be
            promoted, see `pipelines.checks.default_retriever`; None: nothing.
        people: a `UsersConfig`, where the data set has a table of people; None: nobody is of a group.
    """
    import pandas as pd

    parts = [pd.read_parquet(dataset / f"{name}.parquet") for name in ("train", "valid")]
    catalogue = pd.read_parquet(dataset / "items.parquet") if model.method == "two_tower" else None
    log = read_log(parts, catalogue)
    first = len(parts[0])
    order = np.argsort(-log.ages, kind="stable")
    taken, before = log.taken(order[order < first], seed), log.histories(order[order < first])
    asked = _wanted(log, before, order[order >= first])
    found = partial(_chosen, log=log, taken=taken, before=before, asked=asked, lists=lists, progress=progress)
    best, score, history, learned = found(model)
    beaten = {OWN: score, FLOOR: found(floor)[1]} if floor is not None else {}
    whole = log.taken(order, seed)
    final = recommender(log, whole, best, fit(whole, best), lists)
    table = dataset / "users.parquet"
    near = Near(pd.read_parquet(table), people) if people is not None and table.exists() else None
    users, served = _served(log, log.histories(order), dataset / "test.parquet", near.users if near else ())
    grouped = dict[str, float]()
    if near is not None:
        final = near.joined(final, log.users, whole)
        weight = 0.0
        if again is None and model.method != "popular":
            judged = near.joined(recommender(log, taken, best, learned, lists), log.users, taken)
            weight = weighed(judged, people.weight, partial(_measured_near, before=before, asked=asked, lists=lists))
        spec = final.spec.model_copy(update={"group_weight": weight})
        final = replace(final, spec=spec, arrays={**final.arrays, PEOPLE: near.codes(final.groups, users)})
        grouped = {"groups": float(len(final.groups.codes)), "group_weight": weight}
    second = Second({}, {})
    if again is not None:
        retriever = recommender(log, taken, best, learned, lists)
        second = again(dataset, log, retriever, order[order < first], best, lists, seed)
        final = replace(final, ranker=second.ranker)
    write_model(out, final, users, served)
    if index is not None and "factors" in final.arrays and len(log.items) > index.above:
        searched = [final.asked(served[at]) for at in evenly(len(served), _SEARCHED)]
        threads = int(os.environ.get("OMP_NUM_THREADS") or 0)
        write_nearest(out, final.arrays["factors"], searched, final.listed_from, index.recall, threads)
    for name, content in second.files.items():
        (out / name).write_bytes(content)
    return {
        "engine": "recommend",
        "output": {"problem": "ranking", "k": lists.k, "longest": lists.longest, "catalogue": len(log.items)},
        "decision": None,
        "history": history,
        "parameters": {
            "method": best["method"],
            **_settings(best),
            "people": len(log.users),
            "items": len(log.items),
            **grouped,
            **parameters_of(log.seconds),
            **second.parameters,
            **beaten,
        },
        **({"choices": [second.choice.model_dump()]} if second.choice else {}),
        "device": "cpu",
        "tolerance": 1e-3,
    }


def _chosen(
    model: Model, *, log: Log, taken: Taken, before: Any, asked: Any, lists: Any, progress: Progress
) -> tuple[dict[str, Any], float, list[dict[str, Any]], Arrays]:
    """The best settings of a method by NDCG of the validation part, that NDCG, what each has reached, and the arrays
    of the best."""
    history: list[dict[str, Any]] = []
    users, wanted = asked
    best, score, learned = dict[str, Any](), -1.0, Arrays()
    choices = candidates(model)
    arrays: dict[tuple[Any, ...], Arrays] = {}
    for at, chosen in enumerate(choices):
        key = tuple(value for name, value in chosen.items() if name not in _SHARED)
        if key not in arrays:
            arrays = {key: fit(taken, chosen)}
        made = recommender(log, taken, chosen, arrays[key], lists)
        measured = _measured(made, before, users, wanted, lists)
        history.append({"candidate": at + 1, **_settings(chosen), **measured})
        progress(at + 1, len(choices), **history[-1])
        if measured["ndcg"] > score:
            best, score, learned = chosen, measured["ndcg"], arrays[key]
    return best, score, history, learned


@dataclass(frozen=True)
class Second:
    """What came of a second stage: its files, what is said of it, the ranker where it is served, and the verdict."""

    files: Mapping[str, bytes]
    parameters: Mapping[str, Any]
    ranker: Ranker | None = None
    choice: Check | None = None


SecondStage = Callable[..., Second]


def candidates(model: Model) -> list[dict[str, Any]]:
    """Each combination of the settings that have several values; those that need no new arrays lie together."""
    given = {each.name: getattr(model, each.name) for each in fields(model)}
    several = sorted((name for name in given if isinstance(given[name], tuple)), key=lambda name: name in _SHARED)
    return [given | dict(zip(several, values, strict=True)) for values in product(*(given[name] for name in several))]


def _settings(chosen: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in chosen.items() if name != "method"}


def read_log(parts: Sequence[pd.DataFrame], catalogue: pd.DataFrame | None = None) -> Log:
    """The interactions of some parts, one after another.

    Args:
        catalogue: items, with attributes and text; those that nobody took are items as well.
    """
    import pandas as pd

    rows = pd.concat(parts, ignore_index=True)
    user_of, users = pd.factorize(rows["user"], sort=True)
    said = rows.drop_duplicates("label", keep="last").set_index("label")["item_attributes"].to_dict()
    texts: dict[str, str] = {}
    if catalogue is not None:
        said |= dict(zip(catalogue["item"], catalogue["attributes"], strict=True))
        texts = dict(zip(catalogue["item"], catalogue["text"], strict=True))
    items = np.array(sorted(map(str, said)), dtype=object)
    item_of = pd.Index(items).get_indexer(rows["label"])
    times = rows["seconds"].to_numpy(dtype=np.float64)
    of_items = [listed(said[item]) for item in items]
    counts = Counter(name for names in of_items for name in names)
    attributes = sorted(name for name, _ in sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:_ATTRIBUTES])
    place = {name: at for at, name in enumerate(attributes)}
    has = np.zeros((len(items), len(attributes)), dtype=np.float32)
    for at, names in enumerate(of_items):
        has[at, [place[name] for name in names if name in place]] = 1
    return Log(
        users=list(users),
        items=list(items),
        attributes=attributes,
        user_of=user_of.astype(np.int64),
        item_of=item_of.astype(np.int64),
        seconds=times,
        ages=(times.max() - times) / _DAY,
        liked=rows["liked"].to_numpy(dtype=bool),
        has=has,
        named=of_items,
        content=None if catalogue is None else _content(of_items, [texts.get(item, "") for item in items]),
    )


def _content(attributes: Sequence[Sequence[str]], texts: Sequence[str]) -> csr_matrix:
    """What items are, as words that are hashed: attributes whole, texts in words."""
    from sklearn.feature_extraction.text import HashingVectorizer

    named = [
        [*(f"={name}" for name in names), *_WORD.findall(text.lower())]
        for names, text in zip(attributes, texts, strict=True)
    ]
    hashed = HashingVectorizer(analyzer=list, n_features=_WORDS, alternate_sign=False, norm="l1", dtype=np.float32)
    return hashed.transform(named).tocsr()


def recommender(log: Log, taken: Taken, chosen: Mapping[str, Any], made: Arrays, lists: Any) -> Recommender:
    """A model in memory, of the arrays that a method made."""
    spec = RecommendSpec(
        method=_METHOD.get(chosen["method"], "similar"),
        k=lists.k,
        longest=lists.longest,
        diversity=lists.diversity,
        rerank=lists.rerank,
        pool=lists.pool,
        penalty=lists.penalty,
        recency=chosen.get("recency", 0.0),
        history=lists.history,
        new_share=lists.new_share,
        repeat=lists.repeat,
        deny=sorted(lists.deny),
        allow=sorted(lists.allow),
        sponsored=list(lists.sponsored),
        sponsored_places=sorted(lists.sponsored_places),
        exposure=lists.exposure,
        explore=lists.explore,
        epsilon=lists.epsilon,
        among=lists.among,
        regularisation=chosen.get("l2", 0.0),
        confidence=chosen.get("confidence", 0.0),
        everybody=max(1, len(log.users)),
        attributed=bool(log.attributes),
    )
    oldest = np.zeros(len(log.items))
    np.maximum.at(oldest, taken.item_of, taken.ages)
    length = np.linalg.norm(log.has, axis=1, keepdims=True)
    arrays = {
        **made,
        "people": taken.people.astype(np.float32),
        "trend": taken.trend(chosen.get("half_life", 0.0)),
        "fresh": oldest < lists.new_days
        if taken.ages.max(initial=0.0) > lists.new_days
        else np.zeros(len(oldest), bool),
        "vectors": log.has / np.maximum(length, 1) if log.attributes else taken.vectors,
    }
    if lists.ages:
        arrays["age"] = np.array(
            [max((lists.ages.get(name, 0.0) for name in names), default=0.0) for names in log.named], dtype=np.float32
        )
    if lists.provider:
        of = [next((name for name in names if name.startswith(lists.provider)), "") for names in log.named]
        numbers = {name: at for at, name in enumerate(sorted(set(of) - {""}))}
        arrays["provider"] = np.array([numbers.get(name, -1) for name in of], dtype=np.int64)
    return Recommender(spec, log.items, log.attributes, arrays)


def _wanted(log: Log, before: Sequence[Sequence[int]], rows: NDArray[Any]) -> tuple[list[int], list[list[str]]]:
    """People whose later items choose the settings, and those items; evenly from all of them."""
    later: dict[int, list[str]] = {}
    for row in rows[log.liked[rows]].tolist():
        user, item = int(log.user_of[row]), int(log.item_of[row])
        if before[user]:
            later.setdefault(user, []).append(log.items[item])
    users = sorted(later)
    chosen = [users[at] for at in evenly(len(users), _ASKED)]
    return chosen, [later[user] for user in chosen]


def _measured(
    model: Recommender, before: Sequence[Sequence[int]], asked: Sequence[int], wanted: Sequence[list[str]], lists: Any
) -> dict[str, float]:
    found = [one.items for one in lists_of(model, [before[user] for user in asked], lists.k, lists.diversity)]
    if not found:
        return dict.fromkeys(OF_RANKS[:2], 0.0)
    means = np.nanmean(ranks(found, wanted, lists.k), axis=0)
    return {name: round(float(means[at]), 6) for at, name in enumerate(OF_RANKS[:2])}


def _measured_near(models: Sequence[Recommender], *, before: Sequence[Sequence[int]], asked: Any, lists: Any) -> float:
    """NDCG of the validation part, of each person by the model of their group."""
    users, wanted = asked
    found = [next(lists_of(models[user], [before[user]], lists.k, lists.diversity)).items for user in users]
    return float(np.nanmean(ranks(found, wanted, lists.k)[:, 0])) if found else 0.0


def lists_of(model: Recommender, histories: Sequence[Sequence[int]], k: int, diversity: float) -> Iterator[Any]:
    """The lists for some histories, in which ~item is one that was not liked."""
    for codes in histories:
        history, blocked = model.history(codes)
        yield model.ranked(history, blocked, k, diversity)


def _served(
    log: Log, histories: Sequence[Sequence[int]], test: Path, others: Sequence[str]
) -> tuple[list[str], list[list[int]]]:
    """The people that are known at serving, with all that they took, the test part included; `others` may have
    nothing."""
    import pandas as pd

    rows = pd.read_parquet(test, columns=["who", "label", "unliked"])
    place = {item: at for at, item in enumerate(log.items)}
    known = {user: list(codes) for user, codes in zip(log.users, histories, strict=True)}
    for user, taken, unliked in zip(rows["who"], rows["label"], rows["unliked"], strict=True):
        mine = known.setdefault(user, [])
        mine += [place[item] for item in listed(taken) if item in place]
        mine += [~place[item] for item in listed(unliked) if item in place]
    for user in others:
        known.setdefault(user, [])
    return list(known), list(known.values())
