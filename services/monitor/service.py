"""The monitor's process: looks at every log again and again, and serves the metrics of what it finds."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from contracts.errors import PlatformError
from services.feedback.layout import models
from services.logs import log_event
from services.monitor.exposition import Reports
from services.monitor.group_watch import GroupWatch
from services.monitor.housekeeping import Housekeeping
from services.monitor.model_monitor import ModelMonitor
from services.monitor.settings import PREFIX, MonitorSettings


class Monitor:
    """Watches the models that the settings name, or all that have a log; one after another, in one thread.

    Attributes:
        reports: of all models, as metrics.
    """

    def __init__(self, settings: MonitorSettings) -> None:
        if not settings.predictions:
            raise PlatformError(
                "no prediction log to watch",
                fix=f"set {PREFIX}PREDICTIONS to the folder of the log",
                code="bad_settings",
            )
        self._settings = settings
        self._watched: dict[str, ModelMonitor] = {}
        self._failing: dict[str, str] = {}
        self._drifted: dict[str, list[str]] = {}
        self._groupless: dict[str, Mapping[str, Any]] = {}
        self._house = Housekeeping(
            settings.predictions, settings.keep_days, settings.documents, compacts=settings.compact
        )
        self.reports = Reports()

    def look(self) -> dict[str, dict[str, Any]]:
        """One pass over all models: their reports by name; a model whose log is out of reach keeps its last one.

        Such a report has `error`, and the time of its last pass stands still.
        """
        try:
            found = self._settings.models or models(self._settings.predictions)
        except (PlatformError, OSError) as err:
            self._failed("", err)
            found = []
        reports = {name: self._look(name) for name in sorted({*found, *self._watched})}
        self._house.of(list(reports))
        return reports

    def _look(self, model: str) -> dict[str, Any]:
        now = datetime.now(UTC)
        watch = self._watched.get(model)
        if watch is None:
            one = self._settings
            lasts = max(one.lease_seconds, 3 * one.every_seconds)  # three passes may be missed
            groups = GroupWatch(one.groups, one.groups_key, one.predictions, model, one.rules)
            watch = ModelMonitor(one.predictions, one.artifacts, model, one.rules, groups, lease_seconds=lasts)
            self._watched[model] = watch
        try:
            report = watch.look(now)
        except (PlatformError, OSError) as err:
            if isinstance(err, PlatformError) and err.code == "lease_held":
                return self._stood_by(model, watch, err)
            self._failed(model, err)
            return {**watch.report, "model": model, "error": _as_error(err)}
        self._failing.pop(model, None)
        self.reports.put(model, report, time.time())
        self._tell_groups(model, report["groups_error"])
        found = report["drifted"]
        if found != self._drifted.get(model, []):
            log_event("drift", logging.WARNING if found else logging.INFO, model=model, inputs=found)
        self._drifted[model] = found
        return report

    def _tell_groups(self, model: str, error: Mapping[str, Any]) -> None:
        """Say once that groups cannot be measured."""
        if error and self._groupless.get(model) != error:
            log_event("groups_failed", logging.ERROR, model=model, **error)
        self._groupless[model] = error

    def _stood_by(self, model: str, watch: ModelMonitor, err: PlatformError) -> dict[str, Any]:
        """The report of the monitor that watches this model; what this one knew of it is forgotten."""
        if self._failing.get(model) != err.headline:
            self._failing[model] = err.headline
            log_event("standing_by", model=model, detail=err.detail)
        del self._watched[model]
        self.reports.drop(model)
        self._drifted.pop(model, None)
        kept: dict[str, Any] = {"versions": {}, "drifted": []}
        with suppress(PlatformError, OSError):
            kept |= watch.kept_report()
        return {**kept, "model": model, "standing_by": err.detail}

    def release(self) -> None:
        """Let another monitor take over at once."""
        for watch in self._watched.values():
            with suppress(PlatformError, OSError):  # a store that is away: the lease ends by itself
                watch.release()

    def _failed(self, model: str, err: Exception) -> None:
        """Say so once, until it succeeds again or fails otherwise."""
        told = _as_error(err)
        if self._failing.get(model) != told["headline"]:
            self._failing[model] = told["headline"]
            log_event("monitor_failed", logging.ERROR, model=model, **told)

    def run(self, stop: threading.Event, after: Callable[[Mapping[str, Any]], None] = lambda reports: None) -> None:
        """Look until `stop` is set; `after` gets the reports of each pass."""
        if self._settings.compact or self._settings.documents:
            self._house.start(stop)
        try:
            while not stop.is_set():
                begin = time.monotonic()
                after(self.look())
                stop.wait(max(0.0, self._settings.every_seconds - (time.monotonic() - begin)))
        finally:
            stop.set()
            self.release()

    def serve(self) -> Callable[[], None]:
        """Serve /metrics; the answer ends it.

        Raises:
            PlatformError: ``code="port_in_use"``.
        """
        from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server

        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        registry.register(self.reports)
        host, port = self._settings.host, self._settings.port
        try:
            server, _ = start_http_server(port, host, registry)
        except OSError as err:
            raise PlatformError(
                f"cannot listen on {host}:{port}",
                detail=err.strerror or str(err),
                fix="give another port, or end what listens there",
                code="port_in_use",
            ) from err
        return server.shutdown


def _as_error(err: Exception) -> dict[str, Any]:
    if isinstance(err, PlatformError):
        return {key: value for key, value in err.as_dict().items() if key != "context"}
    return {"code": "unreachable", "headline": f"the log cannot be read: {err}", "detail": "", "fix": "see the file"}
