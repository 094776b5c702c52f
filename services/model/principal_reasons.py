"""Principal reasons of an answer that is bad for whom it is about, in the words of a bundle's ``reasons.json``.

At most four, as creditors in the USA state them (Regulation B, 12 CFR 1002.9), of what really counted against.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from contracts.engine import Reason
from services.problems.base import Serving

MOST = 4


class PrincipalReasons:
    """Picks reasons and their texts for one model."""

    def __init__(self, document: Mapping[str, Any], serving: Serving, decision: Any) -> None:
        self._favourable, self._texts = str(document["favourable"]), document["texts"]
        self._serving, self._decision = serving, decision

    def is_favourable(self, decided: Any) -> bool:
        """Whether an answer is good for whom it is about."""
        return self._serving.against(self._decision, decided, self._favourable) == 0

    def of(self, decided: Any, reasons: Sequence[Reason]) -> list[dict[str, str]]:
        """What counted most against, the largest first; nothing for an answer that is favourable."""
        sign = self._serving.against(self._decision, decided, self._favourable)
        against = [one for one in reasons if sign * one.contribution > 0 and one.feature in self._texts]
        against.sort(key=lambda one: -abs(one.contribution))
        return [{"feature": one.feature, **self._texts[one.feature]} for one in against[:MOST]]
