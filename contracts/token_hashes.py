"""What a text is read as by a tagger: tokens, and hashes of each and of what is around it.

Tokens are single Chinese and Japanese characters, and runs of other letters and of digits. Of each, and of those beside
it, hashes are taken (J. Moody, Hash Embeddings, 2017), so that a model holds no word or name that it has seen. A bundle
knows the hashes that its model was trained with: they never change.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

FEATURES, WORDS = 6, 4  # hashes of a token; with a list of words, so many more
AROUND, WORDS_AROUND = 17, 5  # of what is around it, where a model has nothing else that reads it
LAYOUT = 12  # of how the text is set: the breaks of lines and the marks before and behind it
_LONGEST = 6  # tokens of a word of such a list
_KINDS = 255
_HAN = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_TOKEN = re.compile(rf"[{_HAN}]|[^\W\d_{_HAN}]+|\d+|\S")
_SINGLE = re.compile(rf"[{_HAN}]")
_BREAK = re.compile("\n")
# A single sign of its script; what names are not, and stand beside, see `_beside`; a mark that is none of them.
_SIGN, _ANCHOR, _MARK = 1, 2, 3
_MARKS = frozenset("\u3001\u3002\uff0c\uff1a\uff1b\uff08\uff09\u300a\u300b\u201c\u201d\uff01\uff1f")  # of Chinese
_FACTORS = tuple(map(np.uint32, (0x9E3779B1, 0x85EBCA6B, 0x27D4EB2F)))
_STEPS = tuple((np.uint32(shift), np.uint32(factor)) for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)))


class Tokens(NamedTuple):
    """Places of the tokens of a text, shape (tokens, 2), and their hashes, shape (tokens, `width`), from 1 on."""

    places: NDArray[np.int64]
    ids: NDArray[np.int64]


class WordList:
    """Words that are known beforehand, each of some kind: what of a list is at a token is told to a model beside the
    token (L. Ratinov, D. Roth, Design Challenges in Named Entity Recognition, 2009). It holds hashes of them.

    known: ``hash << 8 | kind``, uint64, in order.
    """

    def __init__(self, known: NDArray[np.uint64]) -> None:
        self.known = known
        self._hashes = (known >> np.uint64(8)).astype(np.uint32)
        self._kinds = (known & np.uint64(255)).astype(np.int64)

    @classmethod
    def of(cls, lines: Iterable[str]) -> WordList:
        """Of lines ``word``, ``word`` tab ``kind``, or ``word number kind`` as in dictionaries of word segmenters.

        Words of more than six tokens and single signs are left out; so are kinds after the 255th.
        """
        kinds: dict[str, int] = {}
        found: dict[int, list[list[int]]] = {}
        for line in lines:
            word, kind = _entry(line)
            tokens = _TOKEN.findall(word)
            if not 1 <= len(tokens) <= _LONGEST or (len(tokens) == 1 and _SINGLE.fullmatch(tokens[0])):
                continue
            code = kinds.setdefault(kind, len(kinds) + 1)
            if code <= _KINDS:
                found.setdefault(len(tokens), []).append([code, *(_hashes(token)[0] for token in tokens)])
        known = [np.zeros(0, np.uint64)]
        for rows in found.values():
            codes, *columns = np.array(rows, np.uint32).T
            chain = columns[0]
            for column in columns[1:]:
                chain = _mix(chain, column)
            known.append(chain.astype(np.uint64) << np.uint64(8) | codes.astype(np.uint64))
        every = np.unique(np.concatenate(known))
        return cls(every[np.unique(every >> np.uint64(8), return_index=True)[1]])  # of a word of two kinds the first

    def at(self, word: NDArray[np.uint32], text: NDArray[np.int64]) -> list[NDArray[np.uint32]]:
        """For each token: length and kind of the longest word that begins there, that ends there, and that has others
        on both sides; and the first two together.

        Args:
            word: hashes of tokens.  text: the number of the text that each is in, -1 for what is in none.
        """
        count = len(word)
        begins, ends, inside = (np.zeros(count, np.uint32) for _ in range(3))
        chain = word
        for length in range(1, min(_LONGEST, count) + 1):
            chain = _mix(chain[:-1], word[length - 1 :]) if length > 1 else chain
            at = np.searchsorted(self._hashes, chain).clip(max=max(0, len(self._hashes) - 1))
            whole = (text[: len(chain)] >= 0) & (text[: len(chain)] == text[length - 1 :])
            known = self._hashes[at] == chain if len(self._hashes) else np.zeros(len(chain), bool)
            (starts,) = np.nonzero(known & whole)
            code = (length * (_KINDS + 1) + self._kinds[at[starts]]).astype(np.uint32)
            begins[starts] = code
            ends[starts + length - 1] = code
            for inner in range(1, length - 1):
                inside[starts + inner] = code
        return [begins, ends, inside, _mix(begins, ends)]


def _entry(line: str) -> tuple[str, str]:
    """The word of a line, and its kind."""
    word, _, kind = line.strip().partition("\t")
    parts = word.rsplit(None, 2)
    return (parts[0], parts[2]) if len(parts) == 3 and parts[1].isdigit() else (word, kind.strip())


def width(words: WordList | None, around: int = 0) -> int:
    """How many hashes a token has; `around` as in `tokenise`."""
    plain = FEATURES + (around > 0) * AROUND + (around > 1) * LAYOUT
    return plain if words is None else plain + WORDS + (around > 0) * WORDS_AROUND


def tokenise(text: str, size: int, words: WordList | None = None, around: int = 0) -> Tokens:
    """The tokens of `text`, with hashes below `size`; with `around` of 1 also of what is around each, with 2 of how the
    text is set as well."""
    return tokenise_all([text], size, words, around)[0]


def tokenise_all(texts: Sequence[str], size: int, words: WordList | None = None, around: int = 0) -> list[Tokens]:
    """What `tokenise` tells of each, computed for all of them together."""
    found = [[match.span() for match in _TOKEN.finditer(text)] for text in texts]
    places = [np.fromiter(chain.from_iterable(some), np.int64, 2 * len(some)).reshape(-1, 2) for some in found]
    counts = np.array([len(some) for some in found], np.int64)
    # Two signs of nothing on both sides of each text, so that what is beside a token is never of another text.
    starts = np.cumsum(counts + 4) - counts - 2
    told = np.zeros((int((counts + 4).sum()), 5), np.uint32)
    gaps, inside = np.zeros(len(told), np.uint32), np.full(len(told), -1, np.int64)
    lines = np.zeros(len(told), np.uint32)
    for edge, sign in ((starts - 2, 7), (starts - 1, 11), (starts + counts, 13), (starts + counts + 1, 17)):
        told[edge, 0] = sign
    for number, (text, some, start) in enumerate(zip(texts, found, starts.tolist(), strict=True)):
        if some:
            here = slice(start, start + len(some))
            told[here] = np.frombuffer(b"".join([_packed(text[a:b]) for a, b in some]), np.uint32).reshape(-1, 5)
            gaps[here], lines[here] = _between(text, places[number])
            inside[here] = number
    told = np.ascontiguousarray(told.T)
    columns = _columns(told, gaps, inside, words, around)
    if around > 1:
        columns += _layout(told, lines, np.repeat(np.arange(len(texts)), counts + 4), inside)
    numbers = np.arange(len(columns), dtype=np.uint32)[:, None]
    hashes = _mix(np.array(columns)[:, inside >= 0], numbers)
    ids = (hashes % np.uint32(size - 1)).T.astype(np.int64, order="C") + 1
    ends = np.cumsum(counts).tolist()
    return [Tokens(some, ids[end - len(some) : end]) for some, end in zip(places, ends, strict=True)]


def _between(text: str, places: NDArray[np.int64]) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Of what is before each token: 1 where it is nothing, 2 white space, 3 a break of lines; and `_line` of it."""
    gaps, lines = np.ones(len(places), np.uint32), np.zeros(len(places), np.uint32)
    gaps[1:] += places[1:, 0] > places[:-1, 1]
    breaks = [match.start() for match in _BREAK.finditer(text)]
    for at in set(np.searchsorted(places[:, 0], breaks).tolist()) - {0, len(places)}:
        gaps[at], lines[at] = 3, _line(text[places[at - 1, 1] : places[at, 0]])
    return gaps, lines


def _columns(
    told: NDArray[np.uint32], gaps: NDArray[np.uint32], inside: NDArray[np.int64], words: WordList | None, around: int
) -> list[NDArray[np.uint32]]:
    """Of `_hashes` of the tokens, each of shape (tokens,)."""
    here, shape, first, last, single = told
    (before, shape_before), (after, shape_after) = (_moved(told[:2], by) for by in (1, -1))
    far, farther = (_moved(here, by) for by in (2, -2))
    alone = single == _SIGN
    ahead, behind, form, leading, *_ = _mixed((before, here), (here, after), (shape, gaps), (far, before))
    signs = _mixed((leading, here), (behind, farther))
    columns = [here, ahead, behind, form, np.where(alone, signs[0], first), np.where(alone, signs[1], last)]
    listed = words.at(here, inside) if words is not None else []
    columns += listed
    if around:
        left, left_of, right = _beside(here, single == _ANCHOR, inside)
        following, beside, shapes, shapes_after, spaces, left_pair = _mixed(
            (after, farther),
            (before, after),
            (shape_before, shape),
            (shape, shape_after),
            (gaps, _moved(gaps, -1)),
            (left, left_of),
        )
        whole, all_shapes, spaced, between, left_shape = _mixed(
            (ahead, after), (shapes, shape_after), (spaces, shape), (left, right), (left, shape)
        )
        columns += [far, before, after, farther, leading, following, beside, whole, shapes, shapes_after, all_shapes]
        columns += [spaced, left, left_pair, right, between, left_shape]
        if listed:
            begins, ends, inner, both = listed
            ended, beginning = _moved(ends, 1), _moved(begins, -1)
            columns += [ended, beginning, *_mixed((ended, begins), (ends, beginning), (both, inner))]
    return columns


def _beside(
    here: NDArray[np.uint32], anchor: NDArray[np.bool_], inside: NDArray[np.int64]
) -> tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint32]]:
    """For each token the nearest anchor before it in its text, the token before that one, and the nearest anchor
    behind it: what leads to a long address and what follows it."""
    every = np.arange(len(here))
    last = _moved(np.maximum.accumulate(np.where(anchor, every, 0)), 1)
    following = _moved(np.minimum.accumulate(np.where(anchor, every, len(here) - 1)[::-1])[::-1], -1)
    left, right = (np.where(anchor[at] & (inside[at] == inside), here[at], np.uint32(19)) for at in (last, following))
    return left, np.where(left == 19, left, here[last - 1]), right


def _layout(
    told: NDArray[np.uint32], lines: NDArray[np.uint32], row: NDArray[np.int64], inside: NDArray[np.int64]
) -> list[NDArray[np.uint32]]:
    """What tells a line of an address from a list of its parts: forms of the breaks of lines around each token, breaks
    and marks around it, and the small words that are nearest with those beyond them.

    Args:
        lines: of the white space before each token, see `_line`.  row: the text that each is in, edges too.
    """
    here, shape, _, _, what = told
    marks = np.where(lines > 0, _mix(lines, lines), np.where(what == _MARK, here, 0)).astype(np.uint32)
    anchors = np.where(what == _ANCHOR, here, np.uint32(0))
    near = [_nearest(np.where(inside < 0, np.uint32(1), forms), row) for forms in (lines, marks, anchors)]
    before, last, following, second, third = np.stack(near, axis=1)  # each of shape (3, tokens)
    ahead, behind, around = _mixed((before, last), (following, second), (last, following))
    beyond = _mix(behind[:2], third[:2])
    whole = _mix(ahead[:2], beyond)
    shaped = _mix(whole, shape)
    found = [one for at in range(2) for one in (around[at], beyond[at], whole[at], shaped[at])]
    small, marked = _mixed((following[2], shape), (marks, here))
    return [*found, ahead[2], behind[2], _mix(last[2], small), marked]


def _nearest(forms: NDArray[np.uint32], row: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Of what is not 0: for each place the second and the first at or before it, and the first three behind it, 0 where
    they are of another text; shape (5, places)."""
    filled = forms != 0
    of, row_of = (np.concatenate([some[filled], np.zeros(3, some.dtype)]) for some in (forms, row + 1))
    at = np.cumsum(filled) + np.arange(-2, 3)[:, None]
    return np.where(row_of[at] == row + 1, of[at], np.uint32(0))


@lru_cache(maxsize=50_000)
def _hashes(token: str) -> tuple[int, int, int, int, int]:
    """Of the word, of its shape, of its first and last letters; and what it is: `_SIGN`, `_ANCHOR`, `_MARK`, or 0."""
    plain = unicodedata.normalize("NFKC", token)
    word = "".join("0" if sign.isdigit() else sign for sign in plain.casefold())
    shape = "".join("X" if s.isupper() else "x" if s.islower() else "0" if s.isdigit() else s for s in plain[:1])
    rest = "X" if len(plain) > 1 and plain.isupper() else "x"
    told = (word, f"{shape}{rest}{min(len(plain), 12)}", f"<{word[:3]}", f"{word[-3:]}>")
    code, *others = (zlib.crc32(text.encode("utf-8", "replace")) for text in told)
    what = _SIGN if _SINGLE.fullmatch(token) else _ANCHOR if token[0].islower() or token[0] in _MARKS else 0
    what = what or (0 if token[0].isalnum() else _MARK)
    return code, others[0], others[1], others[2], what


@lru_cache(maxsize=50_000)
def _packed(token: str) -> bytes:
    return np.array(_hashes(token), np.uint32).tobytes()


def _moved(values: NDArray[Any], by: int) -> NDArray[Any]:
    return np.concatenate((values[..., -by:], values[..., :-by]), axis=-1)


def _line(between: str) -> int:
    """The form of a break of lines: how many, and whether the next one is set in; 0 for none."""
    return 2 + 2 * min(between.count("\n"), 3) + between[-1].isspace() * (between[-1] != "\n") if "\n" in between else 0


def _mixed(*pairs: tuple[NDArray[np.uint32], NDArray[np.uint32]]) -> NDArray[np.uint32]:
    """`_mix` of each pair, in one step."""
    left, right = (np.array(some) for some in zip(*pairs, strict=True))
    return _mix(left, right)


def _mix(a: NDArray[np.uint32], b: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """One hash of two (the finaliser of MurmurHash3)."""
    found = a * _FACTORS[0] + b * _FACTORS[1] + _FACTORS[2]
    for shift, factor in _STEPS:
        found ^= found >> shift
        found *= factor
    return found ^ (found >> _STEPS[0][0])
