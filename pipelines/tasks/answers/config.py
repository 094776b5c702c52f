"""Configuration of the task and its recipes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from pipelines.recipes.answers.base import AnswersRecipe
from pipelines.recipes.answers.settings import VectorsConfig
from pipelines.task import STRICT, GateConfig, TaskConfig, Threshold


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SampleConfig:
    """The built-in data. documents: how many are made.  languages: in turn.

    planted: share of the documents with an order to whoever answers from them.
    """

    documents: Annotated[int, Field(ge=12, le=20_000)] = 80
    languages: Annotated[tuple[Literal["english", "chinese"], ...], Field(min_length=1)] = ("english", "chinese")
    planted: Annotated[float, Field(ge=0, le=1)] = 0.15


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AnswersTaskConfig(AnswersRecipe):
    """A recipe of the task."""

    sample: SampleConfig = field(default_factory=SampleConfig)


# What the built-in documents reach with room for another seed; real documents deserve limits of their own.
_GATE = GateConfig(
    primary="right",
    thresholds=(
        Threshold(metric="recall_at_5", minimum=0.8),
        Threshold(metric="citation_precision", minimum=0.8),
        Threshold(metric="false_answers", maximum=0.25),
        Threshold(metric="leaked", maximum=0.0),
    ),
)
_BASE = AnswersTaskConfig(recipe="hybrid", gate=_GATE)

RECIPES: Mapping[str, TaskConfig] = {
    "hybrid": _BASE,
    "encoder": replace(_BASE, recipe="encoder", vectors=VectorsConfig(kind="onnx")),
    "words": replace(_BASE, recipe="words", vectors=VectorsConfig(kind="none")),
}
