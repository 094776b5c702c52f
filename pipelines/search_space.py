"""How a recipe is searched: settings that stand in its configuration, and the space that its classes declare.

A class of a section of a recipe declares its part of the space as ``SPACE``, with keys of the section; a configuration
replaces the whole space by ``search.space``. This module is imported with every task, so it stays light.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass as plain_dataclass
from dataclasses import field, fields, replace
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

SEARCH_PODS = "FAIRLEAD_SEARCH_PODS"
"""Environment of the tasks of a run whose search has pods of its own: how many."""

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Dimension:
    """One setting that a search may change: a range with both ends, whole numbers if they are, or a list of choices.

    log: equal ratios are equally probable.  when: keys of the configuration, searched or not, and the values that they
    must have; else the setting keeps the recipe's value.
    """

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.choices and (self.low is not None or self.high is not None or self.log):
            raise ValueError("give choices, or low and high, not both")
        if self.choices:
            return self
        if self.low is None or self.high is None:
            raise ValueError("give low and high, or choices")
        if self.low > self.high:
            raise ValueError(f"low, {self.low}, is above high, {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"log needs low above 0, and it is {self.low}")
        return self

    @property
    def whole(self) -> bool:
        """Whether it is a range of whole numbers."""
        return not self.choices and isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def constant(self) -> bool:
        """Whether it has one value only."""
        return len(self.choices) == 1 or (not self.choices and self.low == self.high)

    def said(self) -> str:
        """In words."""
        if self.choices:
            return f"one of {', '.join(map(str, self.choices))}"
        return f"{self.low:g} to {self.high:g}{', log' if self.log else ''}"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class SearchConfig:
    """A search in place of one training: `trials` combinations of the space are tried, and the best is trained.

    trials: 0 searches nothing.  seconds: no trial starts after so long; 0 for no limit.  metrics: what is optimised on
    the validation rows, the first before the others, of the task's metrics, latency_ms and bundle_mb; empty takes the
    gate's.  at_most, at_least: limits of the same that the chosen one must keep.  tolerance: how much of the first
    metric may be given up for the second, in its unit.
    workers: processes of this machine, which share its cores.  sampler: of Optuna.  pruner: ends trials early by what a
    training reports; "auto" is the median for recipes whose training reports (`TaskConfig.reports`) and one metric.
    name: of the study; empty takes one that follows from data and configuration. A second search of one name goes on
    with its trials.  storage: an SQLAlchemy address without password, which is FAIRLEAD_SEARCH_PASSWORD; empty is a
    file.  patience: seconds that a storage may be away.  space: in place of what the recipe declares, by key.
    """

    trials: Annotated[int, Field(ge=0, le=10_000)] = 0
    seconds: Annotated[float, Field(ge=0)] = 0.0
    metrics: tuple[str, ...] = ()
    at_most: Mapping[str, float] = field(default_factory=dict)
    at_least: Mapping[str, float] = field(default_factory=dict)
    tolerance: Annotated[float, Field(ge=0)] = 0.0
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    sampler: Literal["tpe", "random", "nsga2"] = "tpe"
    pruner: Literal["auto", "none", "median", "hyperband"] = "auto"
    name: str = ""
    storage: str = ""
    patience: Annotated[float, Field(gt=0)] = 300.0
    space: Mapping[str, Dimension] = field(default_factory=dict)


@plain_dataclass(frozen=True)
class Space:
    """Dimensions by dotted key of the configuration."""

    dimensions: Mapping[str, Dimension]

    def said(self) -> dict[str, str]:
        """In words, by key."""
        return {key: dimension.said() for key, dimension in self.dimensions.items()}


def declared_space(config: Any) -> Space:
    """The space of a configuration: its own, or what the classes of the recipe and of its sections declare."""
    if config.search.space:
        return Space(dict(config.search.space))
    found: dict[str, Dimension] = dict(getattr(type(config), "SPACE", {}))
    for one in fields(config):
        section = getattr(config, one.name)
        for key, dimension in getattr(type(section), "SPACE", {}).items():
            when = {f"{one.name}.{other}": values for other, values in dimension.when.items()}
            found[f"{one.name}.{key}"] = replace(dimension, when=when)
    return Space(found)
