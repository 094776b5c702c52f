"""What happens to a column: ``data.pii`` of a configuration, by which sources and requests of its model are treated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from contracts.errors import PlatformError
from contracts.pii.finders import Finder
from contracts.pii.redaction import OPERATORS, Redactor

KEEP = "keep"
_WHOLE = ":whole"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What happens to a column: `operator` to what is found in its values, or to each value as a whole."""

    operator: str
    whole: bool = False

    def __str__(self) -> str:
        return f"{self.operator}{_WHOLE if self.whole else ''}"


def rules_of(pii: Mapping[str, str]) -> dict[str, Rule]:
    """The rules of ``data.pii`` by column.

    Raises:
        PlatformError: ``code="bad_config"``: an operator that there is not.
    """
    made = {}
    for column, said in pii.items():
        operator = said.removesuffix(_WHOLE)
        if operator not in OPERATORS and said != KEEP:
            accepted = ", ".join([KEEP, *OPERATORS, *(f"{name}{_WHOLE}" for name in OPERATORS)])
            raise PlatformError(
                f"data.pii.{column}: unknown operator {said!r}",
                detail=f"accepted: {accepted}",
                fix="write one of these",
                code="bad_config",
                column=column,
            )
        made[column] = Rule(operator=operator, whole=said.endswith(_WHOLE))
    return made


def cleaners(pii: Mapping[str, str], finder: Finder | None = None) -> dict[str, Callable[[str], str]]:
    """By column that is treated, what makes a value what the data set has in its place.

    Raises:
        PlatformError: ``code="no_pii_key"``: an operator needs a key, and there is none here.
    """
    return {column: _cleaner(column, rule, finder) for column, rule in rules_of(pii).items() if rule.operator != KEEP}


def _cleaner(column: str, rule: Rule, finder: Finder | None) -> Callable[[str], str]:
    redactor = Redactor(rule.operator, finder=finder)
    return redactor.whole if rule.whole else lambda text: redactor.redact(text, hint=column).text
