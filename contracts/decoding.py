"""Texts from a model that gives the next token's chances: greedy, the best of several beams, or drawn by chance."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Protocol

import numpy as np
from pydantic import ConfigDict, Field

from contracts.document import Document

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NEVER = -1e9


class Sampling(Document):
    """How tokens are drawn, where a text is asked for that is not the likeliest one.

    Attributes:
        temperature: log-likelihoods are divided by it; below 1 likely tokens are drawn more often. 0 draws nothing.
        top_k: only so many tokens, the likeliest, may be drawn; 0 is all.
        top_p: only the likeliest tokens that have this share of the chances together (A. Holtzman et al., 2020).
        seed: the same seed draws the same text for the same source, whatever is written beside it. None: another one
            each time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_k: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None


class Drawn(list[int]):
    """The token ids of a source whose text is drawn as `how` says."""

    def __init__(self, ids: Iterable[int], how: Sampling) -> None:
        super().__init__(ids)
        self.how = how


class Decoding(Document):
    """How a text is written.

    Attributes:
        beams: texts that are continued side by side; 1 is greedy.
        max_tokens, min_tokens: of a text, without the mark of its end.
        no_repeat: no sequence of so many tokens stands twice in a text; 0 allows it.
        length_penalty: beams are compared by their log-likelihood through tokens to this power: above 0 longer texts
            win more often (Y. Wu et al., 2016, in the form of transformers).
        sampling: what holds for texts that are drawn, which have no beams, unless more is said; none is drawn unasked.
    """

    beams: int = Field(default=1, ge=1, le=32)
    max_tokens: int = Field(default=128, ge=1, le=4_096)
    min_tokens: int = Field(default=1, ge=0)
    no_repeat: int = Field(default=0, ge=0)
    length_penalty: float = Field(default=1.0, ge=-10, le=10)
    sampling: Sampling = Sampling()


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
    return _one_by_one(model, rows, how, end, never, lambda scores, _: scores.argmax(axis=1).astype(np.int64))


def sample(model: Writer, draws: Sequence[Sampling], how: Decoding, end: int, never: Sequence[int] = ()) -> list[Said]:
    """A text for each of `draws`, whose every token is drawn; of a temperature of 0 the likeliest each time.

    Each row has a generator of its own, so its text does not depend on the rows beside it.
    """
    generators = [np.random.default_rng(one.seed) for one in draws]

    def choose(scores: NDArray[np.float32], alive: Sequence[int]) -> NDArray[np.int64]:
        found = [draw(one, draws[row], generators[row]) for one, row in zip(scores, alive, strict=True)]
        return np.array(found, np.int64)

    return _one_by_one(model, len(draws), how, end, never, choose)


def draw(scores: NDArray[np.float32], how: Sampling, generator: np.random.Generator) -> int:
    """A token, of log-likelihoods of shape (vocabulary,). One number is drawn for each, whatever the settings are."""
    point = generator.random()
    if how.temperature == 0:
        return int(scores.argmax())
    logs = scores.astype(np.float64)
    with np.errstate(over="ignore"):  # of a temperature near 0 all but the likeliest have none
        chances = np.exp((logs - logs.max()) / how.temperature)
    chances[logs <= _NEVER / 2] = 0.0  # what is forbidden stays so at any temperature
    if 0 < how.top_k < len(chances):
        chances[np.argsort(-chances, kind="stable")[how.top_k :]] = 0.0
    if how.top_p < 1:
        order = np.argsort(-chances, kind="stable")
        shares = np.cumsum(chances[order])
        chances[order[np.searchsorted(shares, how.top_p * shares[-1]) + 1 :]] = 0.0
    # In the order of the vocabulary, so that two nearly equal chances that change places hardly move a border.
    borders = np.cumsum(chances)
    found = int(np.searchsorted(borders, point * borders[-1], side="right"))
    return min(found, int(np.flatnonzero(chances)[-1]))


def _one_by_one(
    model: Writer,
    rows: int,
    how: Decoding,
    end: int,
    never: Sequence[int],
    choose: Callable[[NDArray[np.float32], Sequence[int]], NDArray[np.int64]],
) -> list[Said]:
    """Texts whose next tokens `choose` takes, of the scores of these rows."""
    texts: list[list[int]] = [[] for _ in range(rows)]
    ended = [False] * rows
    alive = list(range(rows))
    scores = model.begin() if rows else np.zeros((0, 1), np.float32)
    for at in range(how.max_tokens):
        _limit(scores, [texts[row] for row in alive], at, how, end, never)
        chosen = choose(scores, alive)
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
