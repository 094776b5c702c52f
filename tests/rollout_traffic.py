"""Two versions with invented traffic, whose counters a rollout judges: for simulations."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from contracts.metric_names import SCORE_BUCKETS
from contracts.rollout_policy import RolloutPolicy
from services.rollout.decide import advance
from services.rollout.observation import Counts, Observation, Seen
from services.rollout.state import Rollout, new_rollout

SLOWER = ("0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1")
ABOVE = tuple(map(str, SCORE_BUCKETS))


class Behaviour(NamedTuple):
    """How a version answers: its share of errors, its median latency, its scores, and the share of wrong answers.

    Scores have a beta distribution, shifted by `shift`. Labels are of the share `labelled` of requests and come after
    `late` more looks. `rare` is the share of rows of a class of its own, of whose answers `missed` are wrong.
    """

    errors: float = 0.0
    seconds: float = 0.004
    score: tuple[float, float] = (2.0, 5.0)
    shift: float = 0.0
    wrong: float = 0.0
    labelled: float = 0.0
    late: int = 0
    rare: float = 0.0
    missed: float = 0.0


class Version:
    """Counters of a version that has answered some requests."""

    def __init__(self, random: np.random.Generator, behaviour: Behaviour) -> None:
        self._random, self._behaviour = random, behaviour
        self._requests = self._errors = self._seconds = self._yes = 0.0
        self._labels = [np.zeros(4)] * (behaviour.late + 1)  # common, wrong ones, rare, wrong ones: by look
        self._latency, self._scores = np.zeros(len(SLOWER)), np.zeros(len(ABOVE))

    def serve(self, requests: int) -> None:
        """Answer so many more requests."""
        seconds = self._behaviour.seconds * np.exp(0.4 * self._random.standard_normal(requests))
        scores = np.clip(self._random.beta(*self._behaviour.score, requests) + self._behaviour.shift, 0, 1)
        self._requests += requests
        self._errors += self._random.binomial(requests, self._behaviour.errors)
        labelled = self._random.binomial(requests, self._behaviour.labelled)
        rare = self._random.binomial(labelled, self._behaviour.rare)
        wrong = self._random.binomial(labelled - rare, self._behaviour.wrong)
        missed = self._random.binomial(rare, self._behaviour.missed)
        self._labels.append(self._labels[-1] + [labelled - rare, wrong, rare, missed])
        self._seconds += seconds.sum()
        self._yes += (scores > 0.5).sum()
        self._latency += [(seconds <= float(edge)).sum() for edge in SLOWER]
        self._scores += [(scores <= float(edge)).sum() for edge in ABOVE]

    def seen(self) -> Seen:
        """As a look at its metrics shows it."""
        common, wrong, rare, missed = self._labels[-1 - self._behaviour.late].tolist()
        counts = Counts.model_construct(
            None,
            requests=self._requests,
            errors=self._errors,
            seconds=self._seconds,
            predictions=self._requests,
            labelled=common + rare,
            wrong=wrong + missed,
            truths={"common": common, "rare": rare},
            misses={"common": wrong, "rare": missed},
            latency=dict(zip(SLOWER, self._latency.tolist(), strict=True)),
            labels={"yes": float(self._yes), "no": float(self._requests - self._yes)},
            scores=dict(zip(ABOVE, self._scores.tolist(), strict=True)),
        )
        return Seen.model_construct(None, ready=True, counts=counts)


def simulated(
    seed: int,
    champion: Behaviour,
    candidate: Behaviour,
    *,
    policy: RolloutPolicy,
    per_second: float = 20,
    look: float = 1.0,
    longest: float = 7200.0,
    warm: bool = False,
    before: int = 2000,
) -> tuple[Rollout, float]:
    """A rollout until it settles or ends, and how long it took; `look` is the time between looks.

    warm: it goes on until the old version is not kept any longer.  before: requests that the champion had answered.
    """
    random = np.random.default_rng(seed)
    versions = (Version(random, champion), Version(random, candidate))
    versions[0].serve(before)
    state, now = new_rollout("r", "model", "1", "2", "canary", policy, 0.0), 0.0
    while not state.ended and (warm or state.phase != "settling") and now < longest:
        requests = random.poisson(per_second * look)
        mine = random.binomial(requests, state.weight / 100)
        versions[0].serve(requests - mine)
        versions[1].serve(mine)
        now += look
        seen: Any = Observation.model_construct(None, champion=versions[0].seen(), candidate=versions[1].seen())
        state = advance(state, seen, now).state
    return state, now
