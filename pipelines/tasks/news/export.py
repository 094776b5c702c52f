"""What the recipes share between the data set and the served files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipelines.tasks.news.data import FIELDS

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.tasks.news.config import TextConfig


def joined_texts(rows: pd.DataFrame, max_characters: int) -> list[str]:
    """One text per row, joined and cut by the very function that serves."""
    from contracts.engine_text import join_fields

    return [join_fields(fields, max_characters) for fields in zip(*(rows[name] for name in FIELDS), strict=True)]


def label_numbers(rows: pd.DataFrame, classes: list[str]) -> Any:
    """The class number of each row, int64, shape (rows,)."""
    import numpy as np

    number = {name: at for at, name in enumerate(classes)}
    return np.array([number[name] for name in rows["label"]], np.int64)


def write_spec(
    out: Path, config: TextConfig, *, explain: Literal["terms", "occlusion"], per_row: int, per_token: int
) -> None:
    """Write text.json; `per_row` and `per_token` are the numbers that the graph holds in memory."""
    from contracts.engine_text import TextSpec
    from pipelines.training.tokens import PAD_ID

    spec = TextSpec(
        max_characters=config.max_characters,
        max_tokens=config.max_tokens,
        pad_id=PAD_ID,
        numbers_per_row=per_row,
        numbers_per_token=per_token,
        separator=" " if config.unit == "word" else "",
        explain=explain,
    )
    (out / "text.json").write_text(spec.model_dump_json(indent=1) + "\n", encoding="utf-8")
