"""The recipes of every text classifier, by name."""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.recipes.text.encoder import EncoderText
from pipelines.recipes.text.linear import LinearText
from pipelines.recipes.text.lstm import LstmText
from pipelines.recipes.text.settings import TextConfig
from pipelines.recipes.text.transformer import TransformerText
from pipelines.recipes.text.transformer_lstm import TransformerLstmText
from pipelines.task import GateConfig, TaskConfig
from pipelines.training.loop import LoopConfig


def text_recipes(gate: GateConfig) -> Mapping[str, TaskConfig]:
    """Recipes that differ between tasks in the gate alone; a task may replace some, or leave some out."""
    neural = TextConfig(max_tokens=256, vocabulary=30_000, min_frequency=2)
    steps = LoopConfig(learning_rate=1e-3, warmup=100)
    return {
        "linear": LinearText(recipe="linear", gate=gate),
        "encoder": EncoderText(recipe="encoder", gate=gate),
        "embedding_lstm": LstmText(recipe="embedding_lstm", gate=gate, text=neural),
        "transformer": TransformerText(recipe="transformer", gate=gate, text=neural, training=steps),
        "transformer_lstm": TransformerLstmText(recipe="transformer_lstm", gate=gate, text=neural, training=steps),
    }
