"""Presidio (Microsoft, MIT) as a finder, for those who have it; it is no dependency, and is imported here alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from contracts.errors import PlatformError
from contracts.pii.tagged import KINDS, TYPES, kind_named

_PACKAGE = "presidio-analyzer"
_ASKED = frozenset(kind.name for kind in KINDS) - {"domain"}
_FILES = (".yaml", ".yml")


class Presidio:
    """See `contracts.pii.finders.Finder`: what Presidio's analyser finds of the kinds that have no form.

    It is not asked about e-mail and addresses of the web: patterns here find them, and Presidio's own recognisers fetch
    a list of domains from the internet.

    Args:
        how: a language, whose model its default configuration names, or the path of a configuration of its own (YAML).

    Raises:
        PlatformError: ``code="missing_package"``: it, or its model of the language, is not installed.
    """

    def __init__(self, how: str) -> None:
        try:
            from presidio_analyzer import AnalyzerEngine, AnalyzerEngineProvider
        except ImportError as err:
            raise _missing(f"{err.name} is not installed", how) from err
        try:
            self._engine: Any = (
                AnalyzerEngineProvider(analyzer_engine_conf_file=how).create_engine()
                if how.endswith(_FILES)
                else AnalyzerEngine(supported_languages=[how])
            )
        except (OSError, ValueError, SystemExit) as err:  # spaCy ends the process where a model cannot be fetched
            raise _missing(f"it cannot start: {str(err)[:200]}", how) from err
        self._language: str = self._engine.supported_languages[0]
        there = self._engine.get_supported_entities(self._language)
        self._kinds = {name: kind_named(TYPES[name]) for name in there if TYPES.get(name) in _ASKED}
        told = hashlib.sha256(Path(how).read_bytes()).hexdigest()[:8] if how.endswith(_FILES) else how
        try:
            self.name = f"presidio-{version(_PACKAGE)}-{told}"
        except PackageNotFoundError:
            self.name = f"presidio-{told}"

    def places(self, texts: Sequence[str]) -> list[list[Any]]:
        """See `Finder`; of spans that overlap the one with the highest score, then the longest."""
        return [self._of(text) for text in texts]

    def _of(self, text: str) -> list[Any]:
        if not self._kinds:
            return []
        found = self._engine.analyze(text=text, language=self._language, entities=list(self._kinds))
        kept: list[Any] = []
        for one in sorted(found, key=lambda one: (-one.score, one.start - one.end, one.start)):
            kind = self._kinds.get(one.entity_type)
            if kind and all(one.end <= start or end <= one.start for start, end, _ in kept):
                kept.append((one.start, one.end, kind))
        return sorted(kept, key=lambda place: place[0])


def _missing(detail: str, how: str) -> PlatformError:
    return PlatformError(
        "Presidio cannot be used here",
        detail=detail,
        fix=f"pip install {_PACKAGE}, and the model of spaCy that its configuration for {how!r} names, "
        "beforehand; or use a tagger of your own: fairlead run names",
        code="missing_package",
    )
