"""Task `chat`: what a model says to a prompt. English, Chinese or what its data have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipelines.recipes.chat.pretrained import PretrainedChat
from pipelines.recipes.text.task import TextGeneration
from pipelines.task import Column, GateConfig, Threshold

# What a model of 135 million parameters reaches on the shipped sample; a larger one deserves limits of its own.
_GATE = GateConfig(
    primary="token_f1",
    thresholds=(Threshold(metric="token_f1", minimum=0.1), Threshold(metric="empty", maximum=0.1)),
    max_latency_ms=10_000.0,
    max_bundle_mb=20_000.0,
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
    )
    label = "answer"
    fields: Mapping[str, str] = {"prompt": "what is said to the model, as the first message of a conversation"}
    texts = "prompts"
    sample = Path(__file__).with_name("sample.csv")
    default_recipe = "pretrained"
    recipes = {"pretrained": PretrainedChat(recipe="pretrained", gate=_GATE)}  # noqa: RUF012 - as every task has it


TASK = ChatTask()
