"""Greedy and beam search over a model whose chances are a table, against what one finds by trying everything."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from contracts.decoding import Decoding, Said, Sampling, draw, sample, write

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


@given(st.integers(0, 10_000), st.sampled_from([0.3, 1.0, 2.0]), st.sampled_from([0, 2]), st.sampled_from([0.6, 1.0]))
@settings(max_examples=20, deadline=None)
def test_a_drawn_text_depends_on_its_seed_and_not_on_the_rows_beside_it(
    seed: int, temperature: float, top_k: int, top_p: float
) -> None:
    how = Decoding(max_tokens=8, min_tokens=2, no_repeat=3)
    draws = [Sampling(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed + row) for row in range(3)]
    together = sample(Table(seed, 3), draws, how, END, never=[4])
    for row in range(3):
        alone = Table(seed, 3)
        alone.state = alone.state[row : row + 1]
        assert sample(alone, [draws[row]], how, END, never=[4]) == [together[row]]
        assert not {4, END} & set(together[row].tokens)
        assert 2 <= len(together[row].tokens) <= 8
    greedy = write(Table(seed, 3), 3, how, END, never=[4])
    assert sample(Table(seed, 3), [Sampling(temperature=0, seed=1)] * 3, how, END, never=[4]) == greedy


def test_texts_without_a_seed_differ() -> None:
    how, table = Decoding(max_tokens=30, min_tokens=30), Table(1, 2)
    table.state[1] = table.state[0]
    said = sample(table, [Sampling(temperature=2.0)] * 2, how, END)
    assert said[0].tokens != said[1].tokens


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0.4, 0.3, 0.2, 0.1]),
        ({"temperature": 0.5}, [16 / 30, 9 / 30, 4 / 30, 1 / 30]),
        ({"top_k": 2}, [4 / 7, 3 / 7, 0, 0]),
        ({"top_p": 0.69}, [4 / 7, 3 / 7, 0, 0]),
        ({"top_p": 0.71}, [4 / 9, 3 / 9, 2 / 9, 0]),
        ({"top_p": 1e-9}, [1, 0, 0, 0]),
        ({"top_k": 3, "top_p": 0.5}, [4 / 7, 3 / 7, 0, 0]),  # of what top_k leaves
        ({"top_k": 900}, [0.4, 0.3, 0.2, 0.1]),
        ({"temperature": 0}, [1, 0, 0, 0]),
        ({"temperature": 1e-300}, [1, 0, 0, 0]),
    ],
)
def test_tokens_are_drawn_as_often_as_their_chances_say(settings: dict[str, Any], expected: list[float]) -> None:
    """The forbidden token, the last, is never drawn."""
    scores = np.append(np.log([0.4, 0.3, 0.2, 0.1]), -1e9).astype(np.float32)
    how, generator = Sampling(**settings), np.random.default_rng(0)
    found = np.bincount([draw(scores, how, generator) for _ in range(2_000)], minlength=5) / 2_000
    assert found == pytest.approx([*expected, 0], abs=0.04)
    assert not found[[*(np.array(expected) == 0), True]].any()
