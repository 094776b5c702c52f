"""Predictions of one model whose labels have come, as far as quality is measured from them: the newest of each version.

``<folder>/<model>/monitor/labelled.json`` holds them with the position in the labels, so that none is counted twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from contracts import storage
from contracts.errors import PlatformError
from services.feedback.joining import may_come, winner
from services.feedback.reading import Position, find_predictions, new_labels
from services.feedback.records import Label, Prediction, stamp

FILE = "labelled.json"
_FORM = 1
_KEPT = 20_000  # of each version
_AT_ONCE = 5_000
_WAITING = 50_000  # labels that wait for their prediction


class Labelled:
    """The labelled rows of one model.

    Attributes:
        rows: of each version, by id: time, answer, label, the label's time, and the values of categorical inputs.
        outcomes: how many labels were joined, unknown, contradicting and repeated.
        changed: whether rows were joined by `offer` that `join` has not kept yet.
    """

    def __init__(self, folder: str, model: str, home: str) -> None:
        self._folder, self._model, self._address = folder, model, storage.join(home, FILE)
        self.rows: dict[str, dict[str, dict[str, Any]]] = {}
        self.outcomes = dict.fromkeys(("joined", "unknown", "contradicting", "repeated"), 0)
        self._position, self._waiting = Position(), dict[str, Label]()
        self.changed = False
        self._restore()

    @property
    def waiting(self) -> int:
        """How many labels wait for their prediction."""
        return len(self._waiting)

    def offer(self, records: Iterable[Prediction], categories: Mapping[str, frozenset[str]]) -> None:
        """Predictions that are new in the log: those that a label waits for are joined."""
        for one in records:
            if (label := self._waiting.pop(one.id, None)) is not None:
                self._add(one, label, categories)
                self.changed = True

    def join(self, now: datetime, categories: Mapping[str, frozenset[str]]) -> bool:
        """Join the labels that are new; whether anything was joined since the last time.

        Args:
            categories: the categorical inputs by version.

        Raises:
            PlatformError: the storage does not answer; what was joined before stays.
        """
        more = True
        while more:
            news = new_labels(self._folder, self._model, self._position, limit=_AT_ONCE)
            more = news.more
            if news.records or self._expired(now):
                self._settle(news.records, now, categories)
                self.changed = True
            self._position = news.position
        changed, self.changed = self.changed, False
        if changed:
            self._cut()
            storage.write_bytes(self._address, json.dumps(self._document(), ensure_ascii=False).encode())
        return changed

    def _expired(self, now: datetime) -> bool:
        return any(not may_come(key, now) for key in self._waiting)

    def _settle(self, labels: Iterable[Label], now: datetime, categories: Mapping[str, frozenset[str]]) -> None:
        known = {key: row for rows in self.rows.values() for key, row in rows.items()}
        wanted, outcomes = dict[str, Label](), dict.fromkeys(self.outcomes, 0)
        for label in labels:
            if (row := known.get(label.id)) is not None:
                outcomes[_correct(row, label)] += 1
            elif (other := wanted.get(label.id) or self._waiting.get(label.id)) is None:
                wanted[label.id] = label
            else:
                outcomes[_between(other, label)] += 1
                wanted[label.id] = winner(other, label)
        for one in find_predictions(self._folder, self._model, wanted):
            if (given := wanted.pop(one.id, None)) is not None:
                self._waiting.pop(one.id, None)
                self._add(one, given, categories)
        waiting = self._waiting | wanted
        self._waiting = {key: waiting[key] for key in sorted(key for key in waiting if may_come(key, now))[-_WAITING:]}
        outcomes["unknown"] += len(waiting) - len(self._waiting)
        for name, count in outcomes.items():
            self.outcomes[name] += count

    def _add(self, one: Prediction, label: Label, categories: Mapping[str, frozenset[str]]) -> None:
        self.outcomes["joined"] += 1
        row = _row(one, label, categories.get(one.version, frozenset()))
        self.rows.setdefault(one.version, {})[one.id] = row

    def _cut(self) -> None:
        for version, rows in self.rows.items():
            if len(rows) > _KEPT:
                newest = sorted(rows.items(), key=lambda item: item[1]["time"])[-_KEPT:]
                self.rows[version] = dict(newest)

    def _document(self) -> dict[str, Any]:
        return {
            "form": _FORM,
            "position": self._position.to_json(),
            "outcomes": self.outcomes,
            "waiting": [one.document() for one in self._waiting.values()],
            "rows": self.rows,
        }

    def _restore(self) -> None:
        try:
            document = json.loads(storage.read_bytes(self._address))
            if document["form"] == _FORM:
                self._position, self.rows = Position.from_json(document["position"]), document["rows"]
                self.outcomes, waiting = document["outcomes"], [Label.of(one) for one in document["waiting"]]
                self._waiting = {one.id: one for one in waiting}
        except PlatformError as err:
            if err.code != "not_found":
                raise
        except (ValueError, KeyError, TypeError, AttributeError) as err:
            raise PlatformError(
                f"the monitor's labelled rows of {self._model} cannot be read",
                detail=f"{self._address}: {type(err).__name__}: {err}",
                fix="remove the file, then the labels are read from their beginning",
                code="bad_state",
            ) from err


def _row(one: Prediction, label: Label, categorical: frozenset[str]) -> dict[str, Any]:
    values = {name: value for name, value in one.inputs.items() if name in categorical and isinstance(value, str)}
    answer = {**one.answer}
    return {"time": stamp(one.time), "answer": answer, "label": label.label, "at": stamp(label.time), "slices": values}


def _correct(row: dict[str, Any], label: Label) -> str:
    """Take a label of a row that has one; the later one counts."""
    before = Label(id=label.id, label=row["label"], time=datetime.fromisoformat(row["at"]).astimezone(UTC))
    outcome = _between(before, label)
    if winner(before, label) is label:
        row["label"], row["at"] = label.label, stamp(label.time)
    return outcome


def _between(first: Label, second: Label) -> str:
    if first.label == second.label:
        return "repeated"
    return "contradicting" if first.time == second.time else "joined"
