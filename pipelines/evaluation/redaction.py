"""How well personal data is found by the patterns and the tagger that treat a run's data: ``data.pii_labelled``.

A labelled span counts as found where one of its kind shares at least half of what both cover, as what is redacted need
not begin at the same sign; what no finding of any kind covers is leaked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from contracts.pii.finders import Finder, open_finder
from contracts.pii.finding import NAMES, find_all
from contracts.pii.tagged import TYPES
from contracts.problems.tagging import Labelled, labelled

if TYPE_CHECKING:
    from pipelines.task import DataConfig

ALL = "all"
TEXT, SPANS = "text", "spans"  # columns of the file


def measure(data: DataConfig) -> dict[str, Any]:
    """Counts and shares by kind, and of all, as JSON values; nothing of a text.

    Raises:
        PlatformError: the file cannot be read, or labels what is no kind of personal data.
    """
    from pipelines.data.origins import source_here

    with source_here(data.pii_labelled, "evaluate") as here:
        texts, spans = _read(Path(here))
    finder = open_finder(data.tagger)
    told = compared(texts, spans, finder)
    return {"texts": len(texts), "finder": finder.name if finder else "", "kinds": told}


def compared(
    texts: Sequence[str], spans: Sequence[Sequence[Labelled]], finder: Finder | None = None
) -> dict[str, dict[str, Any]]:
    """By kind, and for `ALL`: spans that are there, said and hit, `recall`, `precision`, `f1`, and characters `leaked`.

    Args:
        spans: their types are kinds.
    """
    counts: dict[str, Counter[str]] = {}
    kinds = {kind for truth in spans for _, _, kind in truth}  # of others the texts do not say where they are
    for truth, said in zip(spans, find_all(texts, finder=finder), strict=True):
        given = [(one.start, one.end, one.kind.name) for one in said]
        for kind, what, times in _one_text(truth, given, kinds):
            for name in (kind, ALL):
                counts.setdefault(name, Counter())[what] += times
    there = {name: one for name, one in counts.items() if one["there"]}
    return {name: _shares(there[name]) for name in sorted(there, key=lambda name: (name == ALL, name))}


def _one_text(
    truth: Sequence[Labelled], given: Sequence[Labelled], kinds: Collection[str]
) -> Iterator[tuple[str, str, int]]:
    free = [one for one in given if one[2] in kinds]
    for _, _, kind in free:
        yield kind, "said", 1
    for start, end, kind in truth:
        yield kind, "there", 1
        yield kind, "signs", end - start
        covered = sum(max(0, min(end, stop) - max(start, begin)) for begin, stop, _ in given)
        yield kind, "left", end - start - covered
        for one in free:
            shared = min(end, one[1]) - max(start, one[0])
            if one[2] == kind and 2 * shared >= max(end, one[1]) - min(start, one[0]):
                free.remove(one)
                yield kind, "hit", 1
                break


def _shares(one: Mapping[str, int]) -> dict[str, Any]:
    there, said, hit = one["there"], one["said"], one["hit"]
    return {
        "there": there,
        "said": said,
        "hit": hit,
        "recall": hit / there,
        "precision": hit / said if said else None,
        "f1": 2 * hit / (there + said),
        "leaked": one["left"] / one["signs"],
    }


def _read(path: Path) -> tuple[list[str], list[list[Labelled]]]:
    from pipelines.data import forgotten
    from pipelines.data.chunks import TextFormat
    from pipelines.data.sources import column_names, read_chunks

    form = TextFormat()
    names = column_names(path, form)
    if missing := [name for name in (TEXT, SPANS) if name not in names]:
        raise _wrong(path, f"has no column {missing[0]!r}", f"columns: {', '.join(names[:20])}")
    texts: list[str] = []
    spans: list[list[Labelled]] = []
    for chunk in map(forgotten.without, read_chunks(path, names, form)):
        values = (chunk.table.column(name).to_pylist() for name in (TEXT, SPANS))
        for row, (text, value) in enumerate(zip(*values, strict=True), len(texts) + 1):
            try:
                found = labelled(value or "")
            except ValueError as err:
                raise _wrong(path, f"row {row}: {SPANS} is no list of spans", str(err)[:200]) from err
            if unknown := sorted({kind for _, _, kind in found if _kind(kind) is None}):
                known = ", ".join([*NAMES, *TYPES])
                raise _wrong(path, f"row {row}: {unknown[0]!r} is no kind of personal data", f"known: {known}")
            texts.append(text or "")
            spans.append([(start, end, str(_kind(kind))) for start, end, kind in found])
    if not any(spans):
        raise _wrong(path, "labels nothing", f"{len(texts)} texts")
    return texts, spans


def _kind(name: str) -> str | None:
    return name if name in NAMES else TYPES.get(name.upper())


def _wrong(path: Path, what: str, detail: str) -> PlatformError:
    return PlatformError(
        f"data.pii_labelled: {path.name} {what}",
        detail=detail,
        fix='give JSON lines such as {"text": "I am Ann", "spans": [[5, 8, "name"]]}',
        code="bad_source",
    )
