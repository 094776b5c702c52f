"""What the recipes share between the data set and the served files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipelines.training.tokens import PAD_ID

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.recipes.text.settings import TextConfig, TextTaskConfig
    from pipelines.task import Task
    from pipelines.training.adversary import Opponent


@dataclass(frozen=True, kw_only=True)
class Examples:
    """What a recipe learns from: the rows of a data set, the fields that its texts are made of, and the classes.

    opponent: whom a network is trained against, if it is.
    """

    task: Task
    train: pd.DataFrame
    valid: pd.DataFrame
    fields: tuple[str, ...]
    classes: list[str]
    opponent: Opponent | None = None

    @classmethod
    def read(cls, task: Task, config: TextTaskConfig, dataset: Path, order: Sequence[str] = ()) -> Examples:
        """The parts ``train`` and ``valid`` of `dataset`; a text is what the task's inputs of type string say.

        order: the classes, where they have one; else they are sorted by name.
        """
        import pandas as pd

        train, valid = (pd.read_parquet(dataset / f"{name}.parquet") for name in ("train", "valid"))
        classes = list(order) or sorted(set(train["label"]) | set(valid["label"]))
        return cls(task=task, train=train, valid=valid, fields=text_fields(task, config), classes=classes)


def text_fields(task: Task, config: TextTaskConfig) -> tuple[str, ...]:
    """What a text is made of: the task's inputs of type string."""
    return tuple(item.name for item in task.inputs(config) if item.dtype == "string")


def joined_texts(rows: pd.DataFrame, fields: Sequence[str], max_characters: int) -> list[str]:
    """One text per row, joined and cut by the very function that serves."""
    from contracts.texts import join_fields

    return [join_fields(row, max_characters) for row in zip(*(rows[name] for name in fields), strict=True)]


def label_numbers(rows: pd.DataFrame, classes: list[str]) -> Any:
    """The class number of each row, int64, shape (rows,)."""
    import numpy as np

    number = {name: at for at, name in enumerate(classes)}
    return np.array([number[name] for name in rows["label"]], np.int64)


def write_spec(
    out: Path,
    config: TextConfig,
    *,
    explain: Literal["terms", "occlusion"],
    per_row: int,
    per_token: int,
    pad_id: int = PAD_ID,
    max_padding: float = 1.0,
) -> None:
    """Write text.json; `per_row` and `per_token` are the numbers that the graph holds in memory."""
    from contracts.text_engine import TextSpec

    spec = TextSpec(
        max_characters=config.max_characters,
        max_tokens=config.max_tokens,
        pad_id=pad_id,
        numbers_per_row=per_row,
        numbers_per_token=per_token,
        max_padding=max_padding,
        separator=" " if config.unit == "word" else "",
        explain=explain,
    )
    (out / "text.json").write_text(spec.model_dump_json(indent=1) + "\n", encoding="utf-8")
