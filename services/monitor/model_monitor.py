"""Watches one model: reads what its log has new, counts it, and keeps a state and a report beside the log.

``<folder>/<model>/monitor/state.json`` is all that a restart needs, positions in the log and counts in one document, so
that no record is counted twice. ``report.json`` is what others read, and ``history.json`` how it was before.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from contracts import storage
from contracts.errors import PlatformError
from contracts.lease import Lease
from services.feedback.layout import home
from services.feedback.reading import Position, new_predictions
from services.feedback.records import Prediction
from services.monitor.bundles import Known, find
from services.monitor.group_watch import GroupWatch
from services.monitor.history import History
from services.monitor.labelled import Labelled
from services.monitor.quality import Expected, measured, past_errors
from services.monitor.rules import Rules
from services.monitor.skew import FOLDER, latest_skew
from services.monitor.watch import VersionWatch

STATE, REPORT = "state.json", "report.json"
_FORM = 1
_AT_ONCE = 5_000  # records that are held in memory
_FORGOTTEN = 30 * 86_400.0  # seconds without traffic after which a version is no more reported
_READS = 400  # reads of one pass; the rest waits for the next


class ModelMonitor:
    """The watch over all versions of one model; its state is read when it begins.

    Attributes:
        report: the latest, {} before the first pass.
    """

    def __init__(
        self,
        folder: str,
        artifacts: str,
        model: str,
        rules: Rules,
        groups: GroupWatch | None = None,
        *,
        lease_seconds: float = 60,
    ) -> None:
        self._groups = groups or GroupWatch("", "id", folder, model, rules)
        self.model, self._folder, self._artifacts, self._rules = model, folder, artifacts, rules
        self._home = storage.join(home(folder, model), FOLDER)
        self._lease = Lease(storage.join(self._home, "lease"), lease_seconds)
        self._versions: dict[str, tuple[str, VersionWatch, Known]] = {}  # with the digest of each
        self._position, self._unreadable = Position(), 0
        self._expected: dict[str, Expected] = {}  # by version
        self._labelled: Labelled | None = None
        self._history: History | None = None
        self._quality: dict[str, list[dict[str, Any]]] = {}
        self._errors: dict[str, dict[str, float]] = {}  # of past estimates
        self._skew: dict[str, dict[str, float]] = {}  # by version and input
        self._joined = datetime.min.replace(tzinfo=UTC)
        self.report: dict[str, Any] = {}

    def look(self, now: datetime) -> dict[str, Any]:
        """Read what is new, and report.

        Raises:
            PlatformError: the storage does not answer; what was counted before stays as it is. ``code="lease_held"``:
                another monitor watches this model, and this object is of no more use.
        """
        if self._labelled is None and not storage.list_names(home(self._folder, self.model)):
            return _about(self.model, now)  # a model without a log leaves nothing behind
        self._keep_lease()
        if self._labelled is None:
            self._restore()
        for _ in range(_READS):
            self._keep_lease()
            news = new_predictions(self._folder, self.model, self._position, limit=_AT_ONCE)
            self._count(news.records, now)
            self._position = news.position
            self._unreadable += news.unreadable.count
            if not news.more:
                break
        self._forget(now)
        self._join(now)
        self._groups.look(now, {version: known for version, (_, _, known) in self._versions.items()})
        self.report = self._reported(now)
        self._keep_lease()
        if self._versions:
            self._write(STATE, self._state())
            self._write(REPORT, self.report)
            self._keep_history()
        return self.report

    def _keep_history(self) -> None:
        assert self._history is not None
        for version, report in self.report["versions"].items():
            self._history.drift(version, report)
        self._history.forget(list(self._versions))
        self._history.save()

    def kept_report(self) -> dict[str, Any]:
        """The report that is kept beside the log, whichever monitor wrote it; {} where there is none.

        Raises:
            PlatformError: the storage's own.
        """
        try:
            found: dict[str, Any] = json.loads(storage.read_bytes(storage.join(self._home, REPORT)))
        except PlatformError as err:
            if err.code != "not_found":
                raise
            return {}
        return found

    def release(self) -> None:
        """Let another monitor go on at once."""
        self._lease.release()

    def _keep_lease(self) -> None:
        if not self._lease.keep():
            self.release()
            raise PlatformError(
                f"another monitor watches {self.model}",
                detail=f"it is {self._lease.holder}",
                fix="nothing: this one takes over when that one ends",
                code="lease_held",
            )

    def _count(self, records: list[Prediction], now: datetime) -> None:
        by_version: dict[tuple[str, str], list[Prediction]] = {}
        for record in records:
            by_version.setdefault((record.version, record.digest), []).append(record)
        for version, digest in by_version:  # all bundles first: where one is out of reach, nothing is counted yet
            if version not in self._versions or self._versions[version][0] != digest:
                known = find(self._artifacts, self.model, digest)
                self._versions[version] = digest, VersionWatch(known.normal, known.serving, self._rules), known
        for (version, _), some in by_version.items():
            _, watch, known = self._versions[version]
            watch.add(some, now.timestamp())
            self._labels.offer(some, self._categories())
            answers = ((one.time.date().isoformat(), one.answer) for one in some)
            self._expected.setdefault(version, Expected()).add(answers, known)

    def _join(self, now: datetime) -> None:
        """Join labels that are new, and measure again where there were any; not at every look, for it reads days."""
        if now - self._joined < timedelta(seconds=self._rules.labels_seconds) and not self._labels.changed:
            return
        self._skew = latest_skew(home(self._folder, self.model), now)
        if self._labels.join(now, self._categories()) or self._joined.year == 1:
            rows = self._labels.rows
            assert self._history is not None
            for version, (digest, _, known) in self._versions.items():
                some = list(rows.get(version, {}).values())
                self._history.quality(version, digest, some, known)
                self._quality[version] = measured(some, known)
                self._errors[version] = past_errors(some, known)
        self._joined = now

    @property
    def _labels(self) -> Labelled:
        assert self._labelled is not None
        return self._labelled

    def _categories(self) -> dict[str, frozenset[str]]:
        return {version: _categorical(known) for version, (_, _, known) in self._versions.items()}

    def _forget(self, now: datetime) -> None:
        for version, (_, watch, _) in list(self._versions.items()):
            if now.timestamp() - watch.newest > _FORGOTTEN and len(self._versions) > 1:
                del self._versions[version]

    def _reported(self, now: datetime) -> dict[str, Any]:
        versions = {
            version: {"digest": digest, **watch.report(now.timestamp()), **self._judged(version, known)}
            for version, (digest, watch, known) in sorted(self._versions.items())
        }
        return _about(self.model, now) | {
            "unreadable_lines": self._unreadable,
            "labels": dict(self._labels.outcomes),
            "labels_waiting": self._labels.waiting,
            "versions": versions,
            "groups_error": self._groups.error,
            "drifted": sorted({name for one in versions.values() for name in one["drifted"]}),
        }

    def _judged(self, version: str, known: Known) -> dict[str, Any]:
        expected = self._expected.get(version, Expected())
        return {
            "skew": self._skew.get(version, {}),
            "quality": self._quality.get(version, []),
            "groups": self._groups.found.get(version, {}),
            "labelled": len(self._labels.rows.get(version, ())),
            "estimate": expected.estimates(known, self._errors.get(version, {})),
        }

    def _state(self) -> dict[str, Any]:
        versions = {
            version: {"digest": digest, "watch": watch.to_json()}
            for version, (digest, watch, _) in self._versions.items()
        }
        return {
            "form": _FORM,
            "position": self._position.to_json(),
            "unreadable": self._unreadable,
            "versions": versions,
            "expected": {version: one.to_json() for version, one in self._expected.items()},
        }

    def _restore(self) -> None:
        """Take up the last state; counts of columns that are others now begin anew, the log is not read again."""
        try:
            state = json.loads(storage.read_bytes(storage.join(self._home, STATE)))
            if state["form"] == _FORM:
                self._position = Position.from_json(state["position"])
                self._unreadable = state["unreadable"]
                for version, one in state["versions"].items():
                    known = find(self._artifacts, self.model, one["digest"])
                    watch = VersionWatch(known.normal, known.serving, self._rules)
                    watch.restore(one["watch"])
                    self._versions[version] = one["digest"], watch, known
                self._expected = {version: Expected(sums) for version, sums in state.get("expected", {}).items()}
        except PlatformError as err:
            if err.code != "not_found":
                raise
        except (ValueError, KeyError, TypeError, AttributeError) as err:
            raise PlatformError(
                f"the monitor's state of {self.model} cannot be read",
                detail=f"{storage.join(self._home, STATE)}: {type(err).__name__}: {err}",
                fix="remove the file, then the log is read from its beginning",
                code="bad_state",
            ) from err
        self._history = History(self._home)
        self._labelled = Labelled(self._folder, self.model, self._home)

    def _write(self, name: str, document: dict[str, Any]) -> None:
        storage.write_bytes(storage.join(self._home, name), json.dumps(document, ensure_ascii=False).encode())


def _categorical(known: Known) -> frozenset[str]:
    """Inputs whose categories are declared, and hence logged."""
    inputs = known.document.signature.inputs if known.document is not None else []
    return frozenset(item.name for item in inputs if item.categories)


def _about(model: str, now: datetime) -> dict[str, Any]:
    """A report of nothing."""
    time = now.astimezone(UTC).isoformat(timespec="seconds")
    return {
        "form": _FORM,
        "model": model,
        "time": time,
        "labels": {},
        "versions": {},
        "groups_error": {},
        "drifted": [],
    }
