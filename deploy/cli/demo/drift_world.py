"""A world whose prices double on a day: payments to train on, and requests whose labels come later."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from deploy.cli.serving.http_requests import Answer, send

DAYS, LATER = 50, 21  # of the old world, and of the new one before a model can learn it: labels are a week late
FACTOR = 2.0  # of all amounts
_CONNECTIONS, _SLICE = 4, 0.5
_DAY = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class World:
    """Where the payments are, and those to ask about: a request body and whether it is a fraud, in each phase.

    before, after: files of the payments until the change, and until three weeks after it.
    """

    before: Path
    after: Path
    usual: list[tuple[dict[str, Any], int]]
    changed: list[tuple[dict[str, Any], int]]
    settled: list[tuple[dict[str, Any], int]]


def make_world(folder: Path, seed: int) -> World:
    """Simulate the payments and write the files; the day of the change is asked about as it was, and as it is.

    Only one day is asked about, because the online store knows what was before it, and in any order, because a demo
    that sends a day in a minute would else show the hours of the day as a change.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import parquet

    from pipelines.tasks.fraud.config import SimulatorConfig
    from pipelines.tasks.fraud.simulator import simulate

    whole = pa.concat_tables(list(simulate(SimulatorConfig(days=DAYS + LATER, drift=0.0), seed)))
    first = whole["event_time"][0].as_py().replace(hour=0, minute=0, second=0, microsecond=0)
    change = pa.scalar(first + timedelta(days=DAYS), type=whole["event_time"].type)
    new = pc.greater_equal(whole["event_time"], change)
    amounts = pc.if_else(new, pc.round(pc.multiply(whole["amount"], FACTOR), 2), whole["amount"])
    priced = whole.set_column(whole.schema.get_field_index("amount"), "amount", amounts)
    before, after = folder / "payments-before.parquet", folder / "payments-after.parquet"
    folder.mkdir(parents=True, exist_ok=True)
    parquet.write_table(whole.filter(pc.invert(new)), before)
    parquet.write_table(priced, after)
    day = pc.and_(new, pc.less(whole["event_time"], pc.add(change, pa.scalar(_DAY))))
    last = pc.greater_equal(whole["event_time"], pa.scalar(first + _DAY * (DAYS + LATER - 1), type=change.type))
    return World(
        before=before,
        after=after,
        usual=_asked(whole.filter(day), seed),
        changed=_asked(priced.filter(day), seed),
        settled=_asked(priced.filter(last), seed, later=_DAY),
    )


def _asked(table: Any, seed: int, later: timedelta = timedelta()) -> list[tuple[dict[str, Any], int]]:
    found = []
    for row in table.select(["customer_id", "terminal_id", "amount", "event_time", "fraud"]).to_pylist():
        truth, moment = row.pop("fraud"), row.pop("event_time") + later
        found.append(({"instances": [{**row, "event_time": moment.isoformat()}]}, truth))
    random.Random(seed).shuffle(found)
    return found


@dataclass
class Second:
    """What was answered in one second, by version: requests, errors, alerts, and the alerts that were right."""

    requests: dict[str, int] = field(default_factory=dict)
    alerts: dict[str, int] = field(default_factory=dict)
    failed: int = 0


class Traffic:
    """Asks about payments at a steady rate from a thread, and sends each label `label_delay` seconds later.

    Attributes:
        seconds: what was answered, by whole second since the start.
        refused: the first answer that was no prediction, for the one who asks why.
    """

    def __init__(self, url: str, rate: float, label_delay: float) -> None:
        self.seconds: dict[int, Second] = {}
        self.refused: Answer | None = None
        self.labelled = 0
        self.began = time.monotonic()
        self._url, self._rate, self._delay = url, rate, label_delay
        self._payments: Sequence[tuple[dict[str, Any], int]] = []
        self._next = 0
        self._owed: deque[tuple[float, str, int]] = deque()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)

    def ask(self, payments: Sequence[tuple[dict[str, Any], int]]) -> None:
        """Ask about these from now on, again and again; the first call starts the traffic."""
        self._payments, self._next = payments, 0
        if self._thread.ident is None:
            self._thread.start()

    def stop(self) -> None:
        """End the traffic, after what is on its way."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        turn = time.monotonic()
        while not self._stop.is_set():
            payments, size = self._payments, int(self._rate * _SLICE)
            chosen = [payments[(self._next + at) % len(payments)] for at in range(size)]
            self._next += size
            self._note(chosen, send(f"{self._url}/predict", [body for body, _ in chosen], _CONNECTIONS))
            self._label()
            turn = max(turn + _SLICE, time.monotonic() - _SLICE)
            self._stop.wait(turn - time.monotonic())

    def _note(self, chosen: Sequence[tuple[dict[str, Any], int]], answers: Sequence[Answer]) -> None:
        now = time.monotonic()
        second = self.seconds.setdefault(int(now - self.began), Second())
        for (_, truth), answer in zip(chosen, answers, strict=True):
            if answer.status != 200:
                second.failed += 1
                self.refused = self.refused or answer
                continue
            version, (one,) = answer.body["version"], answer.body["predictions"]
            second.requests[version] = second.requests.get(version, 0) + 1
            second.alerts[version] = second.alerts.get(version, 0) + (one["label"] == "fraud")
            self._owed.append((now + self._delay, one["id"], truth))

    def _label(self) -> None:
        due = []
        while self._owed and self._owed[0][0] <= time.monotonic():
            _, identifier, truth = self._owed.popleft()
            due.append({"id": identifier, "label": "fraud" if truth else "genuine"})
        if due:
            (answer,) = send(f"{self._url}/feedback", [{"labels": due}], 1)
            self.labelled += len(due) if answer.status == 200 else 0
