"""Texts from a model that gives the next token's chances: greedy, or the best of several beams."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from pydantic import Field

from contracts.document import Document

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NEVER = -1e9


class Decoding(Document):
    """How a text is written.

    Attributes:
        beams: texts that are continued side by side; 1 is greedy.
        max_tokens, min_tokens: of a text, without the mark of its end.
        no_repeat: no sequence of so many tokens stands twice in a text; 0 allows it.
        length_penalty: beams are compared by their log-likelihood through tokens to this power: above 0 longer texts
            win more often (Y. Wu et al., 2016, in the form of transformers).
    """

    beams: int = Field(default=1, ge=1, le=32)
    max_tokens: int = Field(default=128, ge=1, le=4_096)
    min_tokens: int = Field(default=1, ge=0)
    no_repeat: int = Field(default=0, ge=0)
    length_penalty: float = Field(default=1.0, ge=-10, le=10)


class Writer(Protocol):
    """A model in the middle of texts; those that it continues are numbered 0, 1, ..."""

    def begin(self) -> NDArray[np.float32]:
        """Log-likelihoods of the first token of each text, shape (texts, vocabulary)."""
        ...

    def step(self, chosen: NDArray[np.int64], behind: NDArray[np.int64] | None) -> NDArray[np.float32]:
        """Those of the next token, when text i goes on with token ``chosen[i]`` behind what text ``behind[i]`` had.

        None: the texts are the same as before, in their order.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Said:
    """The tokens of a text, and whether it came to its end by itself."""

    tokens: list[int]
    ended: bool


def write(model: Writer, rows: int, how: Decoding, end: int, never: Sequence[int] = ()) -> list[Said]:
    """A text for each of `rows`.

    Args:
        end: the token that ends a text.  never: tokens that no text has.
    """
    return greedy(model, rows, how, end, never) if how.beams == 1 else search(model, rows, how, end, never)


def greedy(model: Writer, rows: int, how: Decoding, end: int, never: Sequence[int] = ()) -> list[Said]:
    """The likeliest token each time. A row whose text has ended costs nothing more."""
    texts: list[list[int]] = [[] for _ in range(rows)]
    ended = [False] * rows
    alive = list(range(rows))
    scores = model.begin() if rows else np.zeros((0, 1), np.float32)
    for at in range(how.max_tokens):
        _limit(scores, [texts[row] for row in alive], at, how, end, never)
        chosen = scores.argmax(axis=1).astype(np.int64)
        for row, token in zip(alive, chosen.tolist(), strict=True):
            ended[row] = token == end
            if token != end:
                texts[row].append(token)
        going = np.flatnonzero(chosen != end)
        stopped = len(going) < len(alive)
        alive = [alive[at] for at in going.tolist()]
        if not alive or at + 1 == how.max_tokens:
            break
        scores = model.step(chosen[going], going if stopped else None)
    return [Said(tokens=text, ended=done) for text, done in zip(texts, ended, strict=True)]


@dataclass
class _Row:
    """A row of `search`: the texts that go on with the sums of their log-likelihoods, and those that have ended."""

    number: int
    texts: list[list[int]]
    sums: list[float]
    done: list[tuple[float, list[int]]]


def search(model: Writer, rows: int, how: Decoding, end: int, never: Sequence[int] = ()) -> list[Said]:
    """Of `beams` texts a row the one with the best log-likelihood by length; ties go to the one found first."""
    found: list[Said] = [Said(tokens=[], ended=False)] * rows
    going = [_Row(number=row, texts=[[]], sums=[0.0], done=[]) for row in range(rows)]
    scores = model.begin() if rows else np.zeros((0, 1), np.float32)
    for at in range(how.max_tokens):
        _limit(scores, [text for row in going for text in row.texts], at, how, end, never)
        chosen: list[int] = []
        behind: list[int] = []
        left: list[_Row] = []
        start = 0
        for row in going:
            count = len(row.texts)
            steps = _grown(row, scores[start : start + count], at, how, end)
            last = at + 1 == how.max_tokens
            if last or _is_decided(row, at, how):
                found[row.number] = _best(row, at, how)
            else:
                left.append(row)
                chosen += [token for _, token in steps]
                behind += [start + text for text, _ in steps]
            start += count
        going = left
        if not going:
            break
        scores = model.step(np.array(chosen, np.int64), np.array(behind, np.int64))
    return found


def _grown(row: _Row, scores: NDArray[np.float32], at: int, how: Decoding, end: int) -> list[tuple[int, int]]:
    """Let the texts of `row` go on by one token; returns which text each one continues, and by which token."""
    total = np.asarray(row.sums)[:, None] + scores.astype(np.float64)
    flat, size = total.ravel(), total.shape[1]
    most = min(2 * how.beams, flat.size)
    top = np.argpartition(-flat, most - 1)[:most]
    top = top[np.lexsort((top, -flat[top]))]
    allowed = scores.ravel()[top] > _NEVER / 2
    if allowed.any():
        top = top[allowed]
    steps: list[tuple[int, int]] = []
    texts, sums = [], []
    for rank, place in enumerate(top.tolist()):
        text, token = divmod(place, size)
        value = float(flat[place])
        if token == end:
            if rank < how.beams:
                row.done.append((_by_length(value, at + 1, how), row.texts[text]))
        elif len(steps) < how.beams:
            steps.append((text, token))
            texts.append([*row.texts[text], token])
            sums.append(value)
    row.texts, row.sums = texts, sums
    return steps


def _is_decided(row: _Row, at: int, how: Decoding) -> bool:
    """Whether none of the texts that go on is likely to become better than those that have ended."""
    if not row.texts:
        return True
    worst = sorted((score for score, _ in row.done), reverse=True)[: how.beams]
    return len(worst) == how.beams and worst[-1] >= _by_length(max(row.sums), at + 1, how)


def _best(row: _Row, at: int, how: Decoding) -> Said:
    """Of the texts that have ended; where none has, of those that go on."""
    if row.done:
        return Said(tokens=max(row.done, key=lambda one: one[0])[1], ended=True)
    return Said(tokens=row.texts[int(np.argmax(row.sums))] if row.texts else [], ended=False)


def _by_length(total: float, tokens: int, how: Decoding) -> float:
    return total / math.pow(tokens, how.length_penalty)


def _limit(
    scores: NDArray[np.float32], texts: Sequence[Sequence[int]], at: int, how: Decoding, end: int, never: Sequence[int]
) -> None:
    """Take the chance, in place, from what `how` forbids behind each of `texts`, which have `at` tokens."""
    if len(never):
        scores[:, list(never)] = _NEVER
    if at < how.min_tokens:
        scores[:, end] = _NEVER
    if how.no_repeat and at + 1 >= how.no_repeat:
        for row, text in enumerate(texts):
            if banned := _repeated(text, how.no_repeat):
                scores[row, banned] = _NEVER


def _repeated(text: Sequence[int], size: int) -> list[int]:
    """The tokens that would let a sequence of `size` tokens stand in `text` again."""
    ending = list(text[len(text) - size + 1 :])
    return [text[at + size - 1] for at in range(len(text) - size + 1) if list(text[at : at + size - 1]) == ending]
