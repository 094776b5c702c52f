"""Plain texts as rows of a data set: a file is a document, and its pieces, joined, are the file again.

Each piece has an id ``NAME#NUMBER``; its beginning is what a model is asked to go on from, and the text what follows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from pipelines.data.chunks import ROW, Chunk, Rejected, empty

if TYPE_CHECKING:
    from pipelines.task import Task

SUFFIXES = (".txt", ".md")
NAMES = ("id", "beginning", "text")
_PIECE, _BEGINNING = 1_200, 200  # characters, about
_ENDS = ("\n\n", "\n", "。", ". ", " ")  # a piece ends behind one of these, the first that is found
_ROWS = 2_048


def takes_corpus(task: Task, source: str) -> bool:
    """Whether a task reads plain texts, and the source is some: a file, or a folder of them."""
    if not getattr(task, "corpora", False):
        return False
    path = Path(source).expanduser()
    if path.is_dir():
        return any(one.suffix.lower() in SUFFIXES for one in path.rglob("*"))
    return path.suffix.lower() in SUFFIXES


def fingerprint(source: str, encoding: str, report: Callable[..., None]) -> dict[str, Any]:
    """The source as one file of a dataset version: names and bytes of all files, and how they are read."""
    digest, size = hashlib.sha256(f"1|{encoding}".encode()), 0
    for number, (name, path) in enumerate(_files(source), 1):
        raw = path.read_bytes()
        size += len(raw)
        digest.update(f"{name}\0{hashlib.sha256(raw).hexdigest()}\0".encode("utf-8", "surrogatepass"))
        report(number, None, files=number)
    return {"name": Path(source).expanduser().name, "bytes": size, "sha256": digest.hexdigest(), "rows": 0}


def read_corpus(source: str, encoding: str, known: dict[str, Any]) -> Iterator[Chunk]:
    """All pieces as rows, in chunks of bounded memory; a file without a word is rejected.

    Raises:
        PlatformError: ``code="bad_encoding"``: bytes that are none of the encoding; ``code="empty_source"``.
    """
    rows: list[tuple[str, str, str]] = []
    rejected: list[Rejected] = []
    number = 0
    for name, path in _files(source):
        text = _text(path, name, encoding)
        if not text.strip():
            number += 1
            rejected.append(Rejected(number, "text", "", "has no text", file=name))
            continue
        for at, piece in enumerate(pieces(text)):
            number += 1
            begins = _end(piece, min(_BEGINNING, len(piece) // 2))
            rows.append((f"{name}#{at:06d}", piece[:begins], piece[begins:]))
            if len(rows) >= _ROWS:
                yield _chunk(rows, number, rejected)
                rows, rejected = [], []
    if rows or rejected:
        yield _chunk(rows, number, rejected)
    if not number:
        raise empty(source)
    known["rows"] = number


def pieces(text: str) -> list[str]:
    """A text in pieces of about as many characters, which are the text when they are joined."""
    found, start = [], 0
    while len(text) - start > _PIECE * 3 // 2:
        size = _end(text[start : start + _PIECE], _PIECE)
        found.append(text[start : start + size])
        start += size
    return [*found, text[start:]]


def _end(text: str, most: int) -> int:
    """Where a part of at most `most` characters ends: behind a sign that ends something, in its second half."""
    for sign in _ENDS:
        at = text.rfind(sign, most // 2, most)
        if at >= 0:
            return at + len(sign) if at + len(sign) < len(text) else most
    return most


def _text(path: Path, name: str, encoding: str) -> str:
    raw = path.read_bytes()
    try:
        text = raw.decode(encoding or "utf-8-sig")
    except (UnicodeDecodeError, LookupError) as err:
        place = f"byte 0x{raw[err.start]:02x} at position {err.start}" if isinstance(err, UnicodeDecodeError) else err
        raise PlatformError(
            f"{name} is not in the encoding {encoding or 'utf-8'}",
            detail=f"{place} is none of its characters" if isinstance(err, UnicodeDecodeError) else str(err),
            fix="say which it is in: --set data.encoding=gb18030",
            code="bad_encoding",
            file=str(path),
        ) from err
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")


def _files(source: str) -> list[tuple[str, Path]]:
    path = Path(source).expanduser()
    if path.is_file():
        return [(path.name, path)]
    found = sorted((one.relative_to(path).as_posix(), one) for one in path.rglob("*") if one.is_file())
    kept = [(name, one) for name, one in found if not any(part.startswith(".") for part in name.split("/"))]
    if other := [name for name, one in kept if one.suffix.lower() not in SUFFIXES]:
        raise PlatformError(
            f"source has files that are no plain texts: {other[0]}",
            detail=f"accepted beside each other: {', '.join(SUFFIXES)}",
            fix="point at a folder of plain texts alone",
            code="bad_source",
        )
    return kept


def _chunk(rows: list[tuple[str, str, str]], through: int, rejected: list[Rejected]) -> Chunk:
    import pyarrow as pa

    columns = [pa.array([row[at] for row in rows], pa.string()) for at in range(len(NAMES))]
    numbers = pa.array(range(through - len(rows) + 1, through + 1), pa.int64())
    return Chunk(pa.table([*columns, numbers], names=[*NAMES, ROW]), through, rejected)
