"""Task `translation`: what does this say in the other language? English and Chinese, or what its data have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from pipelines.gate_limits import ExplanationLimits
from pipelines.recipes.text.seq2seq import DecodingConfig, Seq2SeqModel, Seq2SeqText
from pipelines.recipes.text.settings import TextConfig
from pipelines.recipes.text.task import TextGeneration
from pipelines.task import STRICT, Column, GateConfig, TaskConfig, Threshold
from pipelines.training.loop import LoopConfig

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

# What the shipped sample reaches with room for other rows; real data deserves limits of its own.
_GATE = GateConfig(
    primary="chrf",
    champion_tolerance=1.0,  # of 100
    max_latency_ms=500.0,  # an answer is written token by token
    explanations=ExplanationLimits(above_random=0.0),
    thresholds=(Threshold(metric="chrf", minimum=70.0), Threshold(metric="empty", maximum=0.01)),
)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SampleConfig:
    """The built-in data: how many sentences."""

    sentences: Annotated[int, Field(ge=200, le=50_000)] = 4_000


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TranslationSeq2Seq(Seq2SeqText):
    """Sizes that suit the built-in sentences, and how many of these there are."""

    text: TextConfig = field(
        default_factory=lambda: TextConfig(max_characters=4_000, max_tokens=256, vocabulary=900, min_frequency=2)
    )
    model: Seq2SeqModel = field(default_factory=lambda: Seq2SeqModel(layers=1, width=128, heads=4, inner=256))
    # Longer ones are rarely said again in a sentence; a rare character has three.
    decoding: DecodingConfig = field(default_factory=lambda: DecodingConfig(max_tokens=128, no_repeat=5))
    training: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            epochs=12, patience=3, batch_size=32, learning_rate=2e-3, warmup=100, schedule="linear"
        )
    )
    sample: SampleConfig = field(default_factory=SampleConfig)


class TranslationTask(TextGeneration):
    """See `pipelines.recipes.text.task`."""

    name = "translation"
    title = "What does this say in the other language?"
    columns = (
        Column(name="id", dtype="string", unique=True),
        Column(name="source", dtype="string"),
        Column(name="target", dtype="string", max_length=20_000),
    )
    label = "target"
    fields: Mapping[str, str] = {"source": "the text to be translated"}
    texts = "sentences"
    sample = Path(__file__).with_name("parts.yaml")
    default_recipe = "seq2seq"
    recipes: Mapping[str, TaskConfig] = {"seq2seq": TranslationSeq2Seq(recipe="seq2seq", gate=_GATE)}

    def default_source(self, config: Any) -> Iterator[pa.Table]:
        """Sentences that a small grammar makes."""
        from pipelines.tasks.translation.simulator import simulate

        return simulate(getattr(config, "sample", SampleConfig()).sentences, config.seed)

    def keys(self, rows: pd.DataFrame) -> list[str]:
        """The combination, where the id names one; else the text."""
        return [
            name.partition("/")[0] if "/" in name else key
            for name, key in zip(rows["id"].astype(str), rows["row_key"], strict=True)
        ]


TASK = TranslationTask()
