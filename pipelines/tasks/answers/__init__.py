"""Task `answers`: what do these documents say? Made-up documents by default, any folder of them as source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pipelines.recipes.answers.task import AnswersTask
from pipelines.task import TaskConfig
from pipelines.tasks.answers.config import RECIPES

if TYPE_CHECKING:
    import pyarrow as pa


class Answers(AnswersTask):
    """See `pipelines.recipes.answers.task`."""

    name = "answers"
    title = "What do these documents say?"
    recipes: Mapping[str, TaskConfig] = RECIPES
    default_recipe = "hybrid"

    def default_source(self, config: Any) -> Iterator[pa.Table]:
        """Made-up documents and questions."""
        from pipelines.tasks.answers.simulator import simulate

        return simulate(config.sample, config.seed)


TASK = Answers()
