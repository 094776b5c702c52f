"""How quality and drift went: a document beside the report, with a bounded number of points.

Quality is that of windows of event time, measured with the labels that have come for each by now, so that a late label
changes its own window. A window is a day; an hour while the labelled rows are of less than two days.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from contracts import storage
from contracts.errors import PlatformError
from services.monitor.bundles import Known
from services.monitor.quality import Row, of_all

FILE = "history.json"
_FORM = 1
_HOUR, _DAY = 3600, 86_400
_LEAST = 50  # labelled rows of a window that is measured
_WINDOWS, _POINTS = 90, 240  # that are kept of each version
_APART = 300.0  # seconds of event time between two points of drift
_KEYS = ("metric", "value", "low", "high", "reference")


class History:
    """The windows and points of one model, by version; what was kept is read when it begins."""

    def __init__(self, home: str) -> None:
        self._address = storage.join(home, FILE)
        self._versions: dict[str, dict[str, Any]] = {}
        self._changed = False
        self._restore()

    def quality(self, version: str, digest: str, rows: Sequence[Row], known: Known) -> None:
        """Measure the windows of labelled rows that have more of them than before."""
        if not rows:
            return
        times = [datetime.fromisoformat(row["time"]).timestamp() for row in rows]
        seconds = _HOUR if max(times) - min(times) < 2 * _DAY else _DAY
        groups: dict[int, list[Row]] = {}
        for at, row in zip(times, rows, strict=True):
            groups.setdefault(int(at // seconds), []).append(row)
        kept = self._of(version, digest)["quality"]
        before = {one["begin"]: one for one in kept if one["seconds"] == seconds}
        found = []
        for number, some in sorted(groups.items())[-_WINDOWS:]:
            begin, label = _stamp(number * seconds), max(row["at"] for row in some)
            rest = before.get(begin)
            if rest is not None and (rest["rows"] > len(some) or (rest["rows"], rest["label"]) == (len(some), label)):
                found.append(rest)  # with no label that is new; some of its rows may be held no more
            elif len(some) >= _LEAST and (measures := of_all(some, known)):
                kinds = [{key: one[key] for key in _KEYS} for one in measures]
                told = {"begin": begin, "seconds": seconds, "rows": len(some), "label": label}
                found.append({**told, "metrics": kinds})
        first = min((one["begin"] for one in found), default="9")
        older = [one for one in kept if one["begin"] < first]
        self._put(version, "quality", [*older, *found][-_WINDOWS:])

    def drift(self, version: str, report: Mapping[str, Any]) -> None:
        """Keep how far each input is, once in a while; older points become fewer, and stay as far back."""
        newest, inputs = report.get("newest"), report.get("inputs") or {}
        points = self._of(version, report["digest"])["drift"]
        if not newest or not inputs or report.get("quiet"):
            return
        if points and _seconds(newest) - _seconds(points[-1]["time"]) < _APART:
            return
        far = {name: round(one["psi"], 4) for name, one in inputs.items()}
        points = [*points, {"time": newest, "psi": far}]
        if len(points) > _POINTS:
            half = _POINTS // 2
            points = [*points[:half:2], *points[half:]]
        self._put(version, "drift", points)

    def forget(self, versions: Sequence[str]) -> None:
        """Keep these versions only."""
        for version in set(self._versions) - set(versions):
            del self._versions[version]
            self._changed = True

    def save(self) -> None:
        """Write what is new."""
        if self._changed:
            document = {"form": _FORM, "versions": self._versions}
            storage.write_bytes(self._address, json.dumps(document, ensure_ascii=False).encode())
            self._changed = False

    def _of(self, version: str, digest: str) -> dict[str, Any]:
        """What is kept of a version; nothing yet where its name means another bundle now."""
        if self._versions.get(version, {}).get("digest") != digest:
            self._versions[version] = {"digest": digest, "quality": [], "drift": []}
        return self._versions[version]

    def _put(self, version: str, kind: str, points: list[dict[str, Any]]) -> None:
        if self._versions[version][kind] != points:
            self._versions[version][kind] = points
            self._changed = True

    def _restore(self) -> None:
        """Take up what was kept; a document that cannot be read begins anew, for the report does not need it."""
        try:
            found = json.loads(storage.read_bytes(self._address))
        except PlatformError as err:
            if err.code != "not_found":
                raise
            return
        except ValueError:
            return
        if isinstance(found, dict) and found.get("form") == _FORM:
            self._versions = found["versions"]


def _stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()
