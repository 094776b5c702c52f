"""Batches by length, and noise that keeps a text a text."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.training.batches import AugmentConfig, augment, bucket, pad


@given(lengths=st.lists(st.integers(0, 50), min_size=1, max_size=300), size=st.integers(1, 32))
@settings(deadline=None, max_examples=50)
def test_every_row_is_in_one_batch(lengths: list[int], size: int) -> None:
    batches = bucket(np.array(lengths), size, np.random.default_rng(0))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert max(map(len, batches)) <= size


def test_rows_of_similar_length_are_together() -> None:
    lengths = np.random.default_rng(1).integers(1, 200, 2000)
    batches = bucket(lengths, 20, np.random.default_rng(0))
    padded = sum(int(lengths[b].max()) * len(b) for b in batches)
    assert padded < 1.15 * lengths.sum()  # in random order it is about twice the sum


def test_the_order_depends_on_the_seed_alone() -> None:
    lengths = np.arange(100)
    first, again, other = (bucket(lengths, 8, np.random.default_rng([7, epoch])) for epoch in (0, 0, 1))
    assert np.array_equal(np.concatenate(first), np.concatenate(again))
    assert not np.array_equal(np.concatenate(first), np.concatenate(other))


@given(ids=st.lists(st.integers(2, 90), max_size=40), rates=st.tuples(*[st.floats(0, 1)] * 3))
@settings(deadline=None, max_examples=80)
def test_noise_adds_no_token_and_never_empties_a_text(ids: list[int], rates: tuple[float, float, float]) -> None:
    config = AugmentConfig(hide=rates[0], delete=rates[1], swap=rates[2])
    text = np.array(ids, np.int64)
    noisy = augment(text, config, 1, np.random.default_rng(0))
    assert text.tolist() == ids
    assert set(noisy.tolist()) <= {*ids, 1}
    assert bool(len(noisy)) == bool(ids)
    assert len(noisy) <= len(ids)


def test_noise_comes_at_the_rates_asked_for() -> None:
    text, rng = np.arange(2, 100_002), np.random.default_rng(0)
    hidden = augment(text, AugmentConfig(hide=0.2, delete=0, swap=0), 1, rng)
    assert abs((hidden == 1).mean() - 0.2) < 0.01
    assert abs(len(augment(text, AugmentConfig(hide=0, delete=0.1, swap=0), 1, rng)) / len(text) - 0.9) < 0.01
    swapped = augment(text, AugmentConfig(hide=0, delete=0, swap=0.05), 1, rng)
    assert sorted(swapped.tolist()) == text.tolist()
    assert 0.08 < (swapped != text).mean() < 0.12
    assert np.array_equal(augment(text, AugmentConfig(hide=0, delete=0, swap=0), 1, rng), text)


def test_padding_is_on_the_right_and_an_empty_text_is_one_token_long() -> None:
    ids, lengths = pad([np.array([5, 6]), np.array([], np.int64)], 0)
    assert ids.tolist() == [[5, 6], [0, 0]]
    assert lengths.tolist() == [2, 1]
