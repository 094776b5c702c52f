"""An image file without what is no picture: its pixels stay, to the bit where they need not be turned."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

_ORIENTATION = 0x0112  # of EXIF
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
# Segments of JPEG that decide about pixels are all but APP1-13 and 15 and comments; APP0 and 14 say which colors.
_JPEG_DROPPED = frozenset([*range(0xE1, 0xEE), 0xEF, 0xFE])
_SCAN, _END = 0xDA, 0xD9
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def stripped(content: bytes, kind: str, turned: Image.Image) -> bytes:
    """The file without metadata and without bytes behind its end.

    JPEG and PNG lose the parts that hold it, and nothing else. Other kinds, what had to be turned, and what is written
    in an unusual way become a PNG of the first frame: `turned`, the decoded image.
    """
    try:
        if kind == "JPEG" and not _is_turned(content):
            return _jpeg(content)
        if kind == "PNG" and not _is_turned(content):
            return _png(content)
        if kind == "WEBP" and content[12:16] in (b"VP8 ", b"VP8L"):  # the simple forms have no place for metadata
            return content[: 8 + int.from_bytes(content[4:8], "little")]
    except (IndexError, ValueError):
        pass
    return _written(turned)


def _is_turned(content: bytes) -> bool:
    from PIL import Image

    orientation: int = Image.open(io.BytesIO(content)).getexif().get(_ORIENTATION, 1)
    return orientation != 1


def _written(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    usual = image.mode in ("1", "L", "LA", "P", "RGB", "RGBA")
    plain = image.copy() if usual else image.convert("RGB")
    plain.info = {key: value for key, value in plain.info.items() if key == "transparency"}
    plain.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def _jpeg(content: bytes) -> bytes:
    """Raises:
    ValueError, IndexError: it is not written as the standard says.
    """
    kept, at = [content[:2]], 2
    while True:
        if content[at] != 0xFF:
            raise ValueError(at)
        while content[at + 1] == 0xFF:  # fill bytes
            at += 1
        marker = content[at + 1]
        if marker == _END:
            return b"".join([*kept, content[at : at + 2]])
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        if marker == _SCAN:
            found = _NEXT_MARKER.search(content, end)
            if found is None:
                raise ValueError(at)
            end = found.start()
        if marker not in _JPEG_DROPPED:
            kept.append(content[at:end])
        at = end


def _png(content: bytes) -> bytes:
    """Raises:
    ValueError: it is not written as the standard says.
    """
    kept, at = [_PNG_START], len(_PNG_START)
    while at + 12 <= len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4], "big")
        name = content[at + 4 : at + 8]
        if name in _PNG_KEPT:
            kept.append(content[at:end])
        if name == b"IEND":
            return b"".join(kept)
        at = end
    raise ValueError(at)
