"""Task `names`: where people, places and organisations are named in a text. English, Chinese or what its data have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.recipes.text.task import TextTagging
from pipelines.task import Column, TaskConfig
from pipelines.tasks.names.config import RECIPES

if TYPE_CHECKING:
    import pyarrow as pa


class NamesTask(TextTagging):
    """See `pipelines.recipes.text.task`."""

    name = "names"
    title = "Who, where and which organisation is named in this text?"
    columns = (
        Column(name="id", dtype="string", nullable=True),
        Column(name="text", dtype="string"),
        Column(name="spans", dtype="string", nullable=True),
    )
    label = "spans"
    fields: Mapping[str, str] = {"text": "the text; places of spans count its characters"}
    sample = Path(__file__).with_name("parts.yaml")
    recipes: Mapping[str, TaskConfig] = RECIPES

    def default_source(self, config: Any) -> Iterator[pa.Table]:
        """Sentences that are put together of parts."""
        from pipelines.tasks.names.simulator import simulate

        return simulate(config.sample, config.seed)


TASK = NamesTask()
