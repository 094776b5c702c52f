"""What the gate asks of a chat model that was tuned; imported with every task, so it stays light."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class TuningLimits:
    """What the tuning of a chat model may cost; a limit of None is not asked for.

    forgotten: points of the score on the fixed general set, 0 to 100, that the model may lose.
    forgotten_bits: by how much the bits per byte of its plain texts may grow.
    contaminated: most of the test rows, as a share, that are for the most part in the training rows.
    quantised_bits: by how much the bits per byte of the validation answers may grow in the form that is served.
    """

    forgotten: Annotated[float, Field(ge=0)] | None = 1.0
    forgotten_bits: Annotated[float, Field(ge=0)] | None = 0.1
    contaminated: Annotated[float, Field(ge=0, le=1)] | None = 0.05
    quantised_bits: Annotated[float, Field(ge=0)] = 0.02
