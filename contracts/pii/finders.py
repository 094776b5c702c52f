"""What finds names, places and organisations: a tagger's bundle, or Presidio where it is installed.

It is named by value: the folder of a bundle, here or in S3, ``presidio``, ``presidio:de`` for another language than
English, or ``presidio:FILE.yaml`` for a configuration of its own. With ``#NAME`` behind it must be the one that has
this name: so a model says which one its data were treated by.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from contracts.errors import PlatformError
from contracts.pii.kind import Kind
from contracts.pii.tagged import TYPES, kind_named

Place = tuple[int, int, Kind]  # start, end and kind
_AT_ONCE = 64  # texts


class Finder(Protocol):
    """Finds kinds that have no form.

    Attributes:
        name: tells two apart, in versions of data.
    """

    name: str

    def places(self, texts: Sequence[str]) -> list[list[Place]]:
        """Of each text, in characters."""
        ...


@lru_cache(maxsize=8)
def open_finder(where: str) -> Finder | None:
    """The finder that `where` names; None for "".

    Raises:
        PlatformError: ``code="bad_tagger"``: it is no tagger, or gives what is no kind of personal data;
            ``code="missing_package"``: Presidio is not installed; as `contracts.bundle.read_bundle` does.
    """
    place, _, wanted = where.partition("#")
    if not place:
        return None
    name, _, language = place.partition(":")
    found: Finder
    if name == "presidio":
        from contracts.pii.presidio import Presidio

        found = Presidio(language or "en")
    else:
        found = BundleFinder(place)
    if wanted and found.name != wanted:
        raise PlatformError(
            f"{place} is not the tagger that the data were treated by",
            detail=f"this is {found.name}, that was {wanted}",
            fix="give the same one, or train again with this one",
            code="bad_tagger",
        )
    return found


def pinned(where: str) -> str:
    """`where` with the name of what is there now."""
    finder = open_finder(where)
    return f"{where.partition('#')[0]}#{finder.name}" if finder else ""


class BundleFinder:
    """See `Finder`: the tagger of a bundle, verified."""

    def __init__(self, where: str) -> None:
        from contracts import storage
        from contracts.bundle import DOCUMENT, read_bundle
        from contracts.engines import load_engine

        folder = Path(where).expanduser()
        if storage.is_remote(where):
            self._here = tempfile.TemporaryDirectory(prefix="fairlead-tagger-")  # as long as the finder lives
            folder = storage.download(where, Path(self._here.name) / "bundle", last=DOCUMENT)
        bundle = read_bundle(folder)
        output: Any = bundle.document.signature.output
        if output.problem != "tagging":
            raise PlatformError(
                f"{where} is no tagger",
                detail=f"its answers are of problem {output.problem}",
                fix="give the bundle of a model whose answers are spans, such as that of task names",
                code="bad_tagger",
            )
        self.name = f"{bundle.document.name}@{bundle.digest[:16]}"
        self._kinds = kinds_of(output.types, where)
        self._engine: Any = load_engine(bundle)

    def places(self, texts: Sequence[str]) -> list[list[Place]]:
        """See `Finder`."""
        found: list[list[Place]] = []
        for start in range(0, len(texts), _AT_ONCE):
            for spans in self._engine.tag(texts[start : start + _AT_ONCE]):
                found.append([(one.start, one.end, self._kinds[one.kind]) for one in spans])
        return found


def kinds_of(types: Iterable[str], where: str) -> Mapping[str, Kind]:
    """The kind of each type of a model.

    Raises:
        PlatformError: ``code="bad_tagger"``, naming a type that none is known for.
    """
    if unknown := sorted(name for name in types if name.upper() not in TYPES):
        raise PlatformError(
            f"{where} finds {unknown[0]!r}, which is no kind of personal data here",
            detail=f"known: {', '.join(sorted(TYPES))}",
            fix="name the types of the labels as one of these, and train again",
            code="bad_tagger",
        )
    return {name: kind_named(TYPES[name.upper()]) for name in types}
