"""What a kind of personal data is: how it looks, what proves it, and a made-up value in its place."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from re import Pattern

_SEPARATORS = re.compile(r"[^0-9A-Za-z\u4e00-\u9fff]")
_DIGITS, _LOWER, _UPPER = "0123456789", "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def compact(text: str) -> str:
    """A number as it is known, however it was written: without separators, letters large."""
    return _SEPARATORS.sub("", text).upper()


class Draw:
    """Random choices that are the same for the same key and the same value (HMAC-SHA256 in counter mode)."""

    def __init__(self, key: bytes, what: str) -> None:
        self._key, self._what, self._count = key, what, 0

    def below(self, most: int) -> int:
        """A number from 0 to below `most`."""
        self._count += 1
        digest = hmac.digest(self._key, f"{self._count}\0{self._what}".encode(), hashlib.sha256)
        return int.from_bytes(digest[:16], "big") % most

    def pick(self, among: Sequence[str]) -> str:
        return among[self.below(len(among))]

    def like(self, text: str, keep: int = 0) -> str:
        """Digits for digits and letters for letters; the first `keep` signs, and all others, stay."""
        alphabets = (_DIGITS, _LOWER, _UPPER)
        drawn = [next((self.pick(a) for a in alphabets if sign in a), sign) for sign in text[keep:]]
        return text[:keep] + "".join(drawn)


def _like(draw: Draw, text: str) -> str:
    return draw.like(text)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One way in which personal data of a kind is written; several may share a `name`.

    Attributes:
        name: in reports, tokens and labels.
        pattern: of plain text (`finding.Plain`); a group ``value`` is what is meant, where that is not all of it. One
            that begins with what it may begin with, ``(?=...)``, leaves a long text sooner.
        valid: whether a value as it is known can be one, asked when the pattern fits.
        context: words nearby, before or after, or in the name of the column.
        before: words count only right before the value.
        alone: whether a value (as written; as known) is believed without such words.
        known: the value as it is known, however it was written; what is hashed, and drawn surrogates by.
        rank: among those that overlap the highest counts, then the longest.
        chance: share of random texts which fit the pattern that are valid.
        surrogate: a made-up value in place of the known one.
        stops: whether it stops a run that does not say what happens to it; names in a text of which a few are do not.
        split: the number may be written in groups, so other numbers may stand beside it.
    """

    name: str
    pattern: Pattern[str]
    valid: Callable[[str], bool] = bool
    context: Pattern[str] | None = None
    before: bool = False
    alone: Callable[[str, str], bool] = lambda text, value: True
    known: Callable[[str], str] = compact
    rank: int = 5
    chance: float = 0.0
    surrogate: Callable[[Draw, str], str] = _like
    stops: bool = True
    split: bool = False


def words(*found: str) -> Pattern[str]:
    """Words, whole in English; Chinese has no borders of words."""
    parts = [word if not word.isascii() else rf"(?<![a-z]){word}(?![a-z])" for word in found]
    return re.compile("|".join(parts))


def apart(groups: str) -> str:
    """A pattern of numbers in groups that are no part of a longer list of numbers."""
    return rf"(?<!\d[ -])(?:{groups})(?![ -]\d)"


def never(text: str, value: str) -> bool:
    """For `Kind.alone`: only words make it one."""
    return False
