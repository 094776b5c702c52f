"""What a gate may ask of reasons and of redaction; imported with every task, so it stays light."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ExplanationLimits:
    """How true and how steady the reasons of a model must be; a limit of None is not asked for.

    above_random: reasons must be more faithful than a random order by more than this: of tables as areas from 0 to 1,
    of texts and images in log-odds.  stability: least share, or cosine, of reasons that stay when a row hardly changes.
    required: a model that gives no reasons, or whose reasons could not be measured, is refused.
    """

    above_random: Annotated[float, Field(ge=0)] | None = None
    stability: Annotated[float, Field(ge=0, le=1)] | None = None
    required: bool = False


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class RedactionLimits:
    """Of the personal data in ``data.pii_labelled``, by kind or ``all``: the least recall, and the most that leaks."""

    recall: Mapping[str, Annotated[float, Field(ge=0, le=1)]] = field(default_factory=dict)
    leaked: Mapping[str, Annotated[float, Field(ge=0, le=1)]] = field(default_factory=dict)
