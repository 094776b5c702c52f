"""Configuration of the task and its recipes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from pipelines.gate_limits import ExplanationLimits
from pipelines.recipes.text.crf import CrfText
from pipelines.recipes.text.tagger import TaggerText
from pipelines.task import STRICT, GateConfig, TaskConfig, Threshold


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SampleConfig:
    """The built-in data. texts: how many sentences are made.  languages: in turn."""

    texts: Annotated[int, Field(ge=20, le=20_000)] = 500
    languages: Annotated[tuple[Literal["english", "chinese"], ...], Field(min_length=1)] = ("english", "chinese")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NamesConfig(TaggerText):
    """The recipe, and how large the built-in data are."""

    sample: SampleConfig = field(default_factory=SampleConfig)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NamesCrfConfig(CrfText):
    """The linear recipe, and how large the built-in data are."""

    sample: SampleConfig = field(default_factory=SampleConfig)


# What the generated sample reaches with room for another seed; real data deserves limits of its own.
_GATE = GateConfig(
    primary="f1",
    thresholds=(
        Threshold(metric="f1", minimum=0.8),
        Threshold(metric="recall", minimum=0.8),
        Threshold(metric="leaked", maximum=0.1),
    ),
    explanations=ExplanationLimits(above_random=0.0),
)

RECIPES: Mapping[str, TaskConfig] = {
    "crf": NamesCrfConfig(recipe="crf", gate=_GATE),
    "tagger": NamesConfig(recipe="tagger", gate=_GATE),
}
