"""The rules of a rollout: how traffic moves to a new version of a model, and what stops it.

A task declares them (``--set rollout.*``), and they travel in the bundle. Each limit has two numbers, because refusing
and promoting ask different questions: a version is rolled back when it is shown to be worse by more than `tolerated`,
and gets all traffic only when it is shown to be worse by less than `margin`.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from contracts.document import Document

Strategy = Literal["canary", "shadow", "direct"]


class Limit(Document):
    """How much a share of requests may differ between the champion and the candidate."""

    tolerated: float = Field(ge=0, lt=1, description="a difference that is shown to be larger ends the rollout")
    margin: float = Field(gt=0, lt=1, description="100 % needs a difference that is shown to be smaller")
    judged: bool = Field(True, description="false: it is not looked at")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.margin <= self.tolerated:
            raise ValueError(f"margin {self.margin} must be larger than tolerated {self.tolerated}")
        return self


class LatencyLimit(Limit):
    """How much slower answers may be: by more than `ratio` in the mean and in a share of requests."""

    tolerated: float = Field(0.1, ge=0, lt=1, description="share of requests that may be slower")
    margin: float = Field(0.25, gt=0, lt=1, description="100 % needs a share of slower requests that is smaller")
    ratio: float = Field(1.25, ge=1, description="a candidate whose mean latency is within this ratio is not too slow")


def _limit(tolerated: float, margin: float) -> Limit:
    return Limit(tolerated=tolerated, margin=margin)


class RolloutPolicy(Document):
    """When a candidate gets more traffic, all of it, or none.

    The chances of a wrong decision hold however often the numbers are looked at (`services.rollout.evidence`).
    """

    weights: tuple[float, ...] = Field((1, 5, 25, 50, 100), description="% of the traffic, step by step, up to 100")
    step_samples: int = Field(10, ge=1, description="requests that the candidate must have answered in each step")
    step_seconds: float = Field(30, ge=0, description="least time of each step")
    max_seconds: float = Field(7200, gt=0, description="time with traffic after which an unproven candidate goes")
    no_data_seconds: float = Field(30, gt=0, description="without new samples for so long, the rollout holds")
    unready_seconds: float = Field(5, gt=0, description="a candidate that is not ready for so long is rolled back")
    start_seconds: float = Field(300, gt=0, description="time that a candidate has to become ready")
    warm_seconds: float = Field(600, ge=0, description="time that the old version is kept after 100 %")
    wrong_refusal: float = Field(0.01, gt=0, lt=0.5, description="chance that an equal version is rolled back")
    wrong_promotion: float = Field(0.01, gt=0, lt=0.5, description="chance that one worse by a margin gets 100 %")
    errors: Limit = Field(_limit(0, 0.01), description="answers 5xx and 429")
    refusals: Limit = Field(_limit(0.02, 0.1), description="answers 400, 413, 415 and 422")
    latency: LatencyLimit = Field(LatencyLimit(), description="time from request to answer")
    answers: Limit = Field(_limit(0.1, 0.2), description="shares of labels, and of scores above each bucket's edge")
    flags: Limit = Field(_limit(0.05, 0.2), description="predictions with flags")
    quality: float = Field(0.02, gt=0, lt=0.5, description="share of wrong answers, by labels, that may come on top")
    misses: Limit = Field(_limit(0.05, 0.2), description="wrong answers to the rows of each true class, by labels")
    drafted: Limit = Field(
        Limit(tolerated=0.1, margin=0.2, judged=False),
        description="lists of both versions with fewer clicks for one; judged: both draft the candidate's lists",
    )

    @model_validator(mode="after")
    def _rising(self) -> Self:
        rising = all(low < high for low, high in zip((0.0, *self.weights), self.weights, strict=False))
        if not self.weights or not rising or self.weights[-1] != 100:
            raise ValueError(f"weights must rise from above 0 to 100, got {list(self.weights)}")
        return self
