"""Task `sentiment`: is a review favourable? English, Chinese or what its data have; of the whole or of one aspect."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipelines.gate_limits import ExplanationLimits
from pipelines.recipes.text.standard import text_recipes
from pipelines.recipes.text.task import TextClassification
from pipelines.task import Column, GateConfig, Threshold

# What the shipped sample reaches with room for another seed; real data deserves limits of its own.
_GATE = GateConfig(
    primary="accuracy",
    thresholds=(Threshold(metric="accuracy", minimum=0.6),),
    explanations=ExplanationLimits(above_random=0.0),
)


class SentimentTask(TextClassification):
    """See `pipelines.recipes.text.task`."""

    name = "sentiment"
    title = "Is this review favourable?"
    columns = (
        Column(name="id", dtype="string", unique=True),
        Column(name="text", dtype="string"),
        Column(name="aspect", dtype="string", nullable=True, max_length=200),
        Column(name="sentiment", dtype="string", max_length=200),
    )
    label = "sentiment"
    fields: Mapping[str, str] = {
        "text": "the review",
        "aspect": "what of it is asked about, such as battery; empty for the whole",
    }
    together = ("text",)
    texts = "reviews"
    sample = Path(__file__).with_name("sample.csv")
    recipes = text_recipes(_GATE)


TASK = SentimentTask()
