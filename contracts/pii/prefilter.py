"""For ASCII texts: of a kind's pattern one that RE2 knows and that fits wherever the kind's does.

RE2 reads a text once, whatever the pattern, and cannot look around. What has to stand before and after a value is
therefore read with it, and what else looks around is left out: it fits more texts, never fewer.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import import_module
from typing import Any

from contracts.pii.kind import Kind

ALL = ""  # fits every text
_ASCII = frozenset(map(chr, range(128)))
_MOST = 20  # of one sign; more is any number, so that the automaton stays small
_ONE = frozenset({"LITERAL", "NOT_LITERAL", "IN"})  # reads one sign
_SETS = {
    "DIGIT": frozenset(string.digits),
    "WORD": frozenset(string.ascii_letters + string.digits + "_"),
    "SPACE": frozenset(sign for sign in _ASCII if sign.isspace()),
}
_PLACES = {"AT_BEGINNING_STRING": r"\A", "AT_END_STRING": r"\z", "AT_END": r"\n?\z"}


class _NothingError(Exception):
    """Nothing that may be read."""


@cache
def necessary(kind: Kind) -> str | None:
    """A pattern of RE2 that fits each ASCII text in which `kind.pattern` is found.

    `ALL` where none is known; None of a kind that needs other signs.
    """
    try:
        tree = import_module("re._parser").parse(kind.pattern.pattern, kind.pattern.flags)
        return _Necessary().sequence(list(tree), kind.pattern.flags, first=True, last=True)
    except _NothingError:
        return None
    except (ImportError, LookupError, AttributeError, TypeError, ValueError):
        return ALL


class _Necessary:
    """Translates what Python's parser has read of a pattern."""

    def __init__(self) -> None:
        self._groups: dict[int, str] = {}

    def sequence(self, nodes: Sequence[Any], flags: int, *, first: bool = False, last: bool = False) -> str:
        """`first` and `last`: nothing is read before and after it, so that what has to stand there may be."""
        start, end, before, after = 0, len(nodes), "", ""
        if first:
            while start < end and _looks(nodes[start], ahead=True, behind=True):
                start += 1
            before = next(filter(None, (self._beside(node, flags, -1) for node in nodes[:start])), "")
        if last:
            while end > start and _looks(nodes[end - 1], ahead=True):
                end -= 1
            after = next(filter(None, (self._beside(node, flags, 1) for node in nodes[end:])), "")
        read = [
            self._node(nodes[at], flags, first and not before and at == start, last and not after and at == end - 1)
            for at in range(start, end)
        ]
        return "".join([before, *read, after])

    def _beside(self, node: Any, flags: int, way: int) -> str:
        """What has to stand before (-1) or after (1), as something that is read; empty where that is unknown."""
        name, value = _named(node)
        if name == "SUBPATTERN" and len(value[3]) == 1:
            return self._beside(value[3][0], _flags(flags, value), way)
        if name == "BRANCH":
            options = [self._beside(option[0], flags, way) if len(option) == 1 else "" for option in value[1]]
            return _either(options) if all(options) else ""
        if name == "ASSERT" and value[0] == way:
            return self.sequence(list(value[1]), flags)
        if name == "ASSERT_NOT" and value[0] == way and (signs := self._alone(list(value[1]), flags)):
            return rf"(?:\A|[^{signs}])" if way < 0 else rf"(?:\z|[^{signs}])"
        return ""

    def _alone(self, nodes: Sequence[Any], flags: int) -> str:
        """Signs that each are all of what is read, for a class; none that may be no such sign."""
        if len(nodes) != 1:
            return ""
        name, value = _named(nodes[0])
        if name == "SUBPATTERN":
            return self._alone(list(value[3]), _flags(flags, value))
        if name == "BRANCH":
            return "".join(self._alone(list(option), flags) for option in value[1])
        return _signs(nodes[0], flags) if name in _ONE else ""

    def _node(self, node: Any, flags: int, first: bool, last: bool) -> str:
        name, value = _named(node)
        if name in _ONE:
            if not (signs := _signs(node, flags)):
                raise _NothingError
            return f"[{signs}]"
        if name == "BRANCH":
            return self._branch([list(option) for option in value[1]], flags, first, last)
        if name == "SUBPATTERN":
            self._groups[value[0]] = f"(?:{self.sequence(list(value[3]), _flags(flags, value))})"
            return f"(?:{self.sequence(list(value[3]), _flags(flags, value), first=first, last=last)})"
        if name in {"MAX_REPEAT", "MIN_REPEAT"}:
            least, most, item = value
            return self._repeated(least, most, item, flags)
        if name == "GROUPREF":
            return self._groups[value]
        if name == "AT":
            return _PLACES.get(str(value), "")
        if name in {"ASSERT", "ASSERT_NOT"}:
            return ""
        raise LookupError(name)

    def _branch(self, options: Sequence[Sequence[Any]], flags: int, first: bool, last: bool) -> str:
        found = []
        for option in options:
            try:
                found.append(self.sequence(option, flags, first=first, last=last))
            except _NothingError:
                continue
        if not found:
            raise _NothingError
        return _either(found)

    def _repeated(self, least: int, most: int, item: Any, flags: int) -> str:
        try:
            read = self.sequence(list(item), flags)
        except _NothingError:
            if least:
                raise
            return ""
        single = len(item) == 1 and _named(item[0])[0] in _ONE and most <= _MOST
        return f"(?:{read}){{{min(least, _MOST)},{int(most) if single or most == 1 else ''}}}"


def _signs(node: Any, flags: int) -> str:
    """What is read of ASCII, for the inside of a class."""
    name, value = _named(node)
    items = list(value) if name == "IN" else [node]
    negated = name == "NOT_LITERAL" or (name == "IN" and _named(items[0])[0] == "NEGATE")
    found = set[str]()
    for item in items[1:] if name == "IN" and negated else items:
        what, said = _named(item)
        if what == "CATEGORY":
            said = str(said).removeprefix("CATEGORY_")
            signs = _SETS[said.removeprefix("NOT_")]
            found |= _ASCII - signs if said.startswith("NOT_") else signs
            continue
        low, high = said if what == "RANGE" else (said, said)
        found.update(map(chr, range(low, min(high, 127) + 1)))
    if flags & re.IGNORECASE:
        found |= {sign.swapcase() for sign in found}
    return _class(_ASCII - found if negated else found)


def _class(signs: Iterable[str]) -> str:
    """Signs as ranges."""
    ranges: list[list[int]] = []
    for code in sorted(map(ord, signs)):
        if ranges and code == ranges[-1][1] + 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join(rf"\x{low:02x}-\x{high:02x}" for low, high in ranges)


def _looks(node: Any, *, ahead: bool = False, behind: bool = False) -> bool:
    """Whether it reads nothing and looks to one of these sides."""
    name, value = _named(node)
    if name in {"ASSERT", "ASSERT_NOT"}:
        return ahead if value[0] > 0 else behind
    inside = list(value[1]) if name == "BRANCH" else [value[3]] if name == "SUBPATTERN" else []
    return bool(inside) and all(
        len(option) > 0 and all(_looks(each, ahead=ahead, behind=behind) for each in option) for option in inside
    )


def _flags(flags: int, value: Any) -> int:
    """Of a group; `value` is its number, the flags it adds, those it takes away, and what is in it."""
    return int((flags | value[1]) & ~value[2])


def _either(options: Iterable[str]) -> str:
    return f"(?:{'|'.join(options)})"


def _named(node: Any) -> tuple[str, Any]:
    return str(node[0]), node[1]
