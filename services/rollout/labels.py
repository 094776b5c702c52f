"""Labels that arrived since a rollout began, counted by version: how many there are, and how many answers are wrong.

Both are counted over all rows, and for the rows of each true class. Of a rare class a rollout may see few rows that the
champion answers: for classes its answers of some time before count, too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from contracts.bundle import Signature
from contracts.errors import PlatformError
from services.feedback.joining import joined
from services.problems import get_serving
from services.rollout.observation import NO_LABELS, Labelled
from services.rollout.state import Rollout

_EACH = 30.0  # seconds between two readings of the log
_BEFORE = timedelta(minutes=15)  # of the champion's answers


def count_labels(
    folder: str,
    model: str,
    signature: Signature,
    metrics: Mapping[str, float],
    start: datetime,
    end: datetime,
    champion: str = "",
) -> dict[str, Labelled]:
    """Labelled predictions and wrong ones, by version; of problems whose answers are right or wrong.

    champion: whose answers of `_BEFORE` are counted by what is true.
    metrics: of the champion's bundle, the same for both versions, where a problem says by them what is wrong.
    """
    serving, found = get_serving(signature.problem), dict[str, Labelled]()
    truths = serving.truths(signature.output)
    for one in joined(folder, model, start - _BEFORE, end):
        early = one.prediction.time < start
        if one.label is None or (early and one.prediction.version != champion):
            continue
        if team := one.prediction.answer.get("team"):
            _credit(found, one.prediction.id, one.prediction.answer["items"], team, one.label.label)
            continue
        right = serving.is_right(one.prediction.answer, one.label.label, metrics)
        if right is None:
            continue
        before = found.get(one.prediction.version) or Labelled(0, 0, dict.fromkeys(truths, 0), dict.fromkeys(truths, 0))
        for truth, missed in serving.misses(one.prediction.answer, one.label.label).items():
            before.truths[truth] = before.truths.get(truth, 0) + 1
            before.misses[truth] = before.misses.get(truth, 0) + missed
        labelled, wrong = before.labelled + (not early), before.wrong + (not early and not right)
        found[one.prediction.version] = before._replace(labelled=labelled, wrong=wrong)
    return found


def _credit(found: dict[str, Labelled], identifier: str, items: Sequence[str], team: Sequence[str], taken: Any) -> None:
    """Count a list that two versions drafted for one of them, which its id draws; one without a winner counts for none.

    F. Radlinski, M. Kurup, T. Joachims: How does clickthrough data reflect retrieval quality?, 2008.
    """
    clicks = dict.fromkeys(sorted(set(team)), 0)
    for item, version in zip(items, team, strict=True):
        clicks[version] += item in taken
    if len(clicks) != 2 or len(set(clicks.values())) < 2:
        return
    version = list(clicks)[int(identifier[-1], 16) % 2]
    before = found.get(version) or NO_LABELS._replace(truths={}, misses={})
    lost = clicks[version] < max(clicks.values())
    found[version] = before._replace(drafted=before.drafted + 1, lost=before.lost + lost)


class LabelWatch:
    """Counts labels in a thread of its own, since the log may be long; `counts` are the latest."""

    def __init__(
        self,
        folder: str,
        model: str,
        signature: Signature,
        rollout: Callable[[], Rollout | None],
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        self.counts: Mapping[str, Labelled] = {}
        self._told = (folder, model, signature, metrics or {})
        self._rollout = rollout
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        wait = threading.Event()
        while not wait.wait(_EACH):
            self.look()

    def look(self) -> None:
        """Read once; a log that cannot be read leaves the counts as they are."""
        rollout = self._rollout()
        if rollout is None or rollout.ended:
            self.counts = {}
            return
        start = datetime.fromtimestamp(rollout.began, UTC)
        try:
            self.counts = count_labels(*self._told, start, datetime.now(UTC), rollout.champion)
        except (PlatformError, OSError):
            return
