"""Texts, alike in training, services and monitors: the fields of a row as one, language, words, repetition, refusal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
_KANA_HANGUL = re.compile(r"[\u3040-\u30ff\uac00-\ud7af]")
_WORD = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]|[^\W_\u3400-\u4dbf\u4e00-\u9fff]+")
_JOINER = "\n"
_SAMPLE = 2_000  # characters that tell the language
_BEGINNING = 200  # characters in which a refusal stands
_REPEATED = 4  # words that are said again together
_REFUSAL = re.compile(
    r"\b(?:as an ai\b|(?:i|we)(?: am|'m| are|'re)? (?:cannot|can't|can not|unable to|not able to|won't|will not) "
    r"(?:help|assist|answer|provide|comply|do that|discuss|summari[sz]e|fulfil))"
    r"|作为(?:一个|一名)?(?:AI|人工智能)|(?:抱歉|对不起|很遗憾).{0,20}(?:无法|不能)|我(?:无法|不能)(?:回答|提供|协助|帮)",
    re.IGNORECASE,
)


def join_fields(fields: Sequence[Any], max_characters: int) -> str:
    """One text from the values of a row: empty and missing ones are skipped, the rest joined by newlines and cut."""
    parts = [str(value)[:max_characters] for value in fields if value is not None and value == value and value != ""]
    text = _JOINER.join(parts)[:max_characters]
    # A lone surrogate is legal in a Python string and not in UTF-8, which engines need.
    return text.encode("utf-8", "replace").decode("utf-8")


def language(text: str) -> str:
    """By script: "zh" for mostly Chinese characters, "en" for mostly Latin letters of ASCII, else "other"."""
    sample = text[:_SAMPLE]
    han, other_asian = len(_HAN.findall(sample)), len(_KANA_HANGUL.findall(sample))
    ascii_letters = sum(c.isascii() and c.isalpha() for c in sample)
    letters = sum(c.isalpha() for c in sample)
    if letters and han > 0.3 * letters and other_asian < 0.1 * letters:
        return "zh"
    return "en" if letters and ascii_letters > 0.9 * letters else "other"


def words(text: str) -> list[str]:
    """Its words in small letters, without marks; a Chinese character is a word."""
    return _WORD.findall(text.casefold())


def ngrams(tokens: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """The tokens that stand together, `size` of them at a time."""
    return list(zip(*(tokens[at:] for at in range(size)), strict=False))


def repetition(tokens: Sequence[str]) -> float:
    """The share of sequences of four words that were there before (S. Welleck et al., 2020); 0 for a short text."""
    found = ngrams(tokens, _REPEATED)
    return 1 - len(set(found)) / len(found) if found else 0.0


def common(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence, by the bits of whole numbers (H. Hyyrö, 2004)."""
    places: dict[str, int] = {}
    for at, token in enumerate(second):
        places[token] = places.get(token, 0) | 1 << at
    whole = (1 << len(second)) - 1
    left = whole
    for token in first:
        matched = left & places.get(token, 0)
        left = ((left + matched) | (left - matched)) & whole
    return len(second) - left.bit_count()


def refuses(text: str) -> bool:
    """Whether the text begins by saying that it will not do what was asked, in English or Chinese."""
    return _REFUSAL.search(text[:_BEGINNING].replace("’", "'")) is not None


def described(text: str) -> dict[str, Any]:
    """What a log and a monitor may know of a text that they must not keep."""
    tokens = words(text)
    return {
        "chars": len(text),
        "words": len(tokens),
        "repetition": round(repetition(tokens), 6),
        "language": language(text) if text else "",
        "refused": "yes" if refuses(text) else "no",
    }
