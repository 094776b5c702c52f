"""What the gate asks of a language model that is trained here; imported with every task, so it stays light."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class TuningLimits:
    """What the tuning of a chat model may cost, and what one from scratch must reach; None is not asked for.

    forgotten: points of the score on the fixed general set, 0 to 100, that the model may lose.
    forgotten_bits: by how much the bits per byte of its plain texts may grow.
    contaminated: most of the test rows, as a share, that are for the most part in the training rows.
    quantised_bits: by how much the bits per byte of the validation answers may grow in the form that is served.
    above_ngram: bits per byte of the validation texts that a model from scratch may need more than counted runs of
    tokens do.  memorised: by how much more of what it writes, as a share of runs of 50 characters, may stand in the
    training texts than of held-out texts does.
    above_passages: how far above the first passages of the source the model has to be, in ROUGE-L or the primary metric
    of overlap; how many and of which unit the training and validation rows choose, see `pipelines.training.extracts`.
    """

    forgotten: Annotated[float, Field(ge=0)] | None = 1.0
    forgotten_bits: Annotated[float, Field(ge=0)] | None = 0.1
    contaminated: Annotated[float, Field(ge=0, le=1)] | None = 0.05
    quantised_bits: Annotated[float, Field(ge=0)] = 0.02
    above_ngram: float | None = None
    memorised: Annotated[float, Field(ge=0, le=1)] | None = None
    above_passages: float | None = None
