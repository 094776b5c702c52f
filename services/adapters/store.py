"""Adapters in a folder or in S3, the place that says which version is the last::

<folder>/<model>/<2 digits>/<entity>/<base, 12 digits>/<version>.safetensors

All that is of one entity lies below one prefix, whatever the base, so that it is deleted whole. An adapter that is
nobody's, and has a name that everybody may know, has ``named-`` and its name in the place of an entity's hash.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

from contracts import storage
from contracts.numbered import NumberedBytes

_SUFFIX = ".safetensors"
_NAMED = "named-"
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, kw_only=True)
class Kept:
    """The last version of an entity's adapter.

    Attributes:
        version: 0 where there is none.
        others: whether the entity has one of another base.
    """

    version: int
    data: bytes
    others: bool = False


class AdapterStore:
    """The adapters of one model over one base.

    Args:
        folder: a folder, or s3://bucket/prefix.
        base: digest of the bundle.
    """

    def __init__(self, folder: str, model: str, base: str) -> None:
        self.folder = _absolute(folder)
        self._model, self._base = model, base[:12]

    def last(self, entity: str) -> Kept:
        """The last version of an entity's adapter.

        Raises:
            PlatformError: the storage's own.
        """
        version, data = self._of(entity).last_bytes()
        return Kept(version=version, data=data, others=not version and bool(bases_of(self.folder, self._model, entity)))

    def version(self, entity: str) -> int:
        """The number of the last version; 0 where there is none.

        Raises:
            PlatformError: the storage's own.
        """
        return self._of(entity).last_number()

    def put(self, entity: str, version: int, data: bytes) -> bool:
        """Make this the version that follows the last; False where another one went on meanwhile, or forgot them.

        Raises:
            PlatformError: the storage's own.
        """
        try:
            return self._of(entity).put_bytes(version, data)
        except FileNotFoundError:  # the folder was removed with what was in it, while this was being written
            return self._of(entity).put_bytes(version, data)

    def named(self) -> list[str]:
        """The names of adapters that have one, over this base."""
        return names_of(self.folder, self._model, self._base)

    @staticmethod
    def is_name(name: str) -> bool:
        """Whether an adapter can be called so: small letters, digits and hyphens, at most 63."""
        return _NAME.fullmatch(name) is not None

    @staticmethod
    def entity_of(name: str) -> str:
        """What stands for an adapter with a name in the place of an entity's hash."""
        return f"{_NAMED}{name}"

    def _of(self, entity: str) -> NumberedBytes:
        return NumberedBytes(storage.join(self._home(entity), self._base), _SUFFIX)

    def _home(self, entity: str) -> str:
        return home(self.folder, self._model, entity)


def home(folder: str, model: str, entity: str) -> str:
    """Below what all adapters of an entity lie."""
    return storage.join(folder, model, entity[:2], entity)


def bases_of(folder: str, model: str, entity: str) -> list[str]:
    """The bases, by 12 digits, over which an entity has an adapter."""
    place = home(_absolute(folder), model, entity)
    bases = storage.list_names(place)
    return [base for base in bases if NumberedBytes(storage.join(place, base), _SUFFIX).last_bytes()[0]]


def names_of(folder: str, model: str, base: str = "") -> list[str]:
    """The adapters of a model that have names, sorted; of one base alone where its 12 digits are given."""
    place = storage.join(_absolute(folder), model, _NAMED[:2])

    def has_one(entity: str) -> bool:
        bases = [base] if base else storage.list_names(storage.join(place, entity))
        return any(storage.list_names(storage.join(place, entity, one)) for one in bases)

    return [entity.removeprefix(_NAMED) for entity in storage.list_names(place) if has_one(entity)]


def remove_all(folder: str, model: str, entity: str) -> int:
    """Remove the adapters of an entity over every base, those that are written meanwhile as well; how many there were.

    Raises:
        PlatformError: the storage's own.
    """
    place = home(_absolute(folder), model, entity)
    count = sum(NumberedBytes(storage.join(place, base), _SUFFIX).remove() for base in storage.list_names(place))
    if not storage.is_remote(place):
        with contextlib.suppress(OSError):  # one of another process is just being written
            for base in Path(place).iterdir():
                base.rmdir()
            Path(place).rmdir()
    return count


def _absolute(folder: str) -> str:
    return folder if storage.is_remote(folder) else str(Path(folder).expanduser().absolute())
