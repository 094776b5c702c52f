"""Configuration of the task and its recipes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from typing import Self

from pydantic.dataclasses import dataclass

from pipelines.tasks.base import STRICT, DataConfig, GateConfig, TaskConfig, Threshold
from pipelines.tasks.news.lstm import LstmConfig
from pipelines.tasks.news.transformer import TransformerModel
from pipelines.training.batches import AugmentConfig
from pipelines.training.linear_text import LinearConfig
from pipelines.training.loop import LoopConfig
from pipelines.training.tokens import Unit


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SplitConfig:
    """Shares of the articles, about: a hash of the text decides, so one text is never in two parts.

    Neither the seed nor articles that are added move an article to another part, but in classes of a few texts, which
    are spread over all parts first; see `assign`.

    test_source: a file or folder with the test part of a benchmark, read by `test_data`; then `test_share` is unused
    and articles that are in it are left out of the training.
    """

    valid_share: float = 0.1
    test_share: float = 0.2
    test_source: str = ""
    test_data: DataConfig = field(default_factory=DataConfig)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TextConfig:
    """What becomes of a text: where it is cut, and how large a vocabulary may be learned.

    unit: what a token is; "character" suits languages without spaces between words.
    """

    unit: Unit = "word"
    max_characters: int = 10_000
    max_tokens: int = 4_000
    vocabulary: int = 100_000
    min_frequency: int = 1


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NewsConfig(TaskConfig):
    """What all recipes share. labels: name in the source -> name of the class, for those that differ."""

    text: TextConfig = field(default_factory=TextConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LinearNews(NewsConfig):
    """TF-IDF and a linear model."""

    model: LinearConfig = field(default_factory=LinearConfig)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LstmNews(NewsConfig):
    """Embedding and LSTM."""

    model: LstmConfig = field(default_factory=LstmConfig)
    training: LoopConfig = field(default_factory=LoopConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TransformerNews(NewsConfig):
    """BERT's shape, see `TransformerModel`."""

    model: TransformerModel = field(default_factory=TransformerModel)
    training: LoopConfig = field(default_factory=LoopConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def training_part(self) -> Self:
        """Keeps what weights of 8 bits are measured by, where training chooses them."""
        if not self.model.int8:
            return super().training_part()
        kept = GateConfig(primary=self.gate.primary, int8_tolerance=self.gate.int8_tolerance)
        return replace(self, gate=kept)


# What the shipped sample reaches with room for another seed; real data deserves limits of its own.
_GATE = GateConfig(
    primary="macro_f1",
    thresholds=(
        Threshold(metric="accuracy", minimum=0.6),
        Threshold(metric="macro_f1", minimum=0.6),
    ),
    champion_tolerance=0.01,
    max_latency_ms=50.0,
    max_bundle_mb=300.0,
)

RECIPES: dict[str, TaskConfig] = {
    "linear": LinearNews(recipe="linear", gate=_GATE),
    "embedding_lstm": LstmNews(
        recipe="embedding_lstm",
        gate=_GATE,
        text=TextConfig(max_tokens=256, vocabulary=30_000, min_frequency=2),
    ),
    "transformer": TransformerNews(
        recipe="transformer",
        gate=_GATE,
        text=TextConfig(max_tokens=256, vocabulary=30_000, min_frequency=2),
        training=LoopConfig(learning_rate=1e-3, warmup=100),
    ),
}
