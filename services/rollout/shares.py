"""Evidence about a share of requests in two versions, valid however often it is looked at.

A process of evidence multiplies one e-variable per block of requests. While its hypothesis holds, it reaches 1 / alpha
at any time with a chance of at most alpha (Ville's inequality), so a rollout may look each second and stop when it has
seen enough. The hypotheses are about the difference of two success rates; the rates themselves are unknown and may
change from block to block. The e-variable of a block is the likelihood ratio of an alternative, fixed before the block,
and of the distribution of the hypothesis that is nearest to it (Turner and Grünwald 2023, Exact anytime-valid
confidence intervals for contingency tables and beyond, theorem 1). Processes of several alternatives are averaged, as
mixtures of sequential tests are (Johari et al. 2022; Howard et al. 2021; Waudby-Smith and Ramdas 2024). Requests of one
block are taken to be independent.

One alternative changes from block to block: it bets what the test of fixed size that tells the margin from what is
tolerated would need from here on, so that little is paid for looking early (the conditional error of Müller and Schäfer
2001; as a bet, Koning and van Meer 2025, Sequentializing a test: anytime validity is free).
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LARGER = (0.01, 0.03, 0.1, 0.3)  # alternatives: how much above what is tolerated the difference is
PRIOR = (0.06, 0.03, 0.15, 0.06, 0.7)  # of them and of the one that changes, which is the last
SMALLER = (1.0, 0.67)  # alternatives: how far below the margin, as a share of it
_POWER = 0.9  # of the test of fixed size at the margin
_FARTHEST = 5.0  # the changing alternative, in distances of margin and tolerance
_ENOUGH = 10  # requests of the champion before anything is bet on its rate
_EDGE = 1e-9
LARGEST = 600.0  # of logarithms that are kept; their powers are finite


class Aim(NamedTuple):
    """What evidence is gathered for: a difference above `tolerated`, such as `margin`, against a chance of `chance`.

    Of all shares alike, or of each one.
    """

    tolerated: Any
    margin: Any
    chance: Any


def worse(
    logs: Array, informed: Array, aim: Aim, block: tuple[Any, Any, Any, Any], seen: tuple[Any, Any]
) -> tuple[Array, Array]:
    """Evidence that the candidate's rate is above the champion's by more than is tolerated, after one more block.

    Args:
        logs: logarithms of the evidence before it: (..., shares, alternatives), those of `LARGER` and one that changes.
        informed: information about the difference in earlier blocks, one over its variance: (..., shares).
        block: requests and successes of the champion, requests and successes of the candidate; (..., shares) each.
        seen: requests and successes of the champion in earlier blocks.

    Returns:
        Evidence and information after it.
    """
    above, more = _needed(logs[..., -1], informed, aim, block, seen)
    fixed = np.broadcast_to(np.array(LARGER), (*above.shape, len(LARGER)))
    differences = np.asarray(aim.tolerated)[..., None] + np.concatenate([fixed, above[..., None]], axis=-1)
    return _bet(logs, aim.tolerated, differences, block, seen, 1.0), informed + more


def _needed(
    logs: Array, informed: Array, aim: Aim, block: tuple[Any, Any, Any, Any], seen: tuple[Any, Any]
) -> tuple[Array, Array]:
    """How far above what is tolerated the changing alternative is, 0 at its goal; and the information of the block.

    `left` is the chance that the test of fixed size rejects in the end, as things stand, if nothing is worse; `rest` is
    the information that it still waits for. When it ends, another one begins.
    """
    apart, first = aim.margin - aim.tolerated, aim.chance * PRIOR[-1] * 0.95
    whole = ((_level(first) + NormalDist().inv_cdf(_POWER)) / apart) ** 2
    rest = whole - np.mod(informed, whole)
    left = np.clip(first * np.exp(np.minimum(logs, 50.0)), 1e-12, 1.0)
    level = _level(left)
    above = np.exp(-(level**2) / 2) / math.sqrt(2 * math.pi) / left / np.sqrt(rest)
    requests0, requests1 = np.maximum(block[0], 1e-9), np.maximum(block[2], 1e-9)
    rate = _expected(*seen)
    other = np.clip(rate + (aim.tolerated + aim.margin) / 2, 1e-4, 1 - 1e-4)
    more = 1 / (rate * (1 - rate) / requests0 + other * (1 - other) / requests1)
    return np.where(left < 0.99, np.minimum(above, _FARTHEST * apart), 0.0), more


def _level(chances: Any) -> Array:
    """How many deviations a normal number exceeds with these chances."""
    found = {each: NormalDist().inv_cdf(1 - min(each, 0.99)) for each in set(np.ravel(chances).tolist())}
    return np.array([found[each] for each in np.ravel(chances).tolist()]).reshape(np.shape(chances))


def within(logs: Array, margin: Any, block: tuple[Any, Any, Any, Any], seen: tuple[Any, Any]) -> Array:
    """Evidence that the candidate's rate is above the champion's by less than `margin`; arguments as of `worse`."""
    differences = np.asarray(margin)[..., None] * (1 - np.array(SMALLER))
    return _bet(logs, margin, differences, block, seen, -1.0)


def _bet(
    logs: Array, limit: Any, differences: Array, block: tuple[Any, Any, Any, Any], seen: tuple[Any, Any], side: float
) -> Array:
    requests0, hits0, requests1, hits1 = (np.asarray(part, np.float64)[..., None] for part in block)
    past, past_hits, limit = (np.asarray(part, np.float64)[..., None] for part in (*seen, limit))
    rate = _expected(past, past_hits)
    other = np.clip(rate + differences, 1e-4, 1 - 1e-4)
    near = nearest(requests0, rate, requests1, other, limit)
    gained = _log_ratio(requests0, hits0, rate, near) + _log_ratio(requests1, hits1, other, near + limit)
    bets = (side * (other - rate - limit) > _EDGE) & (past >= _ENOUGH) & (requests0 > 0) & (requests1 > 0)
    return np.minimum(logs + np.where(bets, gained, 0.0), LARGEST)


def _expected(requests: Any, hits: Any) -> Array:
    """The champion's rate, as far as is known."""
    found: Array = np.clip((np.asarray(hits) + 0.3) / (np.asarray(requests) + 0.6), 1e-4, 1 - 1e-4)
    return found


def _log_ratio(requests: Array, hits: Array, rate: Array, other: Array) -> Array:
    return hits * np.log(rate / other) + (requests - hits) * np.log((1 - rate) / (1 - other))


def nearest(requests0: Array, rate0: Array, requests1: Array, rate1: Array, difference: Any) -> Array:
    """The first of the two rates that differ by `difference` and are nearest to the given ones in relative entropy.

    It solves the cubic equation of Miettinen and Nurminen (1985, Comparative analysis of two rates, appendix I).
    """
    total = np.maximum(requests0 + requests1, 1.0)
    hits0 = requests0 * rate0
    hits = hits0 + requests1 * rate1
    square = ((requests1 + 2 * requests0) * difference - total - hits) / total
    linear = ((requests0 * difference - total - 2 * hits0) * difference + hits) / total
    constant = hits0 * difference * (1 - difference) / total
    q = square**3 / 27 - square * linear / 6 + constant / 2
    p = np.where(q < 0, -1.0, 1.0) * np.sqrt(np.maximum(square**2 / 9 - linear / 3, 0))
    angle = (math.pi + np.arccos(np.clip(q / np.where(p == 0, 1.0, p**3), -1, 1))) / 3
    solved = 2 * p * np.cos(angle) - square / 3
    found: Array = np.clip(solved, np.maximum(0.0, -difference) + _EDGE, np.minimum(1.0, 1 - difference) - _EDGE)
    return found


def at_once(difference: float, counts: tuple[Any, Any, Any, Any], side: float = 1.0) -> Array:
    """Logarithms of the evidence that the rates differ by more than `difference` (`side` 1), or by less (-1).

    It is that of all counts together, in whatever order they came: how likely Jeffreys' mixture of all rates makes
    them, over how likely the best rates of the hypothesis do, which no true ones exceed (Wasserman, Ramdas and
    Balakrishnan 2020, Universal inference, section 8). The rates are taken to be the same all the time.

    Args:
        counts: requests and successes of the champion, requests and successes of the candidate.
    """
    requests0, hits0, requests1, hits1 = (np.asarray(part, np.float64) for part in counts)
    rate0, rate1 = hits0 / np.maximum(requests0, 1), hits1 / np.maximum(requests1, 1)
    allowed = side * (rate1 - rate0 - difference) <= 0
    near = nearest(requests0, rate0, requests1, rate1, difference)
    mixture = _of_all_rates(requests0, hits0) + _of_all_rates(requests1, hits1)
    best = _likelihood(requests0, hits0, np.where(allowed, rate0, near))
    best += _likelihood(requests1, hits1, np.where(allowed, rate1, near + difference))
    return np.where((requests0 > 0) & (requests1 > 0), np.minimum(mixture - best, LARGEST), 0.0)


def _likelihood(requests: Array, hits: Array, rate: Array) -> Array:
    rate = np.clip(rate, 1e-12, 1 - 1e-12)
    found: Array = hits * np.log(rate) + (requests - hits) * np.log1p(-rate)
    return found


def _of_all_rates(requests: Array, hits: Array) -> Array:
    """The logarithm of the likelihood under Jeffreys' prior."""
    pairs = zip(requests.ravel().tolist(), hits.ravel().tolist(), strict=True)
    found = [_log_beta(each + 0.5, every - each + 0.5) - _log_beta(0.5, 0.5) for every, each in pairs]
    return np.array(found).reshape(hits.shape)


def mixed(logs: Array, weights: tuple[float, ...] = ()) -> Array:
    """The logarithm of the average over the last axis, with `weights` that add up to one, or all alike."""
    top = logs.max(axis=-1, keepdims=True)
    powers = np.exp(logs - top)
    found: Array = top[..., 0] + np.log(powers @ np.array(weights) if weights else powers.mean(axis=-1))
    return found


def interval(hits: float, requests: float, alpha: float = 0.05) -> tuple[float, float]:
    """Bounds of a rate that hold at all times together with a chance of 1 - `alpha`.

    A rate is outside when the mixture of all rates under Jeffreys' prior is 1 / `alpha` times as likely (Robbins 1970;
    Howard et al. 2021, section 3.2).
    """
    if requests <= 0:
        return 0.0, 1.0
    mixture = _log_beta(hits + 0.5, requests - hits + 0.5) - _log_beta(0.5, 0.5)

    def outside(rate: float) -> bool:
        like = (hits * math.log(rate) if hits else 0.0) + (
            (requests - hits) * math.log1p(-rate) if hits < requests else 0.0
        )
        return mixture - like > math.log(1 / alpha)

    best = hits / requests
    return _border(outside, 1e-12, best), _border(outside, 1 - 1e-12, best)


def _border(outside: Any, far: float, near: float) -> float:
    if not outside(far):
        return round(far)
    for _ in range(25):
        middle = (far + near) / 2
        far, near = (middle, near) if outside(middle) else (far, middle)
    return near


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
