"""Which images are nearly the same, against a comparison of every image with every other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.image_traits import _divided, near_groups


def brute_groups(grays: np.ndarray) -> list[int]:
    """For each of the grays, shape (n, 8, 9), the first that it is connected with."""
    flat = grays.reshape(len(grays), -1).astype(np.int64)
    bits = (grays[:, :, 1:] > grays[:, :, :-1]).reshape(len(grays), -1)
    even = flat * 72 - flat.sum(axis=1, keepdims=True)
    shows = flat.std(axis=1) >= 4
    near = (bits[:, None] != bits[None]).sum(axis=2) <= 3
    near &= np.abs(even[:, None] - even[None]).sum(axis=2) <= 3 * 72 * 72
    near &= shows[:, None] & shows[None]
    found = np.arange(len(grays))
    for _ in range(len(grays)):
        least = np.where(near | np.eye(len(grays), dtype=bool), found[None], len(grays)).min(axis=1)
        if np.array_equal(least, found):
            break
        found = least
    return found.tolist()


def grouped(grays: np.ndarray) -> list[int]:
    """The same by what is tested."""
    bits = np.packbits((grays[:, :, 1:] > grays[:, :, :-1]).reshape(len(grays), -1), axis=1)
    looks = [one.tobytes().hex() + two.tobytes().hex() for one, two in zip(bits, grays, strict=True)]
    return [int(name) for name in near_groups([f"{at:06}" for at in range(len(grays))], looks)]


@pytest.mark.parametrize("many", [4, 256])
@pytest.mark.parametrize("seed", range(6))
def test_near_duplicates_are_those_of_all_pairs(seed: int, many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.data.image_traits._MANY", many)
    monkeypatch.setattr("pipelines.data.image_traits._AT_ONCE", 500)
    monkeypatch.setattr("pipelines.data.image_traits._GRAYS_AT_ONCE", 37)
    rng = np.random.default_rng(seed)
    bases = rng.integers(90, 160, (4, 8, 9))
    bases[0] = np.arange(9) * 3 + 90  # a ramp: contrast changes, its hash does not
    bases[1, 2:6] = 100  # as scans with a blank middle
    made = []
    for _ in range(220):
        base = bases[rng.integers(4)]
        stretched = (base - 100) * rng.choice([0.1, 0.6, 1.0, 1.3, 1.6]) + 100 + rng.integers(-20, 21)
        noise = rng.integers(-2, 3, (8, 9)) * (rng.random((8, 9)) < rng.choice([0.0, 0.1, 0.6]))
        made.append(np.clip(stretched + noise, 0, 255))
    grays = np.array(made).astype(np.uint8)
    groups = brute_groups(grays)
    assert 4 < len(set(groups)) < 200
    assert grouped(grays) == groups


def test_many_of_one_hash_hide_no_near_duplicate() -> None:
    ramps = np.array([np.tile(np.arange(9) * step, (8, 1)) for step in (1, 9, 17, 25)], np.uint8)
    lifts = np.linspace(0, 30, 60).astype(int)
    between = np.array([np.tile(np.linspace(0, 90 + 3 * lift, 9), (8, 1)) for lift in lifts]).astype(np.uint8)
    one, other = ramps[3].copy(), ramps[3].copy()
    other[0, 8] -= 1
    grays = np.concatenate([one[None], between, np.repeat(ramps[2:3], 60, axis=0), other[None]])
    groups = grouped(grays)
    assert groups[0] == groups[-1]
    assert groups == brute_groups(grays)


def rising(count: int, seed: int) -> np.ndarray:
    """Different images of one hash and one contrast: in each row grays rise, by steps of their own."""
    rng = np.random.default_rng(seed)
    grays = np.cumsum(rng.exponential(1, (count, 8, 9)) + 0.3, axis=2) + rng.normal(0, 2, (count, 8, 1))
    grays -= grays.mean(axis=(1, 2), keepdims=True)
    return np.clip(128 + grays * 30 / np.abs(grays).mean(axis=(1, 2), keepdims=True), 0, 255).astype(np.uint8)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 60), st.integers(0, 9999), st.sampled_from([1, 2, 4]))
def test_images_of_one_hash_have_the_groups_of_all_pairs(count: int, seed: int, most: int) -> None:
    """Each in several copies, so far from it that some are near and some are not."""
    rng = np.random.default_rng(seed)
    copies = np.repeat(rising(count, seed), 3, axis=0).astype(np.int64)
    copies += rng.integers(-most, most + 1, copies.shape) * rng.integers(1, 4, (len(copies), 1, 1))
    grays = np.clip(copies, 0, 255).astype(np.uint8)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("pipelines.data.image_traits._MANY", 4)
        assert grouped(grays) == brute_groups(grays)


@pytest.mark.parametrize("seed", range(4))
def test_what_divides_images_parts_no_two_that_are_near(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of one hash whose upper rows, and whose even rows, are brighter: about half have a near one."""
    monkeypatch.setattr("pipelines.data.image_traits._MANY", 4)
    upper, even = np.random.default_rng(seed).integers(0, 90, (2, 120, 1, 1))
    rows = np.arange(8)[:, None]
    grays = (np.arange(9) * 3 + 40 + upper * (rows < 4) + even * (rows % 2 == 0)).astype(np.uint8)
    groups = brute_groups(grays)
    assert 20 < len(set(groups)) < 100
    assert grouped(grays) == groups


def test_many_different_images_of_one_hash_are_hardly_compared() -> None:
    """Pairs to compare: a fixed number for each image, and not one for each of the others."""
    pairs = {}
    for count in (1_500, 6_000):
        flat = rising(count, 1).reshape(count, 72).astype(np.float32) * 72
        flat = flat - np.rint(flat.mean(axis=1, keepdims=True))
        pairs[count] = sum(len(one) ** 2 for one in _divided(np.arange(count), flat)) / count
    assert pairs[6_000] < 2 * pairs[1_500]
    assert pairs[6_000] < 6_000 / 5


def test_blank_images_are_told_apart_by_their_bytes() -> None:
    assert near_groups([], []) == []
    assert grouped(np.full((3, 8, 9), 255, np.uint8)) == [0, 1, 2]
    assert near_groups(["a", "b", "a"], ["00" * 8 + "ff" * 72] * 3) == ["a", "b", "a"]
