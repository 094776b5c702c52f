"""The recipe of any task whose rows are documents, and questions about them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic.dataclasses import dataclass

from pipelines.recipes.answers.settings import AnswersConfig
from pipelines.task import STRICT, Progress

if TYPE_CHECKING:
    from pipelines.task import Task


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AnswersRecipe(AnswersConfig):
    """An index of passages, and a judge of whether they answer a question."""

    def train(self, task: Task, dataset: Path, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """See `pipelines.training.answers.train_answers`; an encoder's vectors are kept for the next runs."""
        from pipelines.training.answers import train_answers

        return train_answers(dataset, self, out, checkpoints.parent / "encoders", progress)
