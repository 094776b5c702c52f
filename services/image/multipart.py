"""Files of a ``multipart/form-data`` body, RFC 7578, as browsers, curl and requests send them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from services.errors import Problem

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks


@dataclass
class Part:
    """One part: its name in the form, empty without one, and its content."""

    name: str = ""
    content: bytearray = field(default_factory=bytearray)


def parse_form(content_type: str, body: bytes) -> list[Part]:
    """The parts of `body`, in their order.

    Raises:
        Problem: 400: no boundary, or the body does not follow it to its end.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not boundary:
        detail = "the header content-type has no boundary"
        raise _bad(detail, "let the client set this header, which knows the boundary")
    reader = _Reader()
    try:
        parser = MultipartParser(boundary, reader.callbacks)
        parser.write(body)
        parser.finalize()
    except FormParserError:
        raise _bad("its parts do not follow the boundary, or have broken headers") from None
    if not reader.ended:
        raise _bad("the last boundary is missing: the body is cut off")
    return reader.parts


class _Reader:
    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.ended = False
        self._name, self._value = bytearray(), bytearray()
        self.callbacks: MultipartCallbacks = {
            "on_part_begin": lambda: self.parts.append(Part()),
            "on_part_data": lambda data, start, end: self.parts[-1].content.extend(data[start:end]),
            "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._header,
            "on_end": self._end,
        }

    def _header(self) -> None:
        if bytes(self._name).lower() == b"content-disposition":
            options = parse_options_header(bytes(self._value))[1]
            self.parts[-1].name = options.get(b"name", b"").decode("utf-8", "replace")
        self._name.clear()
        self._value.clear()

    def _end(self) -> None:
        self.ended = True


def _bad(detail: str, fix: str = "") -> Problem:
    return Problem(400, "bad-multipart", "the request is no valid multipart form", detail, fix=fix)
