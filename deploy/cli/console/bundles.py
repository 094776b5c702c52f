"""What a version's bundle says, for pages: its documents are read as they are, and not verified."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from contracts import storage
from contracts.bundle import DOCUMENT, BundleDocument
from contracts.errors import PlatformError
from services.console.documents import Bars, Check, Drift, Measure, Version

if TYPE_CHECKING:
    from contracts.registry import ModelVersion

PAGES = ("card.html", "data.html")
_MOST = 2000  # bundles whose documents are kept; they never change


@dataclass(frozen=True, kw_only=True)
class Told:
    """The documents of a bundle; `problem` says why there is none."""

    document: BundleDocument | None = None
    evaluation: Mapping[str, Any]
    problem: str = ""

    @property
    def primary(self) -> str:
        """The measure that the gate compares by; "" where the bundle does not say."""
        return str(self.evaluation.get("primary") or "")

    def quality(self) -> Measure | None:
        """The primary measure on the test rows."""
        if self.document is None or self.primary not in self.document.metrics:
            return None
        low, high = _pair((self.evaluation.get("intervals") or {}).get(self.primary))
        return Measure(metric=self.primary, value=self.document.metrics[self.primary], low=low, high=high)


class Bundles:
    """Reads bundles once."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Told] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, version: ModelVersion) -> Told:
        """What the bundle of a version says."""
        with self._lock:
            known = self._known.get(version.path)
        if known is not None and not known.problem:
            return known
        found = _read(version.path)
        with self._lock:
            self._known[version.path] = found
            while len(self._known) > _MOST:
                self._known.popitem(last=False)
        return found

    def page(self, version: ModelVersion, name: str) -> bytes | None:
        """A page of the bundle, one of `PAGES`; None where it has none."""
        told = self.of(version)
        if name not in PAGES or told.document is None or name not in told.document.files:
            return None
        try:
            return storage.read_bytes(storage.join(version.path, name))
        except PlatformError:
            return None

    def example(self, version: ModelVersion) -> dict[str, Any]:
        """The inputs of the first golden example."""
        try:
            lines = storage.read_bytes(storage.join(version.path, "golden.jsonl")).splitlines()
            found = json.loads(lines[0])["inputs"]
        except (PlatformError, ValueError, LookupError, TypeError):
            return {}
        return found if isinstance(found, dict) else {}

    def baseline(self, version: ModelVersion) -> list[Drift]:
        """Each input as it was in training, without anything about now."""
        found = _json(version.path, "baseline.json") or {}
        inputs = found.get("inputs")
        shown = [_then(name, one) for name, one in inputs.items()] if isinstance(inputs, dict) else []
        return [one for one in shown if one.then is not None]


def _read(path: str) -> Told:
    try:
        document = BundleDocument.model_validate_json(storage.read_bytes(storage.join(path, DOCUMENT)))
    except PlatformError as err:
        return Told(evaluation={}, problem=f"{path}: {err.detail or err.headline}")
    except (ValidationError, UnicodeDecodeError) as err:
        first = err.errors()[0] if isinstance(err, ValidationError) else {"loc": (), "msg": str(err)}
        where = ".".join(map(str, first["loc"]))
        return Told(evaluation={}, problem=f"{storage.join(path, DOCUMENT)}: {where} {first['msg']}".strip())
    return Told(document=document, evaluation=_json(path, "evaluation.json") or {})


def _json(path: str, name: str) -> dict[str, Any] | None:
    try:
        found = json.loads(storage.read_bytes(storage.join(path, name)))
    except (PlatformError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _pair(given: Any) -> tuple[float | None, float | None]:
    if isinstance(given, list | tuple) and len(given) == 2 and all(isinstance(value, int | float) for value in given):
        return float(given[0]), float(given[1])
    return None, None


def _then(name: str, given: Any) -> Drift:
    """An input of ``baseline.json``: numbers in bins, shares of categories, or the lengths of texts."""
    one = given if isinstance(given, dict) else {}
    kind = str(one.get("kind", ""))
    length = one.get("length")
    counted = length if kind == "text" and isinstance(length, dict) else one
    edges, shares = counted.get("edges"), counted.get("shares")
    then = None
    if isinstance(shares, dict) and all(isinstance(value, int | float) for value in shares.values()):
        ordered = sorted(shares.items(), key=lambda item: -item[1])
        then = Bars(labels=[key or '""' for key, _ in ordered], shares=[value for _, value in ordered])
    elif isinstance(shares, list) and isinstance(edges, list) and len(edges) == len(shares) + 1:
        then = Bars(labels=[f"{edge:.4g}" for edge in edges], shares=shares)
    return Drift(name=f"{name} (length)" if kind == "text" else name, kind=kind, then=then)


def version_of(version: ModelVersion, told: Told) -> Version:
    """A version as its page shows it."""
    document = told.document
    checks = document.gate.checks if document else []
    intervals = {name: _pair(pair) for name, pair in (told.evaluation.get("intervals") or {}).items()}
    lineage = document.lineage if document else None
    return Version(
        version=version.version,
        created=version.created,
        recipe=version.recipe,
        gate_passed=version.gate_passed,
        aliases=version.aliases,
        override=version.override,
        metrics=version.metrics,
        intervals={
            name: (low, high) for name, (low, high) in intervals.items() if low is not None and high is not None
        },
        primary=told.primary,
        checks=[
            Check(metric=one.metric, rule=one.rule, limit=one.limit, value=one.value, passed=one.passed,
                  against=one.against)
            for one in checks
        ],
        compared_with=(document.gate.champion or "") if document else "",
        reasons=document.gate.reasons if document else [],
        data_version=lineage.data_version if lineage else "",
        code_version=lineage.code_version if lineage else "",
        source=lineage.source if lineage else "",
        run=lineage.run if lineage else "",
        digest=version.digest,
        path=version.path,
        files=[name for name in PAGES if document and name in document.files],
        problem=told.problem,
    )  # fmt: skip
