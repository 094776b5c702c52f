"""Texts of a home that name somebody: logs, reports, events of runs. Tables are others' work."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

_SHORTEST, _SHORTEST_NUMBER = 5, 8  # characters of a key that is no other word, and of one that is all digits
_TABLES = frozenset({".parquet", ".npy", ".onnx", ".png", ".bin", ".safetensors", ".gguf"})


class Traces:
    """Files below `home` in which a key stands as a word of its own.

    Attributes:
        distinct: whether the key can be told from other words and numbers; else nothing is looked for.
    """

    def __init__(self, home: Path, text: str) -> None:
        self._home = home
        marked = any(sign.isdigit() or sign == "@" for sign in text)  # else it may be a word of ours
        self.distinct = marked and len(text) >= (_SHORTEST_NUMBER if text.isdigit() else _SHORTEST)
        word = re.escape(text.encode())
        # Beside letters of other scripts and behind JSON's escapes it is a word too.
        self._word = re.compile(rb"(?<![A-Za-z0-9_-])" + word + rb"(?![A-Za-z0-9_-])")

    def look(self, *, overwrite: bool, skip: str = "") -> tuple[int, list[str]]:
        """How many files name the key, and those that still do.

        `overwrite` puts as many x in its place, so that files keep their sizes and open logs go on; files of a bundle
        are named by their content, and databases are not ours to write into: they stay, and are named, but for the
        database `skip`.
        """
        if not self.distinct:
            return 0, []
        named, left = 0, []
        for file in self._files():
            places = [found.span() for found in self._word.finditer(_content(file))]
            if not places:
                continue
            if self._is_kept(file):
                if skip and str(file).startswith(skip):
                    continue
                left.append(str(file))
                continue
            named += 1
            if overwrite:
                with file.open("r+b") as stream:
                    for start, end in places:
                        stream.seek(start)
                        stream.write(b"x" * (end - start))
        return named, left

    def _files(self) -> Iterator[Path]:
        for file in sorted(self._home.rglob("*")):
            if file.is_file() and not file.is_symlink() and file.suffix not in _TABLES:
                yield file

    def _is_kept(self, file: Path) -> bool:
        is_database = file.suffix == ".db" or file.name.endswith((".db-wal", ".db-shm", ".db-journal"))
        return is_database or "bundles" in file.relative_to(self._home).parts


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:  # a log that was just replaced
        return b""
