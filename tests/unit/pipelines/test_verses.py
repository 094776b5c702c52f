"""Verses that are made up: what the rules say, and that they are told from others."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.tasks import get_task, recipe_config
from pipelines.tasks.writing.verses import faults, verses


def test_verses_follow_the_rules_and_the_seed() -> None:
    rows = list(verses(150, seed=3))
    texts = [row["beginning"] + row["text"] for row in rows]
    assert [text for text in texts if faults(text)] == []
    assert len(set(texts)) == 150
    assert {len(row["text"]) for row in rows} == {12, 16}, "of five and of seven characters"
    assert [*verses(150, seed=3)] == rows
    assert next(verses(1, seed=4))["text"] != rows[0]["text"]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("碧雁迎孤月，斜烟落野船。\n红川闻旧露，冷鸟晚山圆。", []),
        ("碧雁迎孤月，斜烟落野船。\n红川孤雪淡，冷水晚城藏。", ["rhyme", "repeated"]),
        ("碧雁迎孤月，斜烟落野船。\n红川闻旧露，", ["form"]),
        ("碧雁迎孤月，斜烟落野船。\n红川闻旧露，冷水晚城", ["form"]),
        ("碧雁迎远月，孤烟落野船。\n红川闻旧露，冷鸟晚山圆。", ["tones"]),
        ("床前明月光，疑是地上霜。\n举头望明月，低头思故乡。", ["tones", "repeated"]),
    ],
)
def test_what_breaks_a_rule_is_told(text: str, wrong: list[str]) -> None:
    assert faults(text) == wrong


def test_they_are_a_sample_of_the_task_by_a_setting() -> None:
    task = get_task("writing")
    config: Any = recipe_config(task, "characters", {"sample": "verses", "rows": 20})
    (table,) = task.default_source(config)
    assert table.num_rows == 20
    assert table.column_names == [column.name for column in task.columns]
    assert all(not faults(row["beginning"] + row["text"]) for row in table.to_pylist())


def test_texts_that_have_nothing_before_them_are_in_three_parts() -> None:
    import pandas as pd

    texts = [row["text"] for row in verses(60, seed=1)]
    frame = pd.DataFrame(
        {"id": [f"a-{at}" for at in range(60)], "headline": "", "facts": "", "beginning": "", "text": texts}
    )
    task = get_task("writing")
    parts = task.split(frame, recipe_config(task, "characters", {}))
    assert {name: len(rows) > 1 for name, rows in parts.items()} == {"train": True, "valid": True, "test": True}
    assert sorted(text for rows in parts.values() for text in rows["label"]) == sorted(texts)
