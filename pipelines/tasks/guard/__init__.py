"""Task `guard`: is a message to a chat service harmless? Its bundle is what the setting ``guard.classifier`` names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from pipelines.recipes.text.encoder import EncoderText
from pipelines.recipes.text.linear import LinearText
from pipelines.recipes.text.settings import TextConfig
from pipelines.recipes.text.task import TextClassification
from pipelines.task import STRICT, Column, GateConfig, TaskConfig, Threshold
from pipelines.training.linear_text import LinearConfig

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

# Of patterns that the training has not; real messages deserve limits of their own.
_GATE = GateConfig(primary="macro_f1", thresholds=(Threshold(metric="macro_f1", minimum=0.6),), max_latency_ms=2.0)
_TEXT = TextConfig(max_characters=2_000, max_tokens=1_000)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SampleConfig:
    """The built-in data: `each` messages of every pattern, at most."""

    each: Annotated[int, Field(ge=2, le=1_000)] = 12


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GuardLinear(LinearText):
    """N-grams of words, in Chinese of characters, and how large the built-in data are.

    Without the ratio of naive Bayes, which makes it too sure of messages that are like none of the training.
    """

    text: TextConfig = _TEXT
    model: LinearConfig = field(default_factory=lambda: LinearConfig(longest_ngram=3, ratio_powers=(0.0,)))
    sample: SampleConfig = field(default_factory=SampleConfig)


class GuardTask(TextClassification):
    """See `pipelines.recipes.text.task`."""

    name = "guard"
    title = "Is this message to a chat service harmless?"
    columns = (
        Column(name="id", dtype="string", unique=True),
        Column(name="text", dtype="string"),
        Column(name="class", dtype="string", max_length=200),
    )
    label = "class"
    fields: Mapping[str, str] = {"text": "the message"}
    texts = "messages"
    sample = Path(__file__).with_name("parts.yaml")
    recipes: Mapping[str, TaskConfig] = {
        "linear": GuardLinear(recipe="linear", gate=_GATE),
        "encoder": EncoderText(recipe="encoder", gate=_GATE),
    }

    def default_source(self, config: Any) -> Iterator[pa.Table]:
        """Messages that are put together of parts."""
        from pipelines.tasks.guard.simulator import simulate

        return simulate(getattr(config, "sample", SampleConfig()).each, config.seed)

    def keys(self, rows: pd.DataFrame) -> list[str]:
        """The pattern, where the id names one; else the text."""
        return [
            name.partition("/")[0] if "/" in name else key
            for name, key in zip(rows["id"].astype(str), rows["row_key"], strict=True)
        ]


TASK = GuardTask()
