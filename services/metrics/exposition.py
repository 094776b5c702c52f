"""The formats in which Prometheus reads metrics, and which of them a scraper's ``accept`` header asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

# Our names are of the old alphabet, so that every way to escape others gives the same text.
_ESCAPINGS = ("allow-utf-8", "underscores", "dots", "values")


@dataclass(frozen=True)
class Format:
    """A format by its media type and its version; `escapes` tells whether its type names how names are escaped."""

    media: str
    version: str
    write: Callable[[CollectorRegistry], bytes]
    escapes: bool = False


_FORMATS = (
    Format("application/openmetrics-text", "1.0.0", openmetrics.generate_latest, escapes=True),
    Format("application/openmetrics-text", "0.0.1", openmetrics.generate_latest),
    Format("text/plain", "0.0.4", generate_latest),
    Format("text/plain", "1.0.0", generate_latest, escapes=True),
)
_DEFAULT = _FORMATS[2]  # what every scraper reads


@dataclass(frozen=True)
class _Range:
    """One element of an ``accept`` header."""

    media: str
    parameters: dict[str, str]
    quality: float


def expose(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """The metrics in the best format that `accept` asks for, and its content type; else in text 0.0.4."""
    asked = sorted(_ranges(accept), key=lambda one: -one.quality)  # of equal ones the first
    refused = [one for one in asked if one.quality == 0]
    for one in asked:
        if one.quality > 0 and (found := _first(one, refused)):
            escaping = one.parameters.get("escaping")
            told = f"; escaping={escaping}" if found.escapes and escaping in _ESCAPINGS else ""
            return found.write(registry), _content_type(found) + told
    return _DEFAULT.write(registry), _content_type(_DEFAULT)


def _first(one: _Range, refused: list[_Range]) -> Format | None:
    if one.media in ("*/*", "text/*"):
        formats: tuple[Format, ...] = (_DEFAULT,)
    else:
        formats = _FORMATS
    fitting = (item for item in formats if _fits(item, one))
    return next((item for item in fitting if not any(_fits(item, no) and "*" not in no.media for no in refused)), None)


def _fits(item: Format, one: _Range) -> bool:
    kind = item.media.partition("/")[0]
    version = one.parameters.get("version", item.version)
    return one.media in (item.media, f"{kind}/*", "*/*") and version == item.version


def _content_type(item: Format) -> str:
    return f"{item.media}; version={item.version}; charset=utf-8"


def _ranges(accept: str) -> Iterator[_Range]:
    for part in accept.split(","):
        media, *rest = (piece.strip() for piece in part.split(";"))
        pairs = (piece.partition("=") for piece in rest)
        parameters = {name.strip().lower(): value.strip().strip('"').lower() for name, _, value in pairs}
        yield _Range(media.lower(), parameters, _quality(parameters.pop("q", "1")))


def _quality(text: str) -> float:
    try:
        return min(max(float(text), 0.0), 1.0)
    except ValueError:
        return 0.0
