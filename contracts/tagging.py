"""Spans in texts by tags of tokens: how a text becomes numbers for the graph, and tags become spans.

Tokens are single Chinese and Japanese characters, and runs of other letters and of digits. Of each, and of those beside
it, hashes are taken (J. Moody, Hash Embeddings, 2017), so that a model holds no word or name that it has seen. Tags are
``O``, and ``B-`` and ``I-`` of each type (L. Ramshaw, M. Marcus, 1995).
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
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
# A single sign of its script; what names are not, and stand beside, see `_beside`; a mark that is none of them.
_SIGN, _ANCHOR, _MARK = 1, 2, 3
_ENDS = frozenset(".!?;\n。！？；")
_MARKS = frozenset("\u3001\u3002\uff0c\uff1a\uff1b\uff08\uff09\u300a\u300b\u201c\u201d\uff01\uff1f")  # of Chinese
_FACTORS = tuple(map(np.uint32, (0x9E3779B1, 0x85EBCA6B, 0x27D4EB2F)))
_STEPS = tuple((np.uint32(shift), np.uint32(factor)) for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)))
_SURE = 10.0  # by how much the logit of O is the highest
_NEVER = -1e9
_HIDDEN = "\u25a1"  # in the place of a character that is hidden: places stay as they are


class Tagged(NamedTuple):
    """``text[start:end]`` is of `kind`; `score` is the mean probability of its tags."""

    start: int
    end: int
    kind: str
    score: float


class Tokens(NamedTuple):
    """Places of the tokens of a text, shape (tokens, 2), and their hashes, shape (tokens, `width`), from 1 on."""

    places: NDArray[np.int64]
    ids: NDArray[np.int64]


def tags_of(kinds: Sequence[str]) -> list[str]:
    """The tags in the order of the graph's output."""
    return ["O", *(f"{mark}-{kind}" for kind in kinds for mark in "BI")]


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
            told[here] = [_hashes(text[begin:end]) for begin, end in some]
            between = ["", *(text[end:begin] for (_, end), (begin, _) in pairwise(some))]
            gaps[here] = [3 if "\n" in one else 2 if one else 1 for one in between]
            if around > 1:
                lines[here] = [_line(one) for one in between]
            inside[here] = number
    told = np.ascontiguousarray(told.T)
    columns = _columns(told, gaps, inside, words, around)
    if around > 1:
        columns += _layout(told, lines, np.repeat(np.arange(len(texts)), counts + 4), inside)
    hashes = _mix(np.stack(columns, axis=1)[inside >= 0], np.arange(len(columns), dtype=np.uint32))
    ids = (hashes % np.uint32(size - 1)).astype(np.int64) + 1
    ends = np.cumsum(counts).tolist()
    return [
        Tokens(np.array(some, np.int64).reshape(-1, 2), ids[end - len(some) : end])
        for some, end in zip(found, ends, strict=True)
    ]


def _columns(
    told: NDArray[np.uint32], gaps: NDArray[np.uint32], inside: NDArray[np.int64], words: WordList | None, around: int
) -> list[NDArray[np.uint32]]:
    """Of `_hashes` of the tokens, each of shape (tokens,)."""
    here, shape, first, last, single = told
    far, before, after, farther = (_moved(here, by) for by in (2, 1, -1, -2))
    alone = single == _SIGN
    pairs = _mix(before, here), _mix(here, after)
    columns = [
        here,
        *pairs,
        _mix(shape, gaps),
        np.where(alone, _mix(_mix(far, before), here), first),
        np.where(alone, _mix(pairs[1], farther), last),
    ]
    listed = words.at(here, inside) if words is not None else []
    columns += listed
    if around:
        shapes = _moved(shape, 1), _moved(shape, -1)
        columns += [far, before, after, farther, _mix(far, before), _mix(after, farther), _mix(before, after)]
        columns += [_mix(pairs[0], after), _mix(shapes[0], shape), _mix(shape, shapes[1])]
        columns += [_mix(_mix(shapes[0], shape), shapes[1]), _mix(_mix(gaps, _moved(gaps, -1)), shape)]
        left, right = _beside(here, single == _ANCHOR, inside)
        columns += [*left, right, _mix(left[0], right), _mix(left[0], shape)]
        if listed:
            begins, ends, inner, _ = listed
            ended, beginning = _moved(ends, 1), _moved(begins, -1)
            columns += [ended, beginning, _mix(ended, begins), _mix(ends, beginning), _mix(_mix(begins, ends), inner)]
    return columns


def _beside(
    here: NDArray[np.uint32], anchor: NDArray[np.bool_], inside: NDArray[np.int64]
) -> tuple[tuple[NDArray[np.uint32], NDArray[np.uint32]], NDArray[np.uint32]]:
    """For each token the nearest anchor before it in its text, that with the token before it, and the nearest one
    behind it: what leads to a long address and what follows it."""
    every = np.arange(len(here))
    last = _moved(np.maximum.accumulate(np.where(anchor, every, 0)), 1)
    following = _moved(np.minimum.accumulate(np.where(anchor, every, len(here) - 1)[::-1])[::-1], -1)
    left, right = (np.where(anchor[at] & (inside[at] == inside), here[at], np.uint32(19)) for at in (last, following))
    return (left, _mix(left, np.where(left == 19, left, here[last - 1]))), right


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
    found = []
    for forms in (lines, marks):
        before, last, following, second, third = _nearest(np.where(inside < 0, np.uint32(1), forms), row)
        behind = _mix(_mix(following, second), third)
        whole = _mix(_mix(before, last), behind)
        found += [_mix(last, following), behind, whole, _mix(whole, shape)]
    anchors = np.where(what == _ANCHOR, here, np.uint32(0))
    before, last, following, second, _ = _nearest(np.where(inside < 0, np.uint32(1), anchors), row)
    return [*found, _mix(before, last), _mix(following, second), _mix(last, _mix(following, shape)), _mix(marks, here)]


def _nearest(forms: NDArray[np.uint32], row: NDArray[np.int64]) -> list[NDArray[np.uint32]]:
    """Of what is not 0: for each place the second and the first at or before it, and the first three behind it, 0 where
    they are of another text."""
    (places,) = np.nonzero(forms)
    at = np.searchsorted(places, np.arange(len(forms)), side="right")
    of, row_of = (np.concatenate([some[places], [0, 0, 0]]) for some in (forms, row + 1))
    return [np.where(row_of[at + by] == row + 1, of[at + by], 0).astype(np.uint32) for by in (-2, -1, 0, 1, 2)]


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


def _moved(values: NDArray[Any], by: int) -> NDArray[Any]:
    return np.concatenate((values[-by:], values[:-by]))


def _line(between: str) -> int:
    """The form of a break of lines: how many, and whether the next one is set in; 0 for none."""
    return 2 + 2 * min(between.count("\n"), 3) + between[-1].isspace() * (between[-1] != "\n") if "\n" in between else 0


def _mix(a: NDArray[np.uint32], b: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """One hash of two (the finaliser of MurmurHash3)."""
    found = a * _FACTORS[0] + b * _FACTORS[1] + _FACTORS[2]
    for shift, factor in _STEPS:
        found ^= found >> shift
        found *= factor
    return found ^ (found >> _STEPS[0][0])


def pieces(text: str, places: NDArray[np.int64], most: int) -> Iterator[slice]:
    """Tokens that are read together: at most `most`, up to the end of a sentence where one is near enough."""
    start, count = 0, len(places)
    while count - start > most:
        ends = (at for at in range(start + most, start + most // 2, -1) if text[places[at - 1, 0]] in _ENDS)
        end = next(ends, start + most)
        yield slice(start, end)
        start = end
    yield slice(start, count)


@lru_cache
def possible(tags: int) -> NDArray[np.bool_]:
    """Whether one tag (row) may be followed by another (column): ``I-`` goes on with what is of its type."""
    found = np.ones((tags, tags), bool)
    found[:, 2::2] = False
    for at in range(2, tags, 2):
        found[[at - 1, at], at] = True
    found.setflags(write=False)
    return found


def spans(
    logits: NDArray[np.float32],
    places: NDArray[np.int64],
    kinds: Sequence[str],
    transitions: NDArray[np.float64],
    caution: float = 0.0,
    own: NDArray[np.float64] | None = None,
) -> list[Tagged]:
    """The spans of the likeliest tags, by Viterbi's algorithm.

    Args:
        logits: shape (tokens, tags).  transitions: shape (tags, tags), of one behind another; a text begins behind O.
        caution: added for each span behind an ``O``: more are found, and more of them wrongly; none gets longer by it.
        own: cautions of each kind, shape (kinds,), 0 for none of its own. What is found with them joins what is found
            without, of their kinds and where nothing is: so no kind loses a span by it.
    """
    found = _likeliest(logits, places, kinds, transitions, np.full(len(kinds), caution, np.float64))
    if own is None or not own.any():
        return found
    for one in _likeliest(logits, places, kinds, transitions, np.where(own, own, caution)):
        if own[kinds.index(one.kind)] and not any(one.start < other.end and other.start < one.end for other in found):
            found.append(one)
    return sorted(found)


def _likeliest(
    logits: NDArray[np.float32],
    places: NDArray[np.int64],
    kinds: Sequence[str],
    transitions: NDArray[np.float64],
    caution: NDArray[np.float64],
) -> list[Tagged]:
    scores = logits.astype(np.float64)
    allowed = np.where(possible(scores.shape[1]), transitions, _NEVER)
    allowed[0, 1::2] += caution
    # What is outside so surely ends what the tags before it have to do with those behind it.
    inside = scores[:, 1:].max(axis=1, initial=_NEVER) > scores[:, 0] - _SURE - np.max(caution, initial=0)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], inside, [False]]).astype(np.int8))).reshape(-1, 2)
    found: list[Tagged] = []
    for start, end in edges.tolist():
        path = _best(scores[start:end], allowed, ends=end == len(scores))
        found += _joined(path, scores[start:end], places[start:end], kinds)
    return found


def _best(scores: NDArray[np.float64], transitions: NDArray[np.float64], ends: bool) -> list[int]:
    """The likeliest path of tags behind one that is outside, and before another where the text does not end."""
    best = np.empty_like(scores)  # of a path that ends in each tag
    best[0] = scores[0] + transitions[0]
    ways, followed = np.empty_like(transitions), np.ascontiguousarray(transitions.T)
    for row, before, here in zip(scores[1:], best[:, :, None], best[1:], strict=False):
        np.add(before, transitions, ways)
        np.maximum.reduce(ways, 0, None, here)
        here += row
    path = [int((best[-1] if ends else best[-1] + transitions[:, 0]).argmax())]
    for row in best[-2::-1]:
        path.append(int((row + followed[path[-1]]).argmax()))
    return path[::-1]


def _joined(
    path: Sequence[int], scores: NDArray[np.float64], places: NDArray[np.int64], kinds: Sequence[str]
) -> Iterator[Tagged]:
    highest = scores.max(axis=1)
    every = np.log(np.exp(scores - highest[:, None]).sum(axis=1)) + highest
    chances = np.exp(scores[np.arange(len(path)), path] - every)
    at = 0
    while at < len(path):
        end = at + 1
        if path[at]:
            while end < len(path) and path[end] and path[end] % 2 == 0:
                end += 1
            sure = float(chances[at:end].sum() / (end - at))
            yield Tagged(int(places[at, 0]), int(places[end - 1, 1]), kinds[(path[at] - 1) // 2], sure)
        at = end


def surest(found: Sequence[Tagged]) -> Tagged | None:
    """The span with the highest score, of equal ones the first; None where there is none."""
    return max(found, key=lambda one: one.score, default=None)


def hidden(text: str, start: int, end: int) -> str:
    """`text` with white squares in the place of what is not white space from `start` to `end`."""
    return text[:start] + "".join(one if one.isspace() else _HIDDEN for one in text[start:end]) + text[end:]


def left_of(span: Tagged, found: Iterable[Tagged]) -> float:
    """How much of `span` is still found: of those of its kind the highest score, times the share of characters that
    both have of what they cover together; 0 where there is none."""
    return max((one.score * _shared(span, one) for one in found if one.kind == span.kind), default=0.0)


def _shared(one: Tagged, other: Tagged) -> float:
    both = max(0, min(one.end, other.end) - max(one.start, other.start))
    return both / (one.end - one.start + other.end - other.start - both)
