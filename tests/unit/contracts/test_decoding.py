"""Greedy and beam search over a model whose chances are a table, against what one finds by trying everything."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from contracts.decoding import Decoding, Said, write

END, SIZE = 0, 5


class Table:
    """Chances that depend on the row and the last two tokens; counts the texts that it was asked for."""

    def __init__(self, seed: int, rows: int) -> None:
        drawn = np.random.default_rng(seed).gumbel(size=(rows, SIZE, SIZE, SIZE)) * 2
        self.logs = drawn - np.log(np.exp(drawn).sum(axis=3, keepdims=True))
        self.state = np.stack([np.arange(rows), np.zeros(rows, int), np.zeros(rows, int)], axis=1)
        self.asked = 0

    def begin(self) -> Any:
        return self._scores()

    def step(self, chosen: Any, behind: Any) -> Any:
        if behind is not None:
            self.state = self.state[behind]
        self.state = np.stack([self.state[:, 0], self.state[:, 2], chosen], axis=1)
        return self._scores()

    def _scores(self) -> Any:
        self.asked += len(self.state)
        return self.logs[tuple(self.state.T)].astype(np.float32)

    def value(self, row: int, text: tuple[int, ...]) -> float:
        before, last, total = 0, 0, 0.0
        for token in text:
            total += float(np.float32(self.logs[row, before, last, token]))
            before, last = last, token
        return total


@given(st.integers(0, 10_000), st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_enough_beams_find_the_best_text_of_all(seed: int, most: int) -> None:
    model = Table(seed, 2)
    how = Decoding(beams=32, max_tokens=most + 1, length_penalty=0.0)
    said = write(model, 2, how, END)
    for row in range(2):
        texts = [(*text, END) for size in range(1, most + 1) for text in product(range(1, SIZE), repeat=size)]
        best = max(texts, key=lambda text: model.value(row, text))
        assert model.value(row, (*said[row].tokens, END)) >= model.value(row, best) - 1e-5
        assert said[row].ended


@given(st.integers(0, 10_000), st.integers(1, 4), st.sampled_from([0, 2, 3]), st.integers(0, 3))
@example(1820, 4, 0, 2)  # more beams than tokens that are allowed
@settings(max_examples=30, deadline=None)
def test_a_text_keeps_to_its_limits_and_does_not_depend_on_the_rows_beside_it(
    seed: int, beams: int, no_repeat: int, least: int
) -> None:
    how = Decoding(beams=beams, max_tokens=8, min_tokens=least, no_repeat=no_repeat)
    together = write(Table(seed, 3), 3, how, END, never=[4])
    for row in range(3):
        alone = Table(seed, 3)
        alone.state = alone.state[row : row + 1]
        assert write(alone, 1, how, END, never=[4]) == [together[row]]
        text = together[row].tokens
        assert least <= len(text) <= 8
        assert not {4, END} & set(text)
        grams = [tuple(text[at : at + no_repeat]) for at in range(len(text) - no_repeat + 1)] if no_repeat else []
        assert len(grams) == len(set(grams))
        assert together[row].ended or len(text) == 8


def test_greedy_takes_the_likeliest_token_each_time_and_rows_that_have_ended_cost_nothing() -> None:
    model = Table(0, 1)
    model.logs[:] = -5.0
    model.logs[0, 0, 0, 3] = model.logs[0, 0, 3, 2] = model.logs[0, 3, 2, END] = -0.1
    assert write(model, 1, Decoding(), END) == [Said(tokens=[3, 2], ended=True)]
    assert model.asked == 3
    assert write(Table(0, 1), 0, Decoding(), END) == []


@pytest.mark.parametrize("beams", [1, 3])
def test_a_text_that_never_ends_is_cut_and_says_so(beams: int) -> None:
    model = Table(1, 1)
    model.logs[..., END] = -1e6
    said = write(model, 1, Decoding(beams=beams, max_tokens=5), END)[0]
    assert (len(said.tokens), said.ended) == (5, False)
