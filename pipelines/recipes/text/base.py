"""What the recipes of every text task share: their configuration, and how the training of a classifier goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic.dataclasses import dataclass

from contracts.errors import PlatformError
from pipelines.task import STRICT, DataConfig, Progress, Task, TaskConfig, class_output
from pipelines.training.tokens import Unit

if TYPE_CHECKING:
    from pipelines.recipes.text.examples import Examples


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SplitConfig:
    """Shares of the texts, about: a hash of the text decides, so one text is never in two parts.

    Neither the seed nor texts that are added move a text to another part, but in classes of a few texts, which
    are spread over all parts first; see `assign`.

    test_source: a file or folder with the test part of a benchmark, read by `test_data`; then `test_share` is unused
    and texts that are in it are left out of the training.
    """

    valid_share: float = 0.1
    test_share: float = 0.2
    test_source: str = ""
    test_data: DataConfig = field(default_factory=DataConfig)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TextConfig:
    """What becomes of a text: where it is cut, and how large a vocabulary may be learned.

    unit: what a token is; "character" suits languages without spaces between words.
    """

    unit: Unit = "word"
    max_characters: int = 10_000
    max_tokens: int = 4_000
    vocabulary: int = 100_000
    min_frequency: int = 1


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TextTaskConfig(TaskConfig):
    """Base of the recipes of every text task."""

    text: TextConfig = field(default_factory=TextConfig)
    split: SplitConfig = field(default_factory=SplitConfig)


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

        examples = Examples.read(task, self, dataset)
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
