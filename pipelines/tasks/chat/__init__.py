"""Task `chat`: what a model says to a prompt. English, Chinese or what its data have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.recipes.chat.pretrained import PretrainedChat
from pipelines.recipes.chat.tuned import PREFERENCES, DistilledChat, PreferredChat, TunedChat, TunedModel
from pipelines.recipes.text.task import TextGeneration
from pipelines.task import Column, GateConfig, Threshold
from pipelines.tasks.chat.instructions import FORMAT, SYSTEM, instructions
from pipelines.training.chat_tuning import LoraConfig, TuningConfig

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

# What a model of 135 million parameters reaches on the shipped sample; a larger one deserves limits of its own.
_GATE = GateConfig(
    primary="token_f1",
    thresholds=(Threshold(metric="token_f1", minimum=0.1), Threshold(metric="empty", maximum=0.1)),
    max_latency_ms=10_000.0,
    max_bundle_mb=20_000.0,
)
_TUNED = TunedModel(system=SYSTEM, max_tokens=32, format=FORMAT)
# Of all weights a smaller step is enough: they start where the base is.
_ALL, _LOW_RANK, _PREFERENCES = (
    TuningConfig(learning_rate=2e-5),
    TuningConfig(learning_rate=5e-4, epochs=1),
    TuningConfig(learning_rate=5e-5, epochs=2),
)


class ChatTask(TextGeneration):
    """See `pipelines.recipes.text.task`."""

    name = "chat"
    title = "What does the model answer?"
    modality = "chat"
    columns = (
        Column(name="id", dtype="string", unique=True),
        Column(name="prompt", dtype="string"),
        Column(name="answer", dtype="string", max_length=20_000),
        Column(name="rejected", dtype="string", nullable=True, max_length=20_000),
    )
    label = "answer"
    fields: Mapping[str, str] = {"prompt": "what is said to the model, as the first message of a conversation"}
    texts = "prompts"
    sample = Path(__file__).with_name("sample.csv")
    default_recipe = "pretrained"
    recipes = {  # noqa: RUF012 - as every task has it
        "pretrained": PretrainedChat(recipe="pretrained", gate=_GATE),
        "sft": TunedChat(recipe="sft", gate=_GATE, model=_TUNED, training=_ALL, lora=LoraConfig(rank=0)),
        "lora": TunedChat(recipe="lora", gate=_GATE, model=_TUNED, training=_LOW_RANK),
        "qlora": TunedChat(
            recipe="qlora", gate=_GATE, model=_TUNED, training=_LOW_RANK, lora=LoraConfig(four_bits=True)
        ),
        "dpo": PreferredChat(recipe="dpo", gate=_GATE, model=_TUNED, training=_PREFERENCES),
        "distill": DistilledChat(recipe="distill", gate=_GATE, model=_TUNED, training=_LOW_RANK),
    }

    def default_source(self, config: Any) -> Iterator[pa.Table]:
        """The shipped questions; of recipes that learn, instructions that are made up here."""
        import pyarrow as pa

        names = [column.name for column in self.columns]
        if not isinstance(config, TunedChat):
            from pyarrow import csv

            types = dict.fromkeys(names, pa.string())
            options = csv.ConvertOptions(column_types=types, include_columns=names, include_missing_columns=True)
            yield csv.read_csv(self.sample, convert_options=options)
            return
        rows = list(instructions(config.rows, config.seed))
        yield pa.table({name: pa.array([row[name] for row in rows], pa.string()) for name in names})

    def split(self, frame: pd.DataFrame, config: Any) -> dict[str, pd.DataFrame]:
        """As of all texts; the worse answers are a table of their own, as no model is given them."""
        parts = super().split(frame, config)
        if "rejected" not in frame or frame["rejected"].isna().all():
            return parts
        worse = frame[frame["rejected"].notna()]
        table = worse[["id", "rejected"]].assign(id=worse["id"].astype(str)).reset_index(drop=True)
        return {**parts, PREFERENCES: table}


TASK = ChatTask()
