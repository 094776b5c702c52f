"""Configuration of the task and its recipes."""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.recipes.text.base import TextConfig
from pipelines.recipes.text.linear import LinearText
from pipelines.recipes.text.lstm import LstmText
from pipelines.recipes.text.transformer import TransformerText
from pipelines.tasks.base import GateConfig, TaskConfig, Threshold
from pipelines.training.loop import LoopConfig

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

RECIPES: Mapping[str, TaskConfig] = {
    "linear": LinearText(recipe="linear", gate=_GATE),
    "embedding_lstm": LstmText(
        recipe="embedding_lstm",
        gate=_GATE,
        text=TextConfig(max_tokens=256, vocabulary=30_000, min_frequency=2),
    ),
    "transformer": TransformerText(
        recipe="transformer",
        gate=_GATE,
        text=TextConfig(max_tokens=256, vocabulary=30_000, min_frequency=2),
        training=LoopConfig(learning_rate=1e-3, warmup=100),
    ),
}
