"""Task `news`: the category of an article from its title and content, in any language that its training data has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipelines.gate_limits import ExplanationLimits
from pipelines.recipes.text.standard import text_recipes
from pipelines.recipes.text.task import TextClassification
from pipelines.task import Column, GateConfig, Threshold

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
    explanations=ExplanationLimits(above_random=0.0),
)


class NewsTask(TextClassification):
    """See `pipelines.recipes.text.task`."""

    name = "news"
    title = "Which category does an article belong to?"
    columns = (
        Column(name="id", dtype="string", unique=True),
        Column(name="category", dtype="string", max_length=200),
        Column(name="title", dtype="string", nullable=True),
        Column(name="content", dtype="string"),
    )
    label = "category"
    fields: Mapping[str, str] = {"title": "headline", "content": "the article, or its first paragraphs"}
    texts = "articles"
    sample = Path(__file__).with_name("sample.csv")
    recipes = text_recipes(_GATE)


TASK = NewsTask()
