"""Labels that come in bulk: which are new, which were there, and which do not fit what is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from services.feedback.joining import may_come, winners
from services.feedback.reading import find_predictions, labels
from services.feedback.records import Label, id_time, is_id, stamp
from services.feedback.writing import write_labels

_NAMED = 10


@dataclass(kw_only=True)
class Settled:
    """What became of labels.

    Attributes:
        joined: new ones of logged predictions, by the version that predicted.
        corrected: of the joined, those of a prediction that had another label.
        repeated: those that were there already.
        contradicting: those of the same prediction and time as another label, which is kept.
        waiting: new ones of predictions that may come to the log yet; they are kept, and joined then.
        unknown: those of predictions that are not in the log, and do not come any more.
        named: of the last three the first ten.
    """

    joined: Counter[str] = field(default_factory=Counter)
    corrected: int = 0
    repeated: int = 0
    contradicting: int = 0
    waiting: int = 0
    unknown: int = 0
    named: dict[str, list[Any]] = field(default_factory=lambda: {"contradicting": [], "waiting": [], "unknown": []})

    def name(self, what: str, example: Any) -> None:
        """Keep an example, unless there are enough."""
        if len(self.named[what]) < _NAMED:
            self.named[what].append(example)


def settle(folder: str, model: str, given: Sequence[tuple[Label, bool]], into: Settled, now: datetime) -> None:
    """Keep the labels that are new, in their order; each comes with whether its time was given.

    Raises:
        PlatformError: the storage's own; none of these labels was written.
    """
    known = [label for label, _ in given if is_id(label.id)]
    versions = _versions(folder, model, {one.id for one in known})
    stored = _stored(folder, model, {one.id for one in known if one.id in versions or may_come(one.id, now)})
    new: list[Label] = []
    for label, timed in given:
        if label.id not in stored:
            into.unknown += 1
            into.name("unknown", label.id)
            continue
        before = stored[label.id]
        at_once = next((one for one in before if one.time == label.time), None)
        if not timed and before and winners(before)[label.id].label == label.label:
            into.repeated += 1
        elif at_once is None:
            into.corrected += any(one.label != label.label for one in before)
            if label.id in versions:
                into.joined[versions[label.id]] += 1
            else:
                into.waiting += 1
                into.name("waiting", label.id)
            before.append(label)
            new.append(label)
        elif at_once.label == label.label:
            into.repeated += 1
        else:
            into.contradicting += 1
            told = {"id": label.id, "time": stamp(label.time), "kept": at_once.label, "refused": label.label}
            into.name("contradicting", told)
    if new:
        write_labels(folder, model, new)


def _versions(folder: str, model: str, ids: set[str]) -> dict[str, str]:
    """The version that made each prediction, of those that are logged."""
    return {one.id: one.version for one in find_predictions(folder, model, ids)}


def _stored(folder: str, model: str, ids: set[str]) -> dict[str, list[Label]]:
    stored: dict[str, list[Label]] = {one: [] for one in ids}
    if ids:
        first = min(map(id_time, ids)).date() - timedelta(days=1)
        for label in labels(folder, model, since=first):
            if label.id in stored:
                stored[label.id].append(label)
    return stored
