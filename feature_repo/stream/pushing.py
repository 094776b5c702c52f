"""Pushing a batch of messages: what the store refuses is found and left out, all else is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from contracts.errors import PlatformError
from feature_repo.stream.messages import Message, RefusedError, frame_of, row_of

Push = Callable[[pd.DataFrame], None]

# What `CheckedStore.push` says of rows before it writes any.
_OF_ROWS = frozenset({"bad_key", "missing_key", "bad_feature_value", "bad_moment", "missing_column"})


@dataclass
class Outcome:
    """What became of a batch.

    Attributes:
        pushed: number of rows.
        tombstones: number of messages without a value, which say that a key is gone; features have their time to live.
        refused: messages that are no rows, and why.
    """

    pushed: int = 0
    tombstones: int = 0
    refused: list[tuple[Message, str]] = field(default_factory=list)


def push_batch(messages: Sequence[Message], columns: Mapping[str, str], push: Push) -> Outcome:
    """Push messages as rows with these columns, see `Topic.columns`.

    Raises:
        Exception: whatever `push` says when a store is away; pushing the same messages again does no harm.
    """
    done = Outcome()
    rows: list[tuple[Message, dict[str, Any]]] = []
    for message in messages:
        if message.value is None:
            done.tombstones += 1
            continue
        try:
            rows.append((message, row_of(message, columns)))
        except RefusedError as err:
            done.refused.append((message, str(err)))
    _push(rows, push, done)
    done.refused.sort(key=lambda one: (one[0].partition, one[0].offset))
    return done


def _push(rows: Sequence[tuple[Message, dict[str, Any]]], push: Push, done: Outcome) -> None:
    """Halve what is refused until a single message is left to blame."""
    if not rows:
        return
    try:
        push(frame_of([row for _, row in rows]))
    except PlatformError as err:
        if err.code not in _OF_ROWS:
            raise
        if len(rows) == 1:
            done.refused.append((rows[0][0], err.headline))
            return
    else:
        done.pushed += len(rows)
        return
    middle = len(rows) // 2
    _push(rows[:middle], push, done)
    _push(rows[middle:], push, done)
