"""Messages as rows: JSON objects, whose members become columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
import pandas as pd

from feature_repo.stream.settings import KEY, MOMENT


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """A message of a topic.

    Attributes:
        moment: the broker's time in ms since 1970, UTC; -1 where there is none.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    moment: int

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return f"{self.topic} [{self.partition}] at offset {self.offset}"


class RefusedError(Exception):
    """A message that is no row; the text says why, without values."""


def row_of(message: Message, columns: Mapping[str, str]) -> dict[str, Any]:
    """The row of a message; members that no column names are left out.

    Args:
        message: with a JSON object as its value.
        columns: the member that each column is, see `Topic.columns`.

    Raises:
        RefusedError: it is no JSON object, or lacks a member that may not be missing.
    """
    try:
        found = orjson.loads(message.value or b"")
    except orjson.JSONDecodeError as err:
        raise RefusedError(f"not JSON: {err.msg} (character {err.pos})") from None
    if not isinstance(found, dict):
        raise RefusedError(f"a JSON object is wanted, not {type(found).__name__}")
    return {name: _member(message, found, path) for name, path in columns.items()}


def _member(message: Message, found: Any, path: str) -> Any:
    if path == KEY:
        try:
            return None if message.key is None else message.key.decode()
        except UnicodeDecodeError:
            raise RefusedError("its key is no text in UTF-8") from None
    if path == MOMENT:
        return None if message.moment < 0 else datetime.fromtimestamp(message.moment / 1000, UTC).isoformat()
    at, wanted = found, path.removesuffix("?")
    for part in wanted.split("."):
        if not isinstance(at, dict) or part not in at:
            if path != wanted:
                return None
            raise RefusedError(f"no member {wanted}")
        at = at[part]
    return at


def frame_of(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row or more with the same columns as Python's own values: whole numbers stay exact beside missing ones."""
    return pd.DataFrame({name: pd.Series([row[name] for row in rows], dtype=object) for name in rows[0]})
