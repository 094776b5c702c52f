"""Labels that arrived since a rollout began, counted by version: how many there are, and how many answers are wrong.

Both are counted over all rows, and for the rows of each true class.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from contracts.bundle import Signature
from contracts.errors import PlatformError
from services.feedback.joining import joined
from services.problems import get_serving
from services.rollout.observation import Labelled

_EACH = 30.0  # seconds between two readings of the log


def count_labels(
    folder: str, model: str, signature: Signature, metrics: Mapping[str, float], start: datetime, end: datetime
) -> dict[str, Labelled]:
    """Labelled predictions and wrong ones, by version; of problems whose answers are right or wrong.

    metrics: of the champion's bundle, the same for both versions, where a problem says by them what is wrong.
    """
    serving, found = get_serving(signature.problem), dict[str, Labelled]()
    truths = serving.truths(signature.output)
    for one in joined(folder, model, start, end):
        if one.label is None:
            continue
        right = serving.is_right(one.prediction.answer, one.label.label, metrics)
        if right is None:
            continue
        before = found.get(one.prediction.version) or Labelled(0, 0, dict.fromkeys(truths, 0), dict.fromkeys(truths, 0))
        for truth, missed in serving.misses(one.prediction.answer, one.label.label).items():
            before.truths[truth] = before.truths.get(truth, 0) + 1
            before.misses[truth] = before.misses.get(truth, 0) + missed
        found[one.prediction.version] = before._replace(labelled=before.labelled + 1, wrong=before.wrong + (not right))
    return found


class LabelWatch:
    """Counts labels in a thread of its own, since the log may be long; `counts` are the latest."""

    def __init__(
        self,
        folder: str,
        model: str,
        signature: Signature,
        since: Callable[[], float | None],
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        self.counts: Mapping[str, Labelled] = {}
        self._told = (folder, model, signature, metrics or {})
        self._since = since
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        wait = threading.Event()
        while not wait.wait(_EACH):
            self.look()

    def look(self) -> None:
        """Read once; a log that cannot be read leaves the counts as they are."""
        start = self._since()
        if start is None:
            self.counts = {}
            return
        try:
            self.counts = count_labels(*self._told, datetime.fromtimestamp(start, UTC), datetime.now(UTC))
        except (PlatformError, OSError):
            return
