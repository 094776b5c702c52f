"""The head of a GGUF file: what it says of its model, and the shapes of its tensors; weights are not read."""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.errors import PlatformError

MAGIC = b"GGUF"
_KINDS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_KEPT = 4096  # numbers of an array; longer ones, and those of texts, are passed over
_MANY = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Head:
    """What a file says of itself.

    Attributes:
        fields: by name; of arrays of numbers a tuple, of other arrays their length.
        shapes: of tensors by name, as rows and columns.
        size: bytes of the file.
    """

    fields: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    size: int

    def of_model(self, name: str, default: Any = None) -> Any:
        """A field of the file's architecture, such as ``block_count``."""
        return self.fields.get(f"{self.fields.get('general.architecture', '')}.{name}", default)


def read_head(file: Path) -> Head:
    """The head of a file.

    Raises:
        PlatformError: ``code="bad_weights"``: there is none, or it is cut short.
    """
    try:
        with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(data).head()
    except (OSError, struct.error, ValueError, IndexError, UnicodeDecodeError) as err:
        detail = (
            err.strerror if isinstance(err, OSError) and err.strerror else f"its head is cut short or broken: {err}"
        )
        fix = "give a whole GGUF file"
        raise PlatformError(f"weights refused: {file}", detail=detail, fix=fix, code="bad_weights") from err


class _Reader:
    def __init__(self, data: Any) -> None:
        self._data, self._at = data, 0

    def head(self) -> Head:
        if self._data[:4] != MAGIC:
            raise ValueError(f"it begins with {bytes(self._data[:4])!r}")
        self._at = 4
        version, tensors, fields = self._take("<IQQ")
        if version < 2 or tensors > _MANY or fields > _MANY:
            raise ValueError(f"version {version}, {tensors} tensors, {fields} fields")
        found = {}
        for _ in range(fields):
            name = self._text()
            found[name] = self._value(self._one("<I"))
        shapes = {}
        for _ in range(tensors):
            name = self._text()
            sides = self._one("<I")
            shapes[name] = tuple(reversed(self._take(f"<{sides}Q")))
            self._take("<IQ")
        return Head(fields=found, shapes=shapes, size=len(self._data))

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._text()
        if kind != _ARRAY:
            return self._one(f"<{_KINDS[kind]}")
        inner, count = self._take("<IQ")
        if inner in _KINDS and count <= _KEPT:
            return self._take(f"<{count}{_KINDS[inner]}")
        if inner == _STRING:
            for _ in range(count):
                self._at += 8 + struct.unpack_from("<Q", self._data, self._at)[0]
        elif inner in _KINDS:
            self._at += count * struct.calcsize(f"<{_KINDS[inner]}")
        else:
            raise ValueError(f"an array of kind {inner}")
        return count

    def _text(self) -> str:
        size = self._one("<Q")
        if size > len(self._data) - self._at:
            raise ValueError("a text goes beyond its end")
        found = bytes(self._data[self._at : self._at + size]).decode()
        self._at += size
        return found

    def _one(self, form: str) -> Any:
        return self._take(form)[0]

    def _take(self, form: str) -> tuple[Any, ...]:
        found = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return found
