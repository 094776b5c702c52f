"""Presidio (Microsoft, MIT) as a finder, for those who have it; it is no dependency, and is imported here alone."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from contracts.errors import PlatformError
from contracts.pii.tagged import TYPES, kind_named

_PACKAGE = "presidio-analyzer"


class Presidio:
    """See `contracts.pii.finders.Finder`: what Presidio's analyser finds, of the types that are kinds here.

    Raises:
        PlatformError: ``code="missing_package"``: it, or its model of the language, is not installed.
    """

    def __init__(self, language: str) -> None:
        try:
            from presidio_analyzer import AnalyzerEngine
        except ImportError as err:
            raise _missing(f"{err.name} is not installed", language) from err
        try:
            self._engine: Any = AnalyzerEngine(supported_languages=[language])
        except (OSError, ValueError, SystemExit) as err:  # spaCy ends the process where a model cannot be fetched
            raise _missing(f"it cannot start: {str(err)[:200]}", language) from err
        self._language = language
        try:
            self.name = f"presidio-{version(_PACKAGE)}-{language}"
        except PackageNotFoundError:
            self.name = f"presidio-{language}"

    def places(self, texts: Sequence[str]) -> list[list[Any]]:
        """See `Finder`; of spans that overlap the one with the highest score, then the longest."""
        return [self._of(text) for text in texts]

    def _of(self, text: str) -> list[Any]:
        found = self._engine.analyze(text=text, language=self._language)
        kept: list[Any] = []
        for one in sorted(found, key=lambda one: (-one.score, one.start - one.end, one.start)):
            name = TYPES.get(one.entity_type)
            if name and all(one.end <= start or end <= one.start for start, end, _ in kept):
                kept.append((one.start, one.end, kind_named(name)))
        return sorted(kept, key=lambda place: place[0])


def _missing(detail: str, language: str) -> PlatformError:
    return PlatformError(
        "Presidio cannot be used here",
        detail=detail,
        fix=f"pip install {_PACKAGE}, and the model of spaCy for {language!r} that its configuration names, "
        "beforehand; or use a tagger of your own: fairlead run names",
        code="missing_package",
    )
