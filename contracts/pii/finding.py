"""Where personal data is in a text: candidates by pattern, proven by check digits and by words nearby."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from contracts.errors import PlatformError
from contracts.pii import chinese, english, everywhere, people, tagged
from contracts.pii.finders import Finder, Place
from contracts.pii.kind import Kind

KINDS: tuple[Kind, ...] = (*everywhere.KINDS, *chinese.KINDS, *english.KINDS, *people.KINDS)
NAMES = tuple(sorted({kind.name for kind in (*KINDS, *tagged.KINDS)}))
# What redaction writes is not personal data again.
TOKEN = re.compile(
    rf"\[(?:{'|'.join(NAMES).upper()}|VALUE|[a-z_]{{2,30}}#[0-9a-f]{{16}}|[a-z_]{{2,30}}![0-9A-Za-z_-]{{20,}})\]"
)
_FREE = re.compile(rb"\0+")  # signs that nothing else has taken
_INNER = re.compile(r"\w(?:.*\w)?", re.DOTALL)
_BEFORE, _AFTER = 40, 20  # signs around a value in which words tell what it is
_INVISIBLE = re.compile("[\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe0e\ufe0f\u20e3\ufeff]")


@dataclass(frozen=True, kw_only=True)
class Span:
    """Personal data in a text: ``text[start:end]``; `value` is it as it is known, however it was written."""

    start: int
    end: int
    kind: Kind
    value: str


@dataclass(frozen=True)
class Plain:
    """A text with ASCII digits, letters, dashes and spaces in place of their many forms, and without invisible signs.

    `places` has the place in the original of each sign, and at the end its length; None where they are the same.
    """

    text: str
    places: Sequence[int] | None = None

    def place(self, at: int) -> int:
        return at if self.places is None else self.places[at]


def plain(text: str) -> Plain:
    """`text` for `Kind.pattern`."""
    if text.isascii():
        return Plain(text)
    if _INVISIBLE.search(text):
        kept = [at for at, sign in enumerate(text) if not _INVISIBLE.match(sign)]
        return Plain("".join(text[at] for at in kept).translate(_forms()), [*kept, len(text)])
    return Plain(text.translate(_forms()))


@cache
def _forms() -> dict[int, str]:
    """Other forms of ASCII signs: full width, digits of all scripts, dashes, spaces. One sign for one sign."""
    made = {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
    made |= dict.fromkeys([*range(0x2010, 0x2016), 0x2212, 0x2043, 0xFE63, 0x2E3A], "-")
    for code in range(0x80, sys.maxunicode + 1):
        category = unicodedata.category(chr(code))
        if category == "Nd":
            made[code] = str(unicodedata.decimal(chr(code)))
        elif category == "Zs":
            made[code] = " "
    return made


def find(
    text: str,
    *,
    hint: str = "",
    kinds: Iterable[str] = NAMES,
    finder: Finder | None = None,
    tried: Counter[str] | None = None,
) -> list[Span]:
    """Personal data of `kinds` in `text`, by place, without overlaps; see `find_all`."""
    return find_all([text], hint=hint, kinds=kinds, finder=finder, tried=tried)[0]


def find_all(
    texts: Sequence[str],
    *,
    hint: str = "",
    kinds: Iterable[str] = NAMES,
    finder: Finder | None = None,
    tried: Counter[str] | None = None,
    among: Sequence[Iterable[Kind]] | None = None,
) -> list[list[Span]]:
    """Of each text the personal data of `kinds`, by place, without overlaps.

    Args:
        hint: words that tell what the texts are, such as the name of their column.
        finder: of what has no form; what it finds joins what patterns find.
        tried: counts by kind what had the form, also where it was none, see `Kind.chance`.
        among: for each text those of `KINDS`, in their order, that it may hold, where that is known, see `prefilter`.

    Raises:
        PlatformError: ``code="unknown_pii"``: a kind that there is not.
    """
    wanted = frozenset(kinds)
    if unknown := sorted(wanted.difference(NAMES)):
        raise PlatformError(
            f"unknown kind of personal data {unknown[0]!r}",
            detail=f"known: {', '.join(NAMES)}",
            fix="pick from these",
            code="unknown_pii",
        )
    asked = [kind for kind in KINDS if kind.name in wanted]
    said, counts = hint.casefold().replace("_", " "), tried if tried is not None else Counter()
    read = [plain(text) for text in texts]
    places: Sequence[Sequence[Place]] = finder.places([one.text for one in read]) if finder else [()] * len(read)
    return [
        _without_overlaps(
            [
                *(span for kind in likely if kind.name in wanted for span in _of_kind(kind, one, said, counts)),
                *(_of_place(place, one) for place in some if place[2].name in wanted),
            ],
            one,
        )
        for one, some, likely in zip(read, places, among or [asked] * len(read), strict=True)
    ]


def _of_place(place: Place, read: Plain) -> Span:
    start, end, kind = place
    return Span(start=start, end=end, kind=kind, value=kind.known(read.text[start:end]))


def _of_kind(kind: Kind, read: Plain, said: str, tried: Counter[str]) -> Iterator[Span]:
    text, at = read.text, 0
    group = "value" if "value" in kind.pattern.groupindex else 0
    while (match := kind.pattern.search(text, at)) is not None:
        start, end = match.span(group)
        tried[kind.name] += 1
        end = _valid_end(kind, text, start, end)
        if end and _believed(kind, text, start, end, said):
            yield Span(start=start, end=end, kind=kind, value=kind.known(text[start:end]))
            at = end
        else:  # a number in groups may begin at the next one
            at = match.start() + 1 if kind.split else max(match.end(), match.start() + 1)


def _valid_end(kind: Kind, text: str, start: int, end: int) -> int:
    """Where the value ends: of a number in groups, the last ones may be of another number; 0 when it is none."""
    while True:
        raw = text[start:end]
        if kind.valid(kind.known(raw)):
            return end
        cut = max(raw.rfind(" "), raw.rfind("-")) if kind.split else -1
        if cut <= 0 or not kind.pattern.match(text, start, start + cut):
            return 0
        end = start + cut


def _believed(kind: Kind, text: str, start: int, end: int, said: str) -> bool:
    raw = text[start:end]
    if kind.alone(raw, kind.known(raw)):
        return True
    if kind.context is None:
        return False
    before = text[max(start - _BEFORE, 0) : start]
    around = (before if kind.before else f"{before} {text[end : end + _AFTER]} {said}").casefold()
    return kind.context.search(around) is not None


def _without_overlaps(found: list[Span], read: Plain) -> list[Span]:
    """The highest rank first, then the longest; what redaction wrote is taken already.

    What a finder says beyond a higher one stays: a name of which a pattern knows a half is found whole.
    """
    taken = bytearray(len(read.text))
    for match in TOKEN.finditer(read.text) if "[" in read.text else ():
        taken[match.start() : match.end()] = b"\1" * (match.end() - match.start())
    kept = []
    for span in sorted(found, key=lambda one: (-one.kind.rank, one.start - one.end, one.start)):
        for start, end in _free(taken, span, read.text):
            taken[start:end] = b"\1" * (end - start)
            whole = (start, end) == (span.start, span.end)
            value = span.value if whole else span.kind.known(read.text[start:end])
            kept.append(Span(start=start, end=end, kind=span.kind, value=value))
    return [
        Span(start=read.place(one.start), end=read.place(one.end), kind=one.kind, value=one.value)
        for one in sorted(kept, key=lambda one: one.start)
    ]


def _free(taken: bytearray, span: Span, text: str) -> list[tuple[int, int]]:
    """All of the span; of one that a finder gave and others overlap, the parts beside these that hold something."""
    if not any(taken[span.start : span.end]):
        return [(span.start, span.end)]
    if span.kind not in tagged.KINDS:
        return []
    parts = [match.span() for match in _FREE.finditer(taken, span.start, span.end)]
    return [match.span() for start, end in parts if (match := _INNER.search(text, start, end))]
