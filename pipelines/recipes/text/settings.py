"""How texts are read and split: settings that the recipes of every text task have."""

from __future__ import annotations

from dataclasses import field

from pydantic.dataclasses import dataclass

from pipelines.task import STRICT, DataConfig, TaskConfig
from pipelines.training.tokens import Unit


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SplitConfig:
    """Shares of the texts, about: a hash of the text decides, so one text is never in two parts.

    Neither the seed nor texts that are added move a text to another part, but in classes of a few texts, which
    are spread over all parts first; see `pipelines.recipes.text.split.assign`.

    test_source: a file or folder with the test part of a benchmark, read by `test_data`; then `test_share` is unused
    and texts that are in it are left out of the training.
    valid_source: the same of the validation part, also read by `test_data`, in the place of `valid_share`.
    """

    valid_share: float = 0.1
    test_share: float = 0.2
    test_source: str = ""
    valid_source: str = ""
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
