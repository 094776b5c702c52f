"""Spans in texts by tags of tokens: ``O``, and ``B-`` and ``I-`` of each type (L. Ramshaw, M. Marcus, 1995)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ENDS = frozenset(".!?;\n。！？；")
_NEVER = -1e9
_HIDDEN = "\u25a1"  # in the place of a character that is hidden: places stay as they are


class Tagged(NamedTuple):
    """``text[start:end]`` is of `kind`; `score` is the mean probability of its tags."""

    start: int
    end: int
    kind: str
    score: float


def tags_of(kinds: Sequence[str]) -> list[str]:
    """The tags in the order of the graph's output."""
    return ["O", *(f"{mark}-{kind}" for kind in kinds for mark in "BI")]


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
    moves = transitions.astype(np.float64)
    moves[0, 1::2] += caution
    chain = _chain(moves.tobytes(), len(moves))
    scores = logits.astype(np.float64).take(chain.order, axis=1)
    # What is outside for sure ends what the tags before it have to do with those behind it.
    inside = np.concatenate([[False], _perhaps_inside(scores, chain), [False]])
    edges = np.flatnonzero(inside[1:] != inside[:-1]).reshape(-1, 2)
    return list(_joined(_best(scores, chain, edges), scores, places, kinds)) if len(edges) else []


class _Chain(NamedTuple):
    """Moves of one tag behind another, in the `order` of ``O``, then ``B-`` and then ``I-`` of each kind.

    moves: shape (tags, tags), of one tag (row) to another.  followed: those turned round.  on: to ``I-`` of the same
    kind, of ``B-`` and of ``I-``, shape (2 * kinds,).  alone, ahead: see `_perhaps_inside`, of the same shape.
    """

    order: NDArray[np.int64]
    moves: NDArray[np.float64]
    followed: NDArray[np.float64]
    on: NDArray[np.float64]
    alone: NDArray[np.float64]
    ahead: NDArray[np.float64]


@lru_cache(maxsize=64)
def _chain(raw: bytes, tags: int) -> _Chain:
    some = (tags + 1) // 2  # tags that may follow any other
    order = np.concatenate([[0], np.arange(1, tags, 2), np.arange(2, tags, 2)])
    moves = np.frombuffer(raw).reshape(tags, tags)[np.ix_(order, order)]
    begin, within = moves[1:some], moves[some:]
    begin_on, within_on = begin[:, some:].diagonal(), within[:, some:].diagonal()
    # The most that moves may add to a path with a span at a token, beside the one with O there instead: into it, out of
    # it, and where the span goes on and begins behind it instead.
    into = np.concatenate(
        [(moves[:, 1:some] - moves[:, :1]).max(axis=0), np.maximum(begin_on - begin[:, 0], within_on - within[:, 0])]
    )
    out = (moves[1:, :some] - moves[0, :some]).max(axis=1).clip(min=0)
    turned = np.maximum((within - begin)[:, :some].max(axis=1), within_on - begin_on).clip(min=0) - moves[0, 1:some]
    on = np.concatenate([begin_on, within_on])
    moves = np.where(possible(tags)[np.ix_(order, order)], moves, _NEVER)
    return _Chain(order, moves, np.ascontiguousarray(moves.T), on, into + out, into + on + np.tile(turned, 2))


def _perhaps_inside(scores: NDArray[np.float64], chain: _Chain) -> NDArray[np.bool_]:
    """Whether a token may be in a span of the likeliest path, shape (tokens,).

    It is not where each path with a span there is worth less than the one whose token is ``O`` instead: a span that
    went on behind it begins behind it then.
    """
    spans = scores[:, 1:]
    most, half = spans + chain.alone, spans.shape[1] // 2
    behind = spans[1:, half:] - spans[1:, :half]
    np.maximum(most[:-1], spans[:-1] + chain.ahead + np.tile(behind, 2), out=most[:-1])
    found: NDArray[np.bool_] = np.any(most >= scores[:, :1], axis=1)
    return found


def _best(scores: NDArray[np.float64], chain: _Chain, edges: NDArray[np.int64]) -> NDArray[np.int64]:
    """The likeliest path of tags, shape (tokens,), by Viterbi's algorithm in all parts that may hold spans at once.

    Args:
        edges: where the parts begin and end, shape (parts, 2); what is before and behind one is ``O``.
    """
    tags = len(chain.order)
    some = (tags + 1) // 2
    lengths = edges[:, 1] - edges[:, 0]
    parts = np.argsort(-lengths, kind="stable")  # the longest first, so that those that go on stay in front
    steps = np.arange(lengths[parts[0]])[:, None]
    going = lengths[parts] > steps
    rows = (edges[parts, 0] + steps)[going]  # the first tokens of all parts, then the second ones
    slices = [slice(*one) for one in pairwise([0, *going.sum(axis=1).cumsum().tolist()])]
    best = scores.take(rows, axis=0)  # becomes that of a path that ends in each tag
    best[slices[0]] += chain.moves[0]
    # One row for each tag before, and the parts beside each other: several times as fast as three axes.
    freely = np.tile(chain.moves[:, :some], (1, len(parts)))
    for last, now in pairwise(slices):
        count = now.stop - now.start
        before, added = best[last.start : last.start + count], np.empty((count, tags))
        ways = np.repeat(before.T, some, axis=1)
        ways += freely[:, : ways.shape[1]]
        added[:, :some] = ways.max(axis=0).reshape(count, some)
        within = before[:, 1:] + chain.on
        np.maximum(within[:, : some - 1], within[:, some - 1 :], out=added[:, some:])
        best[now] += added
    ends = np.zeros(len(scores), bool)
    ends[edges[:, 1] - 1] = True
    ends[-1] = False  # of what the text ends with nothing is behind
    best[ends[rows]] += chain.moves[:, 0]
    path, chosen = np.zeros(len(scores), np.int64), np.zeros(0, np.int64)
    for now in reversed(slices):
        here = best[now]
        here[: len(chosen)] += chain.followed[chosen]
        chosen = here.argmax(axis=1)
        path[rows[now]] = chosen
    return path


def _joined(
    path: NDArray[np.int64], scores: NDArray[np.float64], places: NDArray[np.int64], kinds: Sequence[str]
) -> Iterator[Tagged]:
    """The spans of a path of tags in the order of `_Chain`."""
    (at,) = np.nonzero(path)
    highest = scores[at].max(axis=1)
    every = np.log(np.exp(scores[at] - highest[:, None]).sum(axis=1)) + highest
    chances = np.exp(scores[at, path[at]] - every).tolist()
    begins = np.flatnonzero(path[at] <= len(kinds))
    for first, end in pairwise([*begins.tolist(), len(at)]):
        sure = sum(chances[first:end]) / (end - first)
        start, last = at[first], at[end - 1]
        yield Tagged(int(places[start, 0]), int(places[last, 1]), kinds[path[start] - 1], sure)


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
