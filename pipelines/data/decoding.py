"""Bytes of a file to UTF-8, and what an unknown file looks like: its encoding, its delimiter."""

from __future__ import annotations

import codecs
import csv
import io
import re
from pathlib import Path
from typing import Any

from contracts.errors import PlatformError
from pipelines.settings import setting

_MARKS = (  # longest first: the mark of UTF-32 begins as that of UTF-16 does
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_GUESSED = ("gb18030", "big5", "shift_jis", "euc_kr", "cp1251", "cp1252")
_DELIMITERS = (";", "\t", "|", ",")
_SAMPLE = 64 << 10  # bytes that a guess looks at
_EVIDENCE = 6  # bytes beyond ASCII
_WESTERN = re.compile(
    rb"(?:[\x00-\x7f]|(?<=[A-Za-z])[\xc0-\xd6\xd8-\xf6\xf8-\xfe]|[\xc0-\xd6\xd8-\xf6\xf8-\xfe](?=[A-Za-z]))*"
)
_LOST = "fairlead-lost"  # error handler: what cannot be decoded stays a byte that is no UTF-8 either


def _keep(err: UnicodeError) -> tuple[str, int]:
    assert isinstance(err, UnicodeDecodeError)
    lost = err.object[err.start : err.end] or b"\xff"
    return "".join(chr(0xDC00 + max(byte, 0x80)) for byte in lost), max(err.end, err.start + 1)


codecs.register_error(_LOST, _keep)


def encoding_of(start: bytes, encoding: str) -> str:
    """The encoding of a file that begins with `start`: as it was named, else by its byte order mark, else UTF-8.

    Raises:
        PlatformError: ``code="bad_config"`` for a name that is no encoding.
    """
    marked = next((name for mark, name in _MARKS if start.startswith(mark)), "")
    if not encoding:
        return marked or "utf-8"
    try:
        known = codecs.lookup(encoding)
    except LookupError:
        raise PlatformError(
            f"data.encoding: {encoding!r} is no encoding",
            detail="for example utf-8, utf-16, gb18030, big5, shift_jis, cp1252 or latin-1",
            fix="name one of these; what a file looks like is shown by: fairlead data inspect FILE",
            code="bad_config",
        ) from None
    if not getattr(known, "_is_text_encoding", True):
        raise PlatformError(
            f"data.encoding: {encoding!r} is no encoding of text",
            fix="name the encoding of the file",
            code="bad_config",
        )
    if marked and not known.name.startswith(marked.removesuffix("-sig")):
        raise PlatformError(
            f"the file is not {encoding}: it begins with the byte order mark of {marked.removesuffix('-sig').upper()}",
            fix=setting("data.encoding", marked.removesuffix("-sig")),
            code="bad_encoding",
        )
    return marked or known.name.removesuffix("-sig").replace("_", "-")


class Transcoded(io.RawIOBase):
    """A stream of `encoding` as UTF-8; bytes that are none of it come out as bytes that are no UTF-8."""

    def __init__(self, stream: Any, encoding: str) -> None:
        self._stream, self._ready = stream, b""
        self._decoder = codecs.getincrementaldecoder(encoding)(errors=_LOST)
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready and not self._ended:
            block = self._stream.read(1 << 20)
            self._ended = not block
            text = self._decoder.decode(block, final=self._ended)
            self._ready = text.encode("utf-8", "surrogateescape")
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()


def guess_encoding(sample: bytes) -> str:
    """What text that is not UTF-8 most likely is; "" when nothing fits.

    Only lines that are no UTF-8 are looked at: in a file that is mostly ASCII they would not weigh.
    """
    from charset_normalizer import from_bytes

    if marked := next((name for mark, name in _MARKS if sample.startswith(mark)), ""):
        return marked
    sample = sample[:_SAMPLE]
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    if max(even, odd) > len(sample) / 10:  # ASCII in UTF-16 is every other byte a zero
        return "utf-16-le" if odd > even else "utf-16-be"
    lines = b"\n".join(line for line in sample.splitlines()[:2000] if not is_in(line + b"\n", "utf-8"))
    if sum(byte > 0x7F for byte in lines) < _EVIDENCE:
        # So little text says nothing by its frequencies; a letter within a word is what Western code pages have.
        return "cp1252" if lines and _WESTERN.fullmatch(lines) else ""
    best = from_bytes(lines, cp_isolation=list(_GUESSED)).best() if lines else None
    if best is None:
        return ""
    # Signs between letters: the same bytes are letters in Central Europe's code page.
    if best.encoding == "cp1252" and re.search(r"[^\W\d_][\u00a1-\u00bf\u00d7\u00f7][^\W\d_]", str(best)):
        return "cp1250"
    return str(best.encoding)


def guess_delimiter(text: str, delimiter: str) -> str:
    """The delimiter that gives the first lines of `text` the same number of columns; "" when `delimiter` does as well.

    `text` may end within a line.
    """
    found = {sign: _columns(text, sign) for sign in dict.fromkeys((*_DELIMITERS, delimiter))}
    best = max(found, key=lambda sign: found[sign])
    return best if found[best] > max(found[delimiter], 1) else ""


def _columns(text: str, delimiter: str) -> int:
    """Columns of the first lines, when nearly all have as many; else 0."""
    try:
        rows = [len(row) for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row][:50]
    except csv.Error:
        return 0
    rows = rows[:-1] or rows
    return rows[0] if rows and rows.count(rows[0]) >= 0.9 * len(rows) else 0


def is_in(sample: bytes, encoding: str) -> bool:
    """Whether all bytes are text in `encoding`; `sample` may end within a character."""
    try:
        codecs.getincrementaldecoder(encoding)().decode(sample)
    except UnicodeDecodeError:
        return False
    return True


def not_this_encoding(path: Path, encoding: str, sample: bytes, detail: str, guess: str = "") -> PlatformError:
    """The error for a file that is not in `encoding`, with the setting for what it looks like."""
    guess = guess or guess_encoding(sample)
    named = encoding or "UTF-8"
    look = f"; it looks like {guess.upper()}" if guess else ""
    return PlatformError(
        f"{path.name} is not {named}{look}",
        detail=detail,
        fix=setting("data.encoding", guess or "NAME"),
        code="bad_encoding",
        file=str(path),
        encoding=guess,
    )
