"""Request bodies that arrive packed (``content-encoding``, RFC 9110): unpacked piece by piece, never beyond a limit."""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import Generator, Iterable, Iterator
from typing import Any

from backports import zstd

from services.errors import Problem

CODINGS = ("gzip", "deflate", "zstd")
_MOST_CODINGS = 4  # one over the other
_MOST_MEMBERS = 1024  # of one body: each costs a decoder, and one of nothing is 20 bytes
_STEP = 1 << 16  # bytes that are fed, and got, at once
_WINDOW_LOG = 23  # RFC 9659: a decoder of zstd need not keep more than 8 MiB
_ZEROS = re.compile(rb"\0*")
_DAMAGE = (zlib.error, zstd.ZstdError)


class TooLargeError(Exception):
    """The content is larger than the limit."""


class _Damaged(Exception):  # noqa: N818 - a fact about the body
    """Why a body is not of the coding that its header says."""


def codings_of(values: Iterable[bytes]) -> list[str]:
    """The codings that the ``content-encoding`` headers name, in the order in which they were applied.

    Raises:
        Problem: 415, naming the accepted ones.
    """
    words = [word.strip().lower() for word in b",".join(values).decode("latin-1").split(",")]
    named = [word.removeprefix("x-") if word == "x-gzip" else word for word in words if word not in ("", "identity")]
    accepted = ", ".join(CODINGS)
    if any(word not in CODINGS for word in named):
        raise _refused(f"accepted: {accepted}")
    if len(named) > _MOST_CODINGS:
        raise _refused(f"accepted: at most {_MOST_CODINGS} of {accepted}, one over the other")
    return named


def packed_limit(limit: int) -> int:
    """How large a packed body may be whose content has at most `limit` bytes: what cannot be packed grows a little."""
    return limit + (limit >> 10) + 1024


async def unpack(body: bytes, codings: list[str], limit: int) -> bytes:
    """The content of `body`, of which at most `limit` bytes are ever made; other requests go on meanwhile.

    Raises:
        TooLargeError: the content has more than `limit` bytes.
        Problem: 400: the body is damaged or cut off.
    """
    for at in range(len(codings) - 1, -1, -1):
        try:
            body = await _unpack(body, codings[at], packed_limit(limit) if at else limit)
        except (_Damaged, *_DAMAGE) as err:
            detail = str(err) if isinstance(err, _Damaged) else "its bytes are not of this format"
            raise Problem(
                400,
                "damaged-content",
                f"the request's body is not {codings[at]}, as its header content-encoding says",
                detail,
                fix="pack it again, or send it without the header content-encoding",
            ) from None
    return body


async def _unpack(body: bytes, coding: str, limit: int) -> bytes:
    parts, size = [], 0
    for part in _members(body, coding):
        size += len(part)
        if size > limit:
            raise TooLargeError
        parts.append(part)
        if len(parts) % 4 == 0:
            await asyncio.sleep(0)
    return b"".join(parts)


def _members(body: bytes, coding: str) -> Iterator[bytes]:
    """The content piece by piece: of one member after the other, gzip and zstd may have several."""
    at = 0
    for _ in range(_MOST_MEMBERS):
        at = yield from _member(body, at, coding)
        if coding == "gzip" and (padding := _ZEROS.match(body, at)):  # gzip itself passes over it
            at = padding.end()
        if at == len(body):
            return
        if coding == "deflate":
            raise _Damaged("something follows its end")
    raise _Damaged(f"it has more than {_MOST_MEMBERS} parts")


def _member(body: bytes, at: int, coding: str) -> Generator[bytes, None, int]:
    """The content of the member that begins at `at`; returns where it ends."""
    decoder = _zstd() if coding == "zstd" else zlib.decompressobj(_bits(coding, body[at : at + 2]))
    fed = b""
    while not decoder.eof:
        if not fed and getattr(decoder, "needs_input", True):
            fed = body[at : at + _STEP]
            at += len(fed)
        got = decoder.decompress(fed, _STEP)
        fed = getattr(decoder, "unconsumed_tail", b"")
        if not got and not fed and at == len(body) and not decoder.eof:
            raise _Damaged("it is cut off")
        yield got
    return at - len(decoder.unused_data)


def _zstd() -> Any:
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG})


def _bits(coding: str, start: bytes) -> int:
    """What zlib has to know; some clients leave out the header of zlib from ``deflate``."""
    if coding == "gzip":
        return 16 + zlib.MAX_WBITS
    has_header = len(start) < 2 or (start[0] & 0x0F == 8 and int.from_bytes(start, "big") % 31 == 0)
    return zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS


def _refused(detail: str) -> Problem:
    return Problem(
        415,
        "unknown-encoding",
        "the request's content-encoding is not supported",
        detail,
        fix="pack it with gzip, or send it without the header content-encoding",
        headers={"accept-encoding": ", ".join(CODINGS)},
    )
