"""What an answer says that its source does not: numbers, names and quotes, told without a model.

Each is a lower bound: a number that the source has may stand for something else, and what is said in other words is
not looked at. A name is told by its capital letter, so names in Chinese are not told.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from contracts.texts import words

_NUMBER = re.compile(r"(?<![\w.])\d+(?:[,'\u00a0 ]\d{3})+(?:\.\d+)?|\d+(?:[.:]\d+)*")
_NAME = re.compile(r"(?<![\w.!?。！？'’-])(?<![.!?:;] )(?<!^)\b[A-Z][\w'’-]+(?: [A-Z][\w'’-]+)*", re.MULTILINE)
_QUOTE = re.compile(
    r"\"([^\"\n]{2,300})\"|“([^”\n]{2,300})”|「([^」\n]{2,300})」|『([^』\n]{2,300})』|《([^》\n]{1,100})》"
)
_FACT = re.compile(r"^[^:\n]{1,40}: *(\S.*)$", re.MULTILINE)
_GROUPS = re.compile(r"[,'\u00a0 ](?=\d{3})")


@dataclass(frozen=True, kw_only=True)
class Unsupported:
    """What the source has not."""

    numbers: tuple[str, ...]
    names: tuple[str, ...]
    quotes: tuple[str, ...]


def unsupported(answer: str, source: str) -> Unsupported:
    """The numbers, names and quotes of an answer that do not stand in its source; widths of characters do not count."""
    said, given = _narrow(answer), _narrow(source)
    known_numbers, known_words, whole = set(_numbers(given)), set(words(given)), " ".join(words(given))
    names = [name for name in _names(said) if not set(words(_base(name))) <= known_words]
    quotes = [quote for quote in _quotes(said) if " ".join(words(quote)) not in whole]
    numbers = [number for number in _numbers(said) if number not in known_numbers]
    return Unsupported(numbers=tuple(numbers), names=tuple(names), quotes=tuple(quotes))


def facts_kept(answer: str, source: str) -> float:
    """The share of the values of a source's lines ``NAME: VALUE`` that an answer has; NaN where it has no such line."""
    said = f" {' '.join(words(_narrow(answer)))} "
    values = [" ".join(words(found[1])) for found in _FACT.finditer(_narrow(source))]
    told = [value for value in values if value]
    return sum(_has(said, value) for value in told) / len(told) if told else float("nan")


def _has(said: str, value: str) -> bool:
    """Whole words; of Chinese, characters, which `words` tells apart too."""
    return f" {value} " in said


def _narrow(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


def _numbers(text: str) -> list[str]:
    """As they are written without the signs between thousands: 1,000 is 1000."""
    return [_GROUPS.sub("", found[0]) for found in _NUMBER.finditer(text)]


def _names(text: str) -> list[str]:
    """Words with a capital letter that do not begin a sentence, as far as they stand together; I is none."""
    return [found[0] for found in _NAME.finditer(text) if found[0][:2] not in ("I'", "I’")]


def _base(name: str) -> str:
    """Without the ending of the genitive."""
    return re.sub(r"['’]s\b", "", name)


def _quotes(text: str) -> list[str]:
    return [next(part for part in found.groups() if part) for found in _QUOTE.finditer(text)]
