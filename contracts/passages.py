"""A text in passages: sentences, clauses or lines, of English, Chinese and texts with both."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

Unit = Literal["sentence", "clause", "line"]

_HAN = "\u3400-\u4dbf\u4e00-\u9fff"
_CLOSING = "\"'”’」』）)】》"
# A full stop ends a sentence before a space, and in Chinese also without one; between digits it is a decimal point.
_SENTENCE = re.compile(
    rf"[。！？!?…]+[{_CLOSING}]*|(?<=[{_HAN}])\.(?!\d)[{_CLOSING}]*|\.+[{_CLOSING}]*(?=\s|$)", re.MULTILINE
)
_CLAUSE = re.compile(rf"[。！？!?…；;，]+|(?<!\d),|(?<=\d),(?!\d)|(?<=[{_HAN}])\.(?!\d)|\.+(?=\s|$)")
_SHORTENED = re.compile(
    r"(?:^|[\s(])(?:[A-Z]|Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|vs|etc|e\.g|i\.e|cf|No|Inc|Ltd|Co|Fig|approx|a\.m|p\.m)\.$"
)
_TIGHT = re.compile(f"[{_HAN}。！？…；，」』》）]")
_LONGEST = 12  # characters that show whether a word is shortened
_CUT = f"，,；;。.!！?？… {_CLOSING}"


def passages(text: str, unit: Unit) -> list[str]:
    """The passages of a text in their order; a line break ends each. Sentences and clauses have a letter or digit."""
    if unit == "line":
        return [line.strip() for line in text.splitlines() if line.strip()]
    end = _SENTENCE if unit == "sentence" else _CLAUSE
    found = [part for line in text.splitlines() for part in _split(line, end)]
    if unit == "clause":
        found = [part.rstrip(_CUT) for part in found]
    return [part.strip() for part in found if any(character.isalnum() for character in part)]


def joined(parts: Sequence[str], unit: Unit) -> str:
    """Passages as one text: lines as lines, others with a space between them where the language has one."""
    if unit == "line":
        return "\n".join(parts)
    text = ""
    for part in parts:
        text += part if not text or _TIGHT.match(text[-1]) or _TIGHT.match(part) else f" {part}"
    return text


def _split(line: str, end: re.Pattern[str]) -> list[str]:
    parts, start = [], 0
    for match in end.finditer(line):
        before = line[start : match.end()]
        if match[0].startswith(".") and _SHORTENED.search(before[-_LONGEST:]):
            continue
        parts.append(before)
        start = match.end()
    return [*parts, line[start:]]
