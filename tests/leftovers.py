"""Every byte that something left on a disk, also inside of packed files."""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path


def contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file below `folder`; of packed ones what is in them too."""
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        raw = file.read_bytes()
        yield str(file), f"{file}\n".encode() + raw
        if raw[:4] == b"PAR1":
            from pyarrow import parquet

            table = parquet.read_table(file)
            yield (
                f"{file} (rows)",
                "\n".join(str(table.column(at).to_pylist()) for at in range(table.num_columns)).encode(),
            )
        elif raw[:2] == b"\x1f\x8b":
            yield f"{file} (unpacked)", gzip.decompress(raw)
        elif raw[:4] == b"PK\x03\x04":
            with zipfile.ZipFile(file) as packed:
                for name in packed.namelist():
                    yield f"{file}:{name}", packed.read(name)


def left(folder: Path, words: Iterable[str]) -> dict[str, list[str]]:
    """By word, written in any case or escaped as JSON does, the files that have it."""
    forms = {word: {word.casefold().encode(), word.encode("unicode_escape").lower()} for word in words}
    found: dict[str, list[str]] = {}
    for name, content in contents(folder):
        text = content.lower()
        for word, written in forms.items():
            if any(form in text for form in written):
                found.setdefault(word, []).append(name)
    return found
