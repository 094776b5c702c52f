"""Keeps the logs of watched models small: finished days become Parquet, and days that are too old are removed.

Annotations that endpoints got are moved to the document store, where there is one.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from contracts.errors import PlatformError
from services.feedback.annotating import document, take
from services.feedback.annotation_store import Annotations
from services.feedback.compaction import compact
from services.feedback.days import drop_before
from services.feedback.layout import KINDS
from services.feedback.line_file import Unreadable
from services.logs import log_event

_EVERY = 3_600.0  # seconds
_FAILED = {"annotations_moved": "annotations_not_moved", "log_compacted": "compaction_failed"}


class Housekeeping:
    """Moves and compacts in a thread of its own, for a day may take longer than a pass of the monitor.

    Args:
        documents: ``mongodb://host/database`` that annotations are moved to; empty: they stay.
        compacts: whether finished days become Parquet, and old ones go.
    """

    def __init__(self, folder: str, keep_days: int, documents: str = "", *, compacts: bool = True) -> None:
        self._folder, self._keep_days = folder, keep_days
        self._documents, self._compacts = documents, compacts
        self._models: Sequence[str] = ()
        self._failing: dict[tuple[str, str], str] = {}

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
        """Move the annotations of each model, and compact its log; what fails is said once, and the rest goes on."""
        for model in self._models:
            if self._documents:
                self._try("annotations_moved", model, self._move)
            if self._compacts:
                self._try("log_compacted", model, lambda model: self._compact(model, now))

    def _try(self, event: str, model: str, work: Callable[[str], Mapping[str, Any]]) -> None:
        try:
            done = work(model)
        except (PlatformError, OSError) as err:
            self._failed(event, model, err)
            return
        self._failing.pop((event, model), None)
        if any(done.values()):
            log_event(event, model=model, **done)

    def _move(self, model: str) -> dict[str, int]:
        """Each once: what an earlier pass, that was ended, has written already is known by its id."""
        kept = Annotations(self._documents, model)
        done = take(self._folder, model, lambda some: kept.write([document(one, model) for one in some]))
        return {"kept": done.new, "repeated": done.records - done.new, "unreadable_lines": done.unreadable.count}

    def _compact(self, model: str, now: datetime | None) -> dict[str, Any]:
        unreadable = Unreadable()
        found: dict[str, int] = {
            kind: compact(self._folder, model, kind, unreadable, now=now).records for kind in KINDS
        }
        dropped = drop_before(self._folder, model, self._keep_days, now=now) if self._keep_days else []
        return {**found, "unreadable_lines": unreadable.count, "files_dropped": len(dropped)}

    def _failed(self, event: str, model: str, err: Exception) -> None:
        if isinstance(err, PlatformError) and err.code == "compacting":  # whoever does it does it for all
            return
        told = err.headline if isinstance(err, PlatformError) else str(err)  # drivers' details differ each time
        if self._failing.get((event, model)) != told:
            self._failing[event, model] = told
            log_event(_FAILED[event], logging.ERROR, model=model, error=str(err))
