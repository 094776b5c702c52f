"""Stems of English words, so that "reported" and "reports" count as the same: M. F. Porter, Program 14, 1980."""

from __future__ import annotations

import re
from functools import lru_cache

_SHORT = 3  # letters of a word that stays as it is, as in Google's ROUGE
_C, _V = "[^aeiou][^aeiouy]*", "[aeiouy][aeiou]*"
_MEASURE = re.compile(f"^(?:{_C})?((?:{_V}{_C})*)(?:{_V})?$")
_PAIR = re.compile(f"{_V}{_C}")
_VOWEL = re.compile(f"^(?:{_C})?{_V}")
_CVC = re.compile("^(?:[^aeiou][^aeiouy]*)[aeiouy][^aeiouwxy]$")
_SECOND = {
    "ational": "ate", "tional": "tion", "enci": "ence", "anci": "ance", "izer": "ize", "abli": "able", "alli": "al",
    "entli": "ent", "eli": "e", "ousli": "ous", "ization": "ize", "ation": "ate", "ator": "ate", "alism": "al",
    "iveness": "ive", "fulness": "ful", "ousness": "ous", "aliti": "al", "iviti": "ive", "biliti": "ble",
}  # fmt: skip
_THIRD = {"icate": "ic", "ative": "", "alize": "al", "iciti": "ic", "ical": "ic", "ful": "", "ness": ""}
_FOURTH = (
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou", "ism", "ate", "iti",
    "ous", "ive", "ize",
)  # fmt: skip


@lru_cache(maxsize=1 << 16)
def stem(word: str) -> str:
    """The stem of a word in small letters; a short one, and one with other signs than a to z, is its own."""
    if len(word) <= _SHORT or not (word.isascii() and word.isalpha()):
        return word
    word = _plural(word)
    word = _past(word)
    if word.endswith("y") and _VOWEL.match(word[:-1]):
        word = word[:-1] + "i"
    for endings in (_SECOND, _THIRD):
        word = _replaced(word, endings)
    return _final(_stripped(word))


def _measure(part: str) -> int:
    """How many sequences of vowels and consonants it has."""
    found = _MEASURE.match(part)
    return len(_PAIR.findall(found[1])) if found else 0


def _plural(word: str) -> str:
    if word.endswith(("sses", "ies")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _past(word: str) -> str:
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    ending = next((one for one in ("ed", "ing") if word.endswith(one)), "")
    left = word.removesuffix(ending)
    if not ending or not _VOWEL.match(left):
        return word
    if left.endswith(("at", "bl", "iz")):
        return left + "e"
    if left[-1] == left[-2:-1] and left[-1] not in "lszaeiou":
        return left[:-1]
    return left + "e" if _measure(left) == 1 and _CVC.match(left) else left


def _replaced(word: str, endings: dict[str, str]) -> str:
    """Of the longest ending, what stands in its place."""
    ending = max((one for one in endings if word.endswith(one)), key=len, default="")
    left = word.removesuffix(ending)
    return left + endings[ending] if ending and _measure(left) > 0 else word


def _stripped(word: str) -> str:
    ending = max((one for one in _FOURTH if word.endswith(one)), key=len, default="")
    left = word.removesuffix(ending)
    if not ending or _measure(left) <= 1 or (ending == "ion" and not left.endswith(("s", "t"))):
        return word
    return left


def _final(word: str) -> str:
    if word.endswith("e"):
        left = word[:-1]
        size = _measure(left)
        if size > 1 or (size == 1 and not _CVC.match(left)):
            word = left
    return word[:-1] if word.endswith("ll") and _measure(word[:-1]) > 1 else word
