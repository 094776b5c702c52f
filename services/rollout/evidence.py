"""What a rollout is judged on: each criterion is one or more shares of requests, compared between the two versions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np

from contracts.document import Document
from contracts.rollout_policy import LatencyLimit, Limit, RolloutPolicy
from services.rollout import shares
from services.rollout.observation import Counts

_HISTORY = 2000.0  # requests of the champion before the rollout that count for what is expected of it
_PARTS = {"errors": 0.55, "misses": 0.17, "quality": 0.08}  # of the chance of a wrong refusal
_PART = 0.05  # of each other criterion
_LABELS = 20  # the most frequent ones are compared one by one


class Trail(Document):
    """The evidence of one criterion so far.

    Attributes:
        keys: its shares.  requests, hits, near: of the champion, for what is expected; `near` as `within` asks.
        worse, within: logarithms of the evidence, by share and alternative.
        informed: information about the difference, by share.
    """

    keys: tuple[str, ...] = ()
    requests: float = 0
    hits: tuple[float, ...] = ()
    near: tuple[float, ...] = ()
    worse: tuple[tuple[float, ...], ...] = ()
    within: tuple[tuple[float, ...], ...] = ()
    informed: tuple[float, ...] = ()


class Verdict(Document):
    """What the evidence of one criterion says.

    Attributes:
        champion, candidate: the measured values, with intervals where there are.
        share: the share that looks worst.
        worse, within: the evidence, which decides from `worse_needed` and `within_needed` on.
    """

    criterion: str
    says: Literal["worse", "proven", "unproven", "no data"]
    champion: float | None = None
    candidate: float | None = None
    champion_interval: tuple[float, float] | None = None
    candidate_interval: tuple[float, float] | None = None
    share: str = ""
    worse: float = 1
    worse_needed: float = 1
    within: float = 1
    within_needed: float = 1


class Rows(NamedTuple):
    """One criterion's counts of one version: requests, and hits by share; `near` as the promise of a margin asks."""

    requests: Any  # of all shares together, or of each one
    hits: list[float]
    near: list[float]


class Criterion(NamedTuple):
    """How a criterion reads counters: its shares, the rows of a version, and the value of a share that people see.

    at_once: its evidence is that of all counts of the rollout, not of one block after the other.
    """

    keys: Callable[[Counts, Counts], tuple[str, ...]]
    rows: Callable[[Counts, tuple[str, ...], bool], Rows]
    value: Callable[[Counts, str], float | None]
    shown_as_rate: bool = True
    at_once: bool = False


def _rate(hits: Callable[[Counts], float], requests: Callable[[Counts], float]) -> Criterion:
    return Criterion(
        keys=lambda champion, candidate: ("",),
        rows=lambda counts, keys, candidate: Rows(requests(counts), [hits(counts)], [hits(counts)]),
        value=lambda counts, share: hits(counts) / requests(counts) if requests(counts) else None,
    )


def _edges(counts: dict[str, float]) -> list[str]:
    return sorted((edge for edge in counts if math.isfinite(float(edge))), key=float)


def _latency_keys(champion: Counts, candidate: Counts) -> tuple[str, ...]:
    return tuple(edge for edge in _edges(champion.latency) if edge in candidate.latency)


def _latency_rows(counts: Counts, keys: tuple[str, ...], candidate: bool) -> Rows:
    """Requests slower than each edge; for the margin the candidate is compared at the next edge, see `LatencyLimit`."""
    slower = [max(0.0, counts.requests - counts.latency.get(edge, 0.0)) for edge in keys]
    return Rows(counts.requests, slower, [*slower[1:], 0.0] if candidate else slower)


def _answer_keys(champion: Counts, candidate: Counts) -> tuple[str, ...]:
    both = {name: champion.labels.get(name, 0) for name in {**champion.labels, **candidate.labels}}
    labels = sorted(both, key=lambda name: -both[name])[:_LABELS]
    edges = [edge for edge in _edges(champion.scores) if edge in candidate.scores]
    return tuple([f"label {name}" for name in labels] + [f"score {edge}" for edge in edges])


def _answer_rows(counts: Counts, keys: tuple[str, ...], candidate: bool) -> Rows:
    """Each share and its complement, so that both directions are seen."""
    found = {f"label {name}": value for name, value in counts.labels.items()}
    found |= {f"score {edge}": value for edge, value in counts.scores.items()}
    hits = [min(found.get(key, 0.0), counts.predictions) for key in keys]
    both = [*hits, *(counts.predictions - one for one in hits)]
    return Rows(counts.predictions, both, both)


def _truths(champion: Counts, candidate: Counts) -> tuple[str, ...]:
    return tuple({**champion.truths, **candidate.truths})


def _missed(counts: Counts, keys: tuple[str, ...], candidate: bool) -> Rows:
    """The rows of each true class, and the wrong ones; their evidence waits for no block, as labels may come late."""
    rows = [counts.truths.get(key, 0.0) for key in keys]
    hits = [min(counts.misses.get(key, 0.0), most) for key, most in zip(keys, rows, strict=True)]
    return Rows(np.array(rows), hits, hits)


def _share_missed(counts: Counts, share: str) -> float | None:
    rows = counts.truths.get(share, 0.0)
    return counts.misses.get(share, 0.0) / rows if rows else None


CRITERIA: dict[str, Criterion] = {
    "errors": _rate(lambda counts: counts.errors + counts.unreached, lambda counts: counts.requests + counts.unreached),
    "refusals": _rate(lambda counts: counts.refusals, lambda counts: counts.requests),
    "latency": Criterion(
        _latency_keys,
        _latency_rows,
        lambda counts, share: counts.seconds / counts.requests if counts.requests else None,
        shown_as_rate=False,
    ),
    "answers": Criterion(_answer_keys, _answer_rows, lambda counts, share: None, shown_as_rate=False),
    "quality": _rate(lambda counts: counts.wrong, lambda counts: counts.labelled),
    "misses": Criterion(_truths, _missed, _share_missed, at_once=True),
    "drafted": _rate(lambda counts: counts.lost, lambda counts: counts.drafted),
    "flags": _rate(lambda counts: counts.flagged, lambda counts: counts.predictions),
}


@lru_cache(maxsize=16)
def judged(policy: RolloutPolicy) -> Mapping[str, Limit]:
    """The criteria that a policy looks at, with their limits."""
    quality = Limit(tolerated=policy.quality, margin=policy.quality * 2)
    limits: dict[str, Limit] = {name: quality if name == "quality" else getattr(policy, name) for name in CRITERIA}
    # Of a list that both versions draft neither the time that it takes nor what is in it is one version's own.
    shared = ("latency", "answers") if policy.drafted.judged else ()
    return {name: limit for name, limit in limits.items() if limit.judged and name not in shared}


def first_trail(name: str, champion: Counts, candidate: Counts) -> Trail:
    """No evidence yet; what the champion did before the rollout says what to expect of it."""
    criterion = CRITERIA[name]
    if criterion.at_once:
        return Trail()
    keys = criterion.keys(champion, candidate)
    past = criterion.rows(champion, keys, False)
    weight = min(1.0, _HISTORY / past.requests) if past.requests else 0.0
    count = len(past.hits)
    return Trail(
        keys=keys,
        requests=past.requests * weight,
        hits=tuple(hits * weight for hits in past.hits),
        near=tuple(hits * weight for hits in past.near),
        worse=((0.0,) * len(shares.PRIOR),) * count,
        within=((0.0,) * len(shares.SMALLER),) * count,
        informed=(0.0,) * count,
    )


def extended(
    trails: Mapping[str, Trail], policy: RolloutPolicy, champion: Counts, candidate: Counts
) -> dict[str, Trail]:
    """The evidence of all criteria after one more block of requests of both versions, all shares reckoned at once."""
    going = {name: trail for name, trail in trails.items() if trail.hits}
    if not going:
        return dict(trails)
    sizes = [len(trail.hits) for trail in going.values()]
    zero, one = (
        [CRITERIA[name].rows(counts, trail.keys, which) for name, trail in going.items()]
        for counts, which in ((champion, False), (candidate, True))
    )
    limits = [judged(policy)[name] for name in going]
    chances = [_chance(name, policy) / size for name, size in zip(going, sizes, strict=True)]
    aims = ([one.tolerated for one in limits], [one.margin for one in limits], chances)
    aim = shares.Aim(*(np.repeat(each, sizes) for each in aims))
    past, first, second = (np.repeat([one.requests for one in each], sizes) for each in (going.values(), zero, one))
    informed = _joined(trail.informed or (0.0,) * len(trail.hits) for trail in going.values())
    block = (first, _joined(row.hits for row in zero), second, _joined(row.hits for row in one))
    seen = (past, _joined(trail.hits for trail in going.values()))
    worse, informed = shares.worse(_joined(trail.worse for trail in going.values()), informed, aim, block, seen)
    block = (first, _joined(row.near for row in zero), second, _joined(row.near for row in one))
    seen = (past, _joined(trail.near for trail in going.values()))
    within = shares.within(_joined(trail.within for trail in going.values()), aim.margin, block, seen)
    found, ends = dict(trails), np.cumsum(sizes).tolist()
    for (name, trail), size, end, row in zip(going.items(), sizes, ends, zero, strict=True):
        part = slice(end - size, end)
        found[name] = Trail(
            keys=trail.keys,
            requests=trail.requests + row.requests,
            hits=tuple(np.add(trail.hits, row.hits).tolist()),
            near=tuple(np.add(trail.near, row.near).tolist()),
            worse=tuple(map(tuple, worse[part].tolist())),
            within=tuple(map(tuple, within[part].tolist())),
            informed=tuple(informed[part].tolist()),
        )
    return found


def _joined(parts: Iterable[Sequence[Any]]) -> shares.Array:
    return np.concatenate([np.asarray(part, np.float64) for part in parts])


def verdict(name: str, trail: Trail, policy: RolloutPolicy, champion: Counts, candidate: Counts) -> Verdict:
    """What the evidence says; the counts are all of the rollout."""
    criterion, limit = CRITERIA[name], judged(policy)[name]
    keys, logs, promises = _found(criterion, trail, limit, champion, candidate)
    shown = np.where(logs == 0, -np.inf, logs)  # a class without labels looks no worse than the others
    share = keys[int(shown.argmax()) % len(keys)] if keys else ""
    values = (criterion.value(champion, share), criterion.value(candidate, share))
    bounds = [_interval(criterion, counts, share) for counts in (champion, candidate)]
    counted = [criterion.rows(counts, keys, False).requests for counts in (champion, candidate)]
    if not len(logs) or not np.any(counted):
        return Verdict(criterion=name, says="no data", champion=values[0], candidate=values[1])
    against = _power(float(shares.mixed(logs[None, :])[0]))
    promise = _power(float(promises.min())) if len(promises) else 1.0
    needed = 1 / _chance(name, policy)
    is_worse = against >= needed and not (isinstance(limit, LatencyLimit) and not _is_slower(values, limit))
    proven = promise >= 1 / policy.wrong_promotion
    return Verdict(
        criterion=name,
        says="worse" if is_worse else "proven" if proven else "unproven",
        champion=values[0],
        candidate=values[1],
        champion_interval=bounds[0],
        candidate_interval=bounds[1],
        share=share,
        worse=against,
        worse_needed=needed,
        within=promise,
        within_needed=1 / policy.wrong_promotion,
    )


def _found(
    criterion: Criterion, trail: Trail, limit: Limit, champion: Counts, candidate: Counts
) -> tuple[tuple[str, ...], shares.Array, shares.Array]:
    """The shares, and logarithms of the evidence against each and for each that has any."""
    if not criterion.at_once:
        logs = np.array(trail.worse).reshape(-1, len(shares.PRIOR))
        near = np.array(trail.within).reshape(-1, len(shares.SMALLER))
        return trail.keys, shares.mixed(logs, shares.PRIOR), shares.mixed(near)
    keys = criterion.keys(champion, candidate)
    zero, one = (criterion.rows(counts, keys, False) for counts in (champion, candidate))
    counts = (zero.requests, zero.hits, one.requests, one.hits)
    both = (zero.requests > 0) & (one.requests > 0)
    return keys, shares.at_once(limit.tolerated, counts), shares.at_once(limit.margin, counts, -1.0)[both]


def _chance(name: str, policy: RolloutPolicy) -> float:
    """How much of the chance of a wrong refusal is this criterion's: errors and labels have most."""
    limits = judged(policy)
    return policy.wrong_refusal * _PARTS.get(name, _PART) / sum(_PARTS.get(each, _PART) for each in limits)


def _is_slower(values: tuple[float | None, float | None], limit: LatencyLimit) -> bool:
    champion, candidate = values
    return champion is not None and candidate is not None and candidate > limit.ratio * champion


def _interval(criterion: Criterion, counts: Counts, share: str) -> tuple[float, float] | None:
    if not criterion.shown_as_rate:
        return None
    rows = criterion.rows(counts, (share,), False)
    return shares.interval(rows.hits[0], float(np.ravel(rows.requests)[0]))


def _power(log: float) -> float:
    return math.exp(min(log, shares.LARGEST))
