"""Rules that messages to chat models and their answers are looked at by: patterns, with checksums where there are any.

The service says what becomes of what they find; evaluation counts what they find in test rows, so that monitors know
what is normal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from contracts import orders
from contracts.pii.checks import chinese_id, iban, luhn
from contracts.pii.kind import compact

NONE = "none"  # what is watched of texts in which no rule holds


def _number(check: Callable[[str], bool]) -> Callable[[str], bool]:
    """A check of a number as it may be written, in groups."""
    return lambda text: check(compact(text))


@dataclass(frozen=True)
class Rule:
    """One thing that is looked for; `holds` says whether a match is one."""

    name: str
    group: Literal["personal", "secrets", "injection"]
    pattern: re.Pattern[str]
    holds: Callable[[str], bool] = bool


RULES = (
    Rule("email", "personal", re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{2,63})+", re.ASCII)),
    Rule("card", "personal", re.compile(r"(?<!\d)\d(?:[ -]?\d){12,18}(?!\d)", re.ASCII), _number(luhn)),
    Rule("iban", "personal", re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}(?!\w)", re.ASCII), _number(iban)),
    Rule(
        "resident",
        "personal",
        re.compile(r"(?<!\d)[1-9]\d{5}(?:19|20)\d{9}[\dXx](?!\d)", re.ASCII),
        _number(chinese_id),
    ),
    Rule("phone", "personal", re.compile(r"(?<![\w+])\+\d{1,3}(?:[ -]?\(?\d{1,4}\)?){2,5}(?!\d)", re.ASCII)),
    Rule("mobile", "personal", re.compile(r"(?<!\d)1[3-9]\d{9}(?!\d)", re.ASCII)),  # of China
    Rule("aws_key", "secrets", re.compile(r"(?<!\w)(?:AKIA|ASIA)[A-Z0-9]{16}(?!\w)", re.ASCII)),
    Rule("token", "secrets", re.compile(r"(?<!\w)(?:gh[pousr]_|glpat-|xox[abprs]-|sk-)[\w-]{20,}", re.ASCII)),
    Rule("jwt", "secrets", re.compile(r"(?<!\w)eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}", re.ASCII)),
    Rule("private_key", "secrets", re.compile(r"-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----")),
    *(Rule(name, "injection", pattern) for name, pattern in orders.PATTERNS.items()),
)


@dataclass(frozen=True)
class Found:
    """Where a rule holds."""

    rule: Rule
    start: int
    end: int


def find(text: str, rules: Sequence[Rule]) -> list[Found]:
    """What the rules find, in the order of the text; of what overlaps the first rule's."""
    found: list[Found] = []
    for rule in rules:
        for match in rule.pattern.finditer(text):
            free = all(match.end() <= one.start or one.end <= match.start() for one in found)
            if free and rule.holds(match.group()):
                found.append(Found(rule, *match.span()))
    return sorted(found, key=lambda one: one.start)


def watched(names: Iterable[str]) -> str:
    """What monitors watch of a request and its answer: the first of these rules that is one of ours, else `NONE`."""
    return next((name for name in names if name in _NAMES), NONE)


_NAMES = frozenset(rule.name for rule in RULES)
