"""Texts as a token and its tag to a line, an empty line behind each text (CoNLL 2003)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from contracts.errors import PlatformError
from pipelines.data.chunks import TextFormat
from pipelines.data.delimited import open_text
from pipelines.data.formats import lines_of

NAMES = ["text", "spans"]
_BEGINS = frozenset("BSU")
# Between these, a text has no space: Chinese and Japanese characters and full-width marks.
_WIDE = re.compile(r"[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef]")


def read_conll(path: Path, form: TextFormat) -> Iterator[tuple[int, list[str]]]:
    """Number of each text (1 = the first), the text, and its spans as JSON: ``[[start, end, type], ...]``.

    The token is the first value of a line and the tag, in IOB or IOBES, the last.

    Raises:
        PlatformError: ``code="bad_source"``: a line without a tag.
    """
    number, tokens = 0, list[tuple[str, str]]()
    with open_text(path, form) as stream:
        for line_number, raw in enumerate(lines_of(stream), 1):
            line = raw.decode("utf-8", "replace").rstrip("\r")
            if line.strip():
                tokens.append(_pair(line, path, line_number))
            elif tokens:
                number += 1
                yield number, _row(tokens)
                tokens = []
    if tokens:
        yield number + 1, _row(tokens)


def _pair(line: str, path: Path, number: int) -> tuple[str, str]:
    parts = line.split("\t") if "\t" in line else line.split()
    if len(parts) < 2 or not parts[0]:
        raise PlatformError(
            f"{path.name}: line {number} has no tag",
            detail="data.tagged reads a token and its tag on each line, with an empty line between texts",
            fix="correct the line, or leave data.tagged out for a table",
            code="bad_source",
            file=str(path),
            row=number,
        )
    return parts[0], parts[-1].strip()


def _row(tokens: list[tuple[str, str]]) -> list[str]:
    text, spans, kind = "", list[tuple[int, int, str]](), ""
    for token, tag in tokens:
        if text and not (_WIDE.match(text[-1]) or _WIDE.match(token)):
            text += " "
        mark, _, said = tag.partition("-")
        now = said if said else "" if tag == "O" else tag
        start, end = len(text), len(text) + len(token)
        if now and now == kind and mark not in _BEGINS:
            spans[-1] = (spans[-1][0], end, now)
        elif now:
            spans.append((start, end, now))
        text, kind = text + token, now
    return [text, json.dumps(spans)]
