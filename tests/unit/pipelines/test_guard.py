"""The task guard: its generator, and a split that keeps patterns together."""

from __future__ import annotations

import pandas as pd

from pipelines.tasks import get_task, recipe_config
from pipelines.tasks.guard.simulator import CLASSES, messages


def test_messages_are_filled_and_the_same_for_the_same_seed() -> None:
    rows = messages(4, 1)
    assert rows == messages(4, 1) != messages(4, 2)
    assert {kind for _, _, kind in rows} == set(CLASSES)
    assert not [text for _, text, _ in rows if "{" in text or "}" in text or "\0" in text]
    assert (
        len({name for name, _, _ in rows})
        == len({" ".join(text.casefold().split()) for _, text, _ in rows})
        == len(rows)
    )
    assert not [text for _, text, _ in rows if " a idiot" in text.casefold() or " an moron" in text.casefold()]


def test_variants_of_a_pattern_stay_in_one_part_of_the_split() -> None:
    task = get_task("guard")
    frame = pd.DataFrame(messages(3, 1), columns=["id", "text", "class"])
    parts = task.split(frame, recipe_config(task))
    where = [{name.partition("/")[0] for name in parts[part]["id"]} for part in ("train", "valid", "test")]
    assert not where[0] & where[1] | where[0] & where[2] | where[1] & where[2]
    assert all(set(part["label"]) == set(CLASSES) for part in parts.values())


def test_ids_without_a_pattern_are_split_by_their_texts() -> None:
    task = get_task("guard")
    rows = pd.DataFrame({"id": ["a", "b/1", "b/2"], "row_key": ["x", "y", "z"]})
    assert task.keys(rows) == ["x", "b", "b"]  # type: ignore[attr-defined]
