"""A run of the stand-in of Kubeflow Pipelines, and how its time passes."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from tests.argo import Scenario


@dataclass
class Run:
    """A run: what was posted and how it lives.

    began, looked: on the clock of `time.monotonic`.
    lead: seconds after the last look at which its time stands still, so that whoever looks misses nothing on a machine
    that is slow.
    """

    document: dict[str, Any]
    scenario: Scenario
    began: float
    speed: float
    lead: float = math.inf
    looked: float = field(default_factory=time.monotonic)
    done: int = 0  # of the scenario's actions
    lock: threading.RLock = field(default_factory=threading.RLock)

    def now(self) -> float:
        """Seconds of the scenario that have passed."""
        with self.lock:
            return (min(time.monotonic(), self.looked + self.lead) - self.began) * self.speed

    def look(self) -> None:
        """Somebody looks at the cluster: time goes on."""
        with self.lock:
            moment = time.monotonic()
            self.began += max(0.0, moment - self.looked - self.lead)
            self.looked = moment

    def reach(self, moment: float) -> None:
        """Let the scenario stand at `moment` now, with everything done that is due."""
        with self.lock:
            self.looked = time.monotonic()
            self.began = self.looked - moment / self.speed
        self.act()

    def act(self) -> None:
        """Do what is due by now."""
        with self.lock:
            due = sorted(self.scenario.actions, key=lambda action: action[0])
            while self.done < len(due) and due[self.done][0] <= self.now():
                self.done += 1
                due[self.done - 1][1](self.scenario)
