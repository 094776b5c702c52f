"""What the recipes of every classifier of texts share: their settings, and how a training begins and ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic.dataclasses import dataclass

from contracts.errors import PlatformError
from pipelines.recipes.text.settings import TextTaskConfig
from pipelines.task import STRICT, Progress, Task, class_output

if TYPE_CHECKING:
    from pipelines.recipes.text.examples import Examples


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TextRecipe(TextTaskConfig):
    """Base of the recipes of a classifier; a subclass has `learn`.

    labels: name in the source -> name of the class, where they differ.  order: the classes as a scale, from the lowest
    to the highest, such as 1 to 5: how far answers are off it is measured then; () where they have no order.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    order: tuple[str, ...] = ()

    def train(self, task: Task, dataset: Path, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """Learn from the texts of the task's string inputs; writes the files that `contracts.text_engine` serves."""
        from pipelines.recipes.text.examples import Examples

        examples = Examples.read(task, self, dataset, self.order)
        out.mkdir(parents=True, exist_ok=True)
        found = self.learn(examples, out, checkpoints, progress)
        return {"engine": "onnx", "output": class_output(task, self, examples.classes), "decision": None, **found}

    def learn(self, examples: Examples, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """Write the model to `out`; returns at least ``history``, ``parameters`` and ``device`` of `train`'s result."""
        raise PlatformError(
            f"recipe {self.recipe} cannot train",
            detail=f"its class {type(self).__name__} has no method learn",
            fix="give it one, as the recipes in pipelines/recipes/text/ have",
            code="bad_task",
        )
