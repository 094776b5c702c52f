"""Files of lines that one process appends to while others read them."""

from __future__ import annotations

from pathlib import Path


def append(file: Path, lines: bytes) -> None:
    """Add whole lines; a line that an earlier process left half is ended first, so that it spoils no other.

    Raises:
        OSError: nothing of `lines` is in the file.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab+", buffering=0) as stream:
        before = stream.seek(0, 2)
        if before:
            stream.seek(before - 1)
            if stream.read(1) != b"\n":
                lines = b"\n" + lines
        try:
            if stream.write(lines) != len(lines):
                raise OSError(28, "disk full")
        except OSError:
            stream.truncate(before)  # a full disk takes part of a line
            raise
