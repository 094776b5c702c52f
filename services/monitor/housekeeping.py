"""Keeps the logs of watched models small: finished days become Parquet, and days that are too old are removed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from contracts.errors import PlatformError
from services.feedback.compaction import compact
from services.feedback.days import drop_before
from services.feedback.layout import KINDS
from services.feedback.line_file import Unreadable
from services.logs import log_event

_EVERY = 3_600.0  # seconds


class Housekeeping:
    """Compacts in a thread of its own, for a day may take longer than a pass of the monitor."""

    def __init__(self, folder: str, keep_days: int) -> None:
        self._folder, self._keep_days = folder, keep_days
        self._models: Sequence[str] = ()
        self._failing: dict[str, str] = {}

    def of(self, models: Sequence[str]) -> None:
        """Whose logs are kept from now on."""
        self._models = tuple(models)

    def start(self, stop: threading.Event) -> None:
        """Begin, until `stop` is set; a batch that ends half is gone on with by the next process."""
        threading.Thread(target=self._run, args=(stop,), name="housekeeping", daemon=True).start()

    def _run(self, stop: threading.Event) -> None:
        wait = 1.0  # the first pass says which models there are
        while not stop.wait(wait):
            self.once()
            wait = _EVERY if self._models else 1.0

    def once(self, now: datetime | None = None) -> None:
        """Compact the log of each model; what fails for one is said once, and the others go on."""
        for model in self._models:
            try:
                done = self._compact(model, now)
            except (PlatformError, OSError) as err:
                self._failed(model, err)
                continue
            self._failing.pop(model, None)
            if any(done.values()):
                log_event("log_compacted", model=model, **done)

    def _compact(self, model: str, now: datetime | None) -> dict[str, Any]:
        unreadable = Unreadable()
        found: dict[str, int] = {
            kind: compact(self._folder, model, kind, unreadable, now=now).records for kind in KINDS
        }
        dropped = drop_before(self._folder, model, self._keep_days, now=now) if self._keep_days else []
        return {**found, "unreadable_lines": unreadable.count, "files_dropped": len(dropped)}

    def _failed(self, model: str, err: Exception) -> None:
        if isinstance(err, PlatformError) and err.code == "compacting":  # whoever does it does it for all
            return
        told = str(err)
        if self._failing.get(model) != told:
            self._failing[model] = told
            log_event("compaction_failed", logging.ERROR, model=model, error=told)
