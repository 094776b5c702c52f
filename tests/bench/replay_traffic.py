"""Asks a served model about the replayed payments in their order, keeps its features fresh, and labels a week late."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any

from contracts.endpoints import Endpoints
from deploy.cli.serving.http_requests import send
from tests.bench.replay_world import LABELS_LATE, World

PER_DAY = 12  # slices
_CONNECTIONS, _AT_ONCE = 4, 400


class Replay:
    """The clients of the model, in a thread; `day` is how many seconds a day of the replay takes.

    Attributes:
        answered: predictions by version.  failed: answers that were none, by status; 0 for no answer at all.
        labelled: labels that were taken.  days: of the replay so far.  behind: seconds that it is late, at most.
        by_day: answers by day and version.
    """

    def __init__(self, world: World, url: str, home: Path, day: float) -> None:
        self.answered: Counter[str] = Counter()
        self.failed: Counter[int] = Counter()
        self.by_day: Counter[tuple[int, str]] = Counter()
        self.asked = self.labelled = 0
        self.days = self.behind = 0.0
        self.finished, self.error = False, ""
        self._world, self._url, self._home, self._day = world, url, home, day
        self._owed: deque[tuple[float, str, int]] = deque()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._guarded, name="replay", daemon=True)

    def begin(self) -> None:
        """Bring the features of the beginning online, and start."""
        from deploy.cli.features.feature_views import history_of
        from feature_repo.stores.push import CheckedStore

        self._store = CheckedStore(repo_path=history_of(Endpoints(home=str(self._home)).resolved(), "fraud").address)
        for view, rows in self._world.before().items():
            self._store.write_to_online_store(view, rows)
        self._thread.start()

    def stop(self) -> None:
        """End after what is on its way."""
        self._stop.set()
        self._thread.join()

    def _guarded(self) -> None:
        try:
            self._run()
        except Exception as err:  # noqa: BLE001 - said by whoever waits for the thread
            self.error = f"{type(err).__name__}: {err}"
        self.finished = True

    def _run(self) -> None:
        began = time.monotonic()
        for number, part in enumerate(self._world.stream(PER_DAY), start=1):
            self._ask(part.asked)
            for view, rows in part.known.items():  # a payment never sees itself
                if len(rows):
                    self._store.write_to_online_store(view, rows)
            self.days = number / PER_DAY
            self._label()
            if number % PER_DAY == 0:
                self._world.publish(part.until)
            late = time.monotonic() - began - self.days * self._day
            self.behind = max(self.behind, late)
            if late > self._day:  # the machine is too slow: the replay goes on from here
                began += late
            if self._stop.wait(max(0.0, -late)):
                return

    def _ask(self, asked: list[tuple[dict[str, Any], int]]) -> None:
        answers = send(f"{self._url}/predict", [body for body, _ in asked], _CONNECTIONS) if asked else []
        for (_, truth), answer in zip(asked, answers, strict=True):
            self.asked += 1
            if answer.status != 200:
                self.failed[answer.status] += 1
                continue
            self.answered[answer.body["version"]] += 1
            self.by_day[int(self.days), answer.body["version"]] += 1
            self._owed.append((self.days + LABELS_LATE, answer.body["predictions"][0]["id"], truth))

    def _label(self) -> None:
        due = []
        while self._owed and self._owed[0][0] <= self.days and len(due) < _AT_ONCE:
            due.append(self._owed.popleft())
        if not due:
            return
        labels = [{"id": name, "label": "fraud" if truth else "genuine"} for _, name, truth in due]
        (answer,) = send(f"{self._url}/feedback", [{"labels": labels}], 1)
        if answer.status == 200:
            self.labelled += len(due)
        else:
            self._owed.extendleft(reversed(due))  # sent again: labels that are known change nothing
