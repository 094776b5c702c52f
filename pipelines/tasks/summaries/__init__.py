"""Task `summaries`: a short text of what a document says. English, Chinese or what its data have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipelines.gate_limits import ExplanationLimits
from pipelines.recipes.text.extracts import text_recipes
from pipelines.recipes.text.task import TextGeneration
from pipelines.task import Column, GateConfig, Threshold

# What the shipped sample reaches with room for other rows; real data deserves limits of its own.
_GATE = GateConfig(
    primary="rouge_l",
    explanations=ExplanationLimits(above_random=0.0),
    thresholds=(
        Threshold(metric="rouge_l", minimum=0.3),
        Threshold(metric="unsupported_numbers", maximum=0.05),
        Threshold(metric="empty", maximum=0.05),
    ),
)


class SummariesTask(TextGeneration):
    """See `pipelines.recipes.text.task`."""

    name = "summaries"
    title = "What does this document say, in short?"
    columns = (
        Column(name="id", dtype="string", unique=True),
        Column(name="document", dtype="string"),
        Column(name="summary", dtype="string", max_length=20_000),
    )
    label = "summary"
    fields: Mapping[str, str] = {"document": "the text to be summarised; a line break ends a sentence"}
    texts = "documents"
    sample = Path(__file__).with_name("sample.csv")
    recipes = text_recipes(_GATE)


TASK = SummariesTask()
