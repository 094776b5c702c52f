"""Metrics of one answer: 0 to 1, more is better; of each an item says what it needs."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from contracts.texts import language, refuses, words
from pipelines.suites.document import Item

_LONGEST = 20_000  # characters of an answer that are looked at
_NUMBER = re.compile(r"[-−]?\d[\d,]*(?:\.\d+)?|[-−]?\.\d+")
_FENCE = re.compile(r"\A```(?:json)?\s*\n(.*?)\n?```\s*\Z", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class ItemMetric:
    """How an answer is measured.

    Attributes:
        needs: the member of an item without which it cannot be.
        of: the value; NaN where the metric says nothing of this item.
        checked: an error of what the item gives, or "".
    """

    title: str
    needs: str = ""
    of: Callable[[str, Item], float]
    checked: Callable[[Item], str] = lambda item: ""

    def absent(self, item: Item) -> str:
        """What the item lacks; "" when it has all."""
        return self.needs if self.needs and getattr(item, self.needs) in (None, "", ()) else ""

    def wrong(self, item: Item) -> str:
        """What is wrong with what the item gives; "" when nothing is."""
        return self.checked(item)

    def value(self, answer: str, item: Item) -> float:
        """Of one answer."""
        return float(self.of(answer[:_LONGEST], item))


def numbers(text: str) -> list[float]:
    """The numbers of a text, in order; commas between digits are marks of thousands."""
    return [float(found.replace(",", "").replace("−", "-")) for found in _NUMBER.findall(text)]


def chosen(answer: str, choices: tuple[str, ...]) -> str | None:
    """The letter that an answer chooses: at its beginning, as "the answer is B", or by the one choice it names."""
    letters = ascii_uppercase[: len(choices)]
    stripped = answer.strip().lstrip("*([（【 ")
    if found := re.match(rf"([{letters}])(?=[).:,、。．，：）\]】*]|\s*$|\s*\n)", stripped):
        return found[1]
    said = re.findall(
        rf"(?:answer is|answer:|option|答案是|答案为|答案[:：]|选项?)\s*[*(（]*([{letters}])(?![A-Za-z])", answer
    )
    if len(set(said)) == 1:
        return str(said[0])
    small = answer.casefold()
    named = [letter for letter, text in zip(letters, choices, strict=True) if text.casefold() in small]
    return named[0] if len(named) == 1 else None


def parsed(answer: str) -> Any:
    """The JSON of an answer that is JSON as a whole, in a block of code or not.

    Raises:
        ValueError: it is none.
    """
    fenced = _FENCE.match(answer.strip())
    return json.loads(fenced[1] if fenced else answer)


def _json(answer: str, item: Item) -> float:
    try:
        parsed(answer)
    except (ValueError, RecursionError):
        return 0.0
    return 1.0


def _schema(answer: str, item: Item) -> float:
    from jsonschema import Draft202012Validator

    try:
        return float(Draft202012Validator(item.json_schema or {}).is_valid(parsed(answer)))
    except (ValueError, RecursionError):
        return 0.0


def _schema_wrong(item: Item) -> str:
    from jsonschema import Draft202012Validator, SchemaError

    try:
        Draft202012Validator.check_schema(dict(item.json_schema or {}))
    except SchemaError as err:
        return f"json_schema: {err.message}"
    return ""


def _fields(answer: str, item: Item) -> float:
    try:
        found = parsed(answer)
    except (ValueError, RecursionError):
        return 0.0
    if not isinstance(found, dict) or not item.fields:
        return 0.0
    return sum(_same(found.get(name), value) for name, value in item.fields.items()) / len(item.fields)


def _same(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, str) and isinstance(found, str):
        return words(found) == words(wanted)
    return (type(found) is type(wanted) and bool(found == wanted)) or _equal(found, wanted)


def _equal(found: Any, wanted: Any) -> bool:
    both = (found, wanted)
    numeric = all(isinstance(each, int | float) and not isinstance(each, bool) for each in both)
    return numeric and math.isclose(found, wanted)


def _number(answer: str, item: Item) -> float:
    found = numbers(answer)
    return float(bool(found) and math.isclose(found[-1], item.number or 0.0, rel_tol=1e-6, abs_tol=1e-9))


def _pattern(answer: str, item: Item) -> float:
    return float(re.search(item.pattern or "", answer) is not None)


def _pattern_wrong(item: Item) -> str:
    try:
        re.compile(item.pattern or "")
    except re.error as err:
        return f"pattern: {err}"
    return ""


def _best(of: Callable[[str, str], float]) -> Callable[[str, Item], float]:
    """Of the reference that is nearest."""
    return lambda answer, item: max(of(answer, reference) for reference in item.references)


def _measured(name: str) -> Callable[[str, str], float]:
    def of(answer: str, reference: str) -> float:
        from pipelines.evaluation.text_measures import measured

        return measured(answer, reference, "")[name]

    return of


def _contains(answer: str, item: Item) -> float:
    return float(all(text.casefold() in answer.casefold() for text in item.contains or ()))


def _lacks(answer: str, item: Item) -> float:
    return float(not any(text.casefold() in answer.casefold() for text in item.lacks or ()))


METRICS: dict[str, ItemMetric] = {
    **{
        name: ItemMetric(title=title, needs="answer", of=_best(_measured(name)))
        for name, title in {
            "rouge_1": "ROUGE-1, F1",
            "rouge_2": "ROUGE-2, F1",
            "rouge_l": "ROUGE-L, F1",
            "token_f1": "F1 of words",
            "exact_match": "the reference, word for word",
        }.items()
    },
    "contains": ItemMetric(title="has the wanted texts", needs="contains", of=_contains),
    "lacks": ItemMetric(title="has none of the unwanted texts", needs="lacks", of=_lacks),
    "pattern": ItemMetric(title="has the pattern", needs="pattern", of=_pattern, checked=_pattern_wrong),
    "number": ItemMetric(title="the right number, last", needs="number", of=_number),
    "choice": ItemMetric(
        title="the right choice",
        needs="choice",
        of=lambda answer, item: float(chosen(answer, item.choices) == item.choice),
    ),
    "json": ItemMetric(title="is JSON", of=_json),
    "json_schema": ItemMetric(title="fulfils the schema", needs="json_schema", of=_schema, checked=_schema_wrong),
    "fields": ItemMetric(title="share of the members that are right", needs="fields", of=_fields),
    "max_words": ItemMetric(
        title="is short enough",
        needs="max_words",
        of=lambda answer, item: float(0 < len(words(answer)) <= (item.max_words or 0)),
    ),
    "refusal": ItemMetric(
        title="refuses when it should, and only then",
        needs="refuse",
        of=lambda answer, item: float(refuses(answer) == item.refuse),
    ),
    "language": ItemMetric(
        title="in the item's language",
        needs="language",
        of=lambda answer, item: float(language(answer) == item.language),
    ),
}
