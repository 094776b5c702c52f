"""Rooms: named objects that are found in modules of a package here, and in other packages by their entry points.

A room of our own is a module with one object of an agreed name. Another package adds one in its pyproject.toml::

    [project.entry-points."fairlead.problems"]
    ranking = "my_package.ranking:PROBLEM"

Nothing is imported before it is asked for by name.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from contracts.errors import PlatformError


class Rooms:
    """The rooms of one kind, such as all problems.

    Args:
        kind: in messages, and, in the plural, in the name of the entry points, such as ``fairlead.problems``.
        package: whose modules are rooms, but for ``base``.
        attribute: the object's name in a module.
        folders: rooms are packages instead of modules.
        module: of the packages that are rooms, which has the object; empty: the package has it itself.
    """

    def __init__(self, kind: str, package: str, attribute: str, *, folders: bool = False, module: str = "") -> None:
        self.kind, self.package, self.attribute, self.folders = kind, package, attribute, folders
        self._module = f".{module}" if module else ""
        self._file = f"*/{module or '__init__'}.py"

    def names(self) -> list[str]:
        """Names of all rooms, our own and those of other packages, sorted."""
        return sorted({*self._own(), *self._entries()})

    def entries(self) -> dict[str, EntryPoint]:
        """The entry points of other packages' rooms by their names; none has the name of one of ours."""
        own = self._own()
        return {name: found for name, found in self._entries().items() if name not in own}

    def get(self, name: str) -> Any:
        """The object of a room. One of ours is never replaced by another package's.

        Raises:
            PlatformError: ``code="unknown_<kind>"``, with the names that are known; ``code="bad_plugin"`` when the
                package that has it cannot be imported.
        """
        if name in self._own():
            return getattr(importlib.import_module(f"{self.package}.{name}{self._module}"), self.attribute)
        other = self._entries().get(name)
        if other is None:
            near = difflib.get_close_matches(name, self.names(), 1)
            raise PlatformError(
                f"unknown {self.kind} {name!r}",
                detail=f"known: {', '.join(self.names())}",
                fix=f"did you mean {near[0]}?" if near else "install the package that has it",
                code=f"unknown_{self.kind}",
            )
        try:
            return other.load()
        except (ImportError, AttributeError) as err:
            package = other.dist.name if other.dist else other.value
            raise PlatformError(
                f"{self.kind} {name!r} of package {package} cannot be loaded",
                detail=f"{other.value}: {err}",
                fix=f"pip install --force-reinstall {package}, or ask who made it",
                code="bad_plugin",
            ) from err

    def _entries(self) -> dict[str, EntryPoint]:
        plural = f"{self.kind[:-1]}ies" if self.kind.endswith("y") else f"{self.kind}s"
        return _others(f"fairlead.{plural}", tuple(sys.path))

    def _own(self) -> set[str]:
        folder = Path(str(importlib.import_module(self.package).__file__)).parent
        if self.folders:
            return {file.parent.name for file in folder.glob(self._file)}
        return {file.stem for file in folder.glob("*.py")} - {"__init__", "base"}


def part_of(module: str, attribute: str, *, headline: str, fix: str, code: str) -> Any:
    """What another layer adds to a room: the object `attribute` of `module`.

    Raises:
        PlatformError: with these words, when there is no such module or object.
    """
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as err:
        raise PlatformError(headline, detail=f"{module}: {err}", fix=fix, code=code) from err


@lru_cache
def _others(group: str, path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """Entry points of a group by their names; `path` is where packages are looked for, so that a new place counts."""
    return {found.name: found for found in entry_points(group=group)}
