"""Documents as blocks: paragraphs with the headings above them and their page, of text, Markdown and HTML.

What a reader does not see is not read: comments, scripts, and elements that are hidden.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

SECTIONS = " > "  # between headings
_TITLE = 200  # characters of a title or heading
_FENCE = re.compile(r"^\s{0,3}(```|~~~)")
_HEADING = re.compile(r"^\s{0,3}(#{1,6})\s+(.+?)\s*#*\s*$")
_UNDERLINE = re.compile(r"^\s{0,3}(=+|-+)\s*$")
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_FRONT = re.compile(r"\A---[ \t]*\r?\n.*?\r?\n---[ \t]*\r?\n", re.DOTALL)
_MARKS = re.compile(r"!?\[([^\]]*)\]\([^)]*\)|(\*\*|__|`)")
_SPACES = re.compile(r"[^\S\n]+")


class RefusedError(Exception):
    """A file that is no document to read; its text says why."""


@dataclass(frozen=True)
class Block:
    """One paragraph.

    Attributes:
        section: the headings above it, joined by `SECTIONS`.  page: from 1; 0 where there are none.
    """

    section: str
    page: int
    text: str


@dataclass
class Document:
    """A document as it is read; `title` is its first heading, or its title where it has one."""

    title: str = ""
    blocks: list[Block] = field(default_factory=list)


class Builder:
    """Puts headings and paragraphs together."""

    def __init__(self) -> None:
        self.document = Document()
        self._headings: list[tuple[int, str]] = []

    def heading(self, level: int, text: str) -> None:
        """A heading, which is over what comes until one of its level or above."""
        text = tidy(text)[:_TITLE]
        if not text:
            return
        self.document.title = self.document.title or text
        self._headings = [one for one in self._headings if one[0] < level] + [(level, text)]

    def paragraph(self, text: str, page: int = 0) -> None:
        """A paragraph; one without a letter or digit is none."""
        text = tidy(text)
        if any(character.isalnum() for character in text):
            names = [name for _, name in self._headings if name != self.document.title]
            self.document.blocks.append(Block(SECTIONS.join(names), page, text))


def tidy(text: str) -> str:
    """Without spaces at the ends, several together, control characters and halves of characters."""
    text = "".join(sign for sign in text if sign.isprintable() or sign in "\n\t ")
    text = text.encode("utf-8", "ignore").decode("utf-8")
    return "\n".join(filter(None, (_SPACES.sub(" ", line).strip() for line in text.splitlines())))


def of_text(text: str) -> Document:
    """Paragraphs are separated by empty lines."""
    made = Builder()
    for part in re.split(r"\n\s*\n", text):
        made.paragraph(part)
    return made.document


def of_markdown(text: str) -> Document:
    """Headings by # or underlined; what is fenced stays together; front matter and comments are left out."""
    made, held = Builder(), list[str]()
    fenced = ""

    def flush() -> None:
        made.paragraph(_MARKS.sub(lambda found: found[1] or "", "\n".join(held)))
        held.clear()

    for line in _COMMENT.sub("", _FRONT.sub("", text)).splitlines():
        if fence := _FENCE.match(line):
            flush()
            fenced = "" if fenced == fence[1] else fenced or fence[1]
        elif fenced:
            held.append(line)
        elif found := _HEADING.match(line):
            flush()
            made.heading(len(found[1]), _MARKS.sub(lambda mark: mark[1] or "", found[2]))
        elif len(held) == 1 and (under := _UNDERLINE.match(line)):
            made.heading(1 if under[1][0] == "=" else 2, held.pop())
        elif not line.strip():
            flush()
        else:
            held.append(line)
    flush()
    return made.document


_HIDE = "script style noscript template svg math iframe object head"
_BREAK = """
p div li ul ol tr table section article header footer main aside nav blockquote pre dl dt dd form figure br
"""
_EMPTY = "area base br col embed hr img input link meta param source track wbr"
_UNSEEN, _BREAKS, _VOID = frozenset(_HIDE.split()), frozenset(_BREAK.split()), frozenset(_EMPTY.split())
_HIDDEN = re.compile(
    r"(?:display\s*:\s*none|visibility\s*:\s*hidden|font-size\s*:\s*0(?![\d.])|opacity\s*:\s*0(?![\d.]))"
)


class _Html(HTMLParser):
    """Collects what is shown; elements may be left open."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.made, self._held, self._heading = Builder(), list[str](), 0
        self._hidden: list[str] = []
        self._title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "title" and "svg" not in self._hidden:
            self._title = True
            return
        unseen = tag in _UNSEEN or "hidden" in given or given.get("aria-hidden") == "true"
        if (self._hidden or unseen or _HIDDEN.search((given.get("style") or "").lower())) and tag not in _VOID:
            self._hidden.append(tag)
        if tag in _BREAKS or _level(tag):
            self.flush()
        if _level(tag):
            self._heading = _level(tag)
        if tag in ("td", "th"):
            self._held.append(" ")

    def handle_endtag(self, tag: str) -> None:
        if tag == "title":
            self._title = False
        if tag in self._hidden:
            while self._hidden.pop() != tag:
                pass
        if tag in _BREAKS or _level(tag):
            self.flush()

    def handle_data(self, data: str) -> None:
        if self._title:
            self.made.document.title = (self.made.document.title + data).strip()[:_TITLE]
        elif not self._hidden:
            self._held.append(data)

    def flush(self) -> None:
        """The end of a heading or paragraph."""
        text = " ".join("".join(self._held).split())
        self._held.clear()
        if self._heading:
            self.made.heading(self._heading, text)
            self._heading = 0
        else:
            self.made.paragraph(text)


def _level(tag: str) -> int:
    return int(tag[1]) if len(tag) == 2 and tag[0] == "h" and tag[1] in "123456" else 0


def of_html(text: str) -> Document:
    """What a page shows, by its headings and block elements."""
    parser = _Html()
    parser.feed(text)
    parser.close()
    parser.flush()
    return parser.made.document


def decoded(content: bytes) -> str:
    """The text of a file in UTF-8, UTF-16 with a mark, or what its bytes look like.

    Raises:
        RefusedError: it is no text.
    """
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return _or_refused(content, "utf-16")
    if b"\0" in content[:8192]:
        raise RefusedError("is no text: it has bytes of zero")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        from charset_normalizer import from_bytes

        found: Any = from_bytes(content[: 1 << 20]).best()
        if found is None:
            raise RefusedError("is in no encoding that can be told; save it as UTF-8") from None
        return _or_refused(content, str(found.encoding))


def _or_refused(content: bytes, encoding: str) -> str:
    try:
        return content.decode(encoding)
    except (UnicodeDecodeError, LookupError):
        raise RefusedError(f"is damaged: not all of it is {encoding}") from None


TEXT_FORMATS: dict[str, Callable[[str], Document]] = {
    ".txt": of_text,
    ".md": of_markdown,
    ".markdown": of_markdown,
    ".html": of_html,
    ".htm": of_html,
}


def repeated(pages: Sequence[str]) -> Iterator[str]:
    """The pages without the lines at their ends that stand on most of them, such as page headers."""
    ends = [{line.strip() for line in (lines[:2] + lines[-2:])} for lines in (page.splitlines() for page in pages)]
    counts: dict[str, int] = {}
    for one in ends:
        for line in one:
            counts[line] = counts.get(line, 0) + 1
    often = {line for line, count in counts.items() if line and len(pages) > 3 and count > len(pages) / 2}
    for page in pages:
        yield "\n".join(line for line in page.splitlines() if line.strip() not in often)
