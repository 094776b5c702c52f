"""How the versions of a model treat groups, by a table beside the log that no request and no model reads.

The table is read anew each time, and joined with the log and the labels that have come; of it nothing is kept, and what
is said is of groups, not of people.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from contracts import storage
from contracts.errors import PlatformError
from services.feedback.groups import GroupCounts, counts_for, read_groups
from services.feedback.joining import joined
from services.monitor.bundles import Known
from services.monitor.rules import Rules

_KINDS = ("parquet", "csv")


class GroupWatch:
    """Of one model.

    Attributes:
        found: of each version, see `GroupCounts.measured`; {} without a table.
        error: why the table could not be used, as the command line would say; {} where it could, or there is none.
    """

    def __init__(self, tables: str, key: str, folder: str, model: str, rules: Rules) -> None:
        self._tables, self._key, self._folder, self._model, self._rules = tables, key, folder, model, rules
        self.found: dict[str, dict[str, Any]] = {}
        self.error: dict[str, Any] = {}
        self._at: datetime | None = None

    def look(self, now: datetime, versions: Mapping[str, Known]) -> None:
        """Measure again where it is time."""
        wanted = {name: one for name, one in versions.items() if one.document is not None and one.fairness}
        due = self._at is None or now - self._at >= timedelta(seconds=self._rules.groups_seconds)
        if not self._tables or not wanted or not due:
            return
        self._at = now
        try:
            self.found, self.error = self._measured(now, wanted), {}
        except PlatformError as err:
            # The last measures would say that all is as it was.
            self.found, self.error = {}, {"code": err.code, "headline": err.headline, "fix": err.fix}

    def _measured(self, now: datetime, versions: Mapping[str, Known]) -> dict[str, dict[str, Any]]:
        address = self._address()
        if address is None:
            return {}
        table = read_groups(address, key=self._key)
        counts: dict[str, GroupCounts] = {}
        for name, one in versions.items():
            assert one.document is not None
            counts[name] = counts_for(one.document, one.fairness, table)
        for pair in joined(self._folder, self._model, now - timedelta(days=self._rules.groups_days), now):
            if (some := counts.get(pair.prediction.version)) is not None:
                some.add(pair)
        found = {}
        for name, some in counts.items():
            document, fairness = versions[name].document, versions[name].fairness
            assert document is not None
            assert fairness is not None
            found[name] = some.measured(fairness["least"], document.gate.checks)
        return found

    def _address(self) -> str | None:
        places = [storage.join(self._tables, f"{self._model}.{kind}") for kind in _KINDS]
        return next((place for place in places if storage.exists(place)), None)
