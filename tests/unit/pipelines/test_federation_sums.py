"""Aggregation and the secure sum: what holds whatever sites send."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from contracts.errors import PlatformError
from pipelines.federation.aggregate import RULES, Rule, Updates, bounded, clipped
from pipelines.federation.certificates import checker, make_certificates, signer
from pipelines.federation.messages import Message, packed, unpacked
from pipelines.federation.secure_sum import (
    Keys,
    Masker,
    as_numbers,
    as_words,
    generated,
    join_secret,
    split_secret,
    summed,
    threshold_of,
)

FINITE = st.floats(-1e3, 1e3, allow_nan=False)
SITES = tuple(f"site-{at}" for at in range(7))
some_updates = arrays.arrays(np.float64, st.tuples(st.integers(1, 9), st.integers(1, 6)), elements=FINITE)


def updates(values: Any) -> Updates:
    return Updates(values=np.asarray(values, dtype=np.float64), rows=np.arange(1.0, 1 + len(values)))


def rule(trim: float = 0.2) -> Rule:
    return Rule(trim=trim, loss=lambda step: float(np.square(step).sum()))


@given(some_updates, st.sampled_from(sorted(RULES)))
def test_what_a_rule_finds_lies_between_the_updates(values: Any, name: str) -> None:
    found = RULES[name](updates(values), rule())
    assert np.all(found <= values.max(axis=0) + 1e-6)
    assert np.all(found >= values.min(axis=0) - 1e-6)


@given(some_updates, st.randoms(use_true_random=False))
def test_the_order_of_sites_does_not_count(values: Any, random: Any) -> None:
    order = list(range(len(values)))
    random.shuffle(order)
    given = updates(values)
    other = Updates(values=given.values[order], rows=given.rows[order])
    for name in ("mean", "trimmed"):
        assert RULES[name](given, rule()) == pytest.approx(RULES[name](other, rule()))


@given(arrays.arrays(np.float64, (8, 3), elements=st.floats(-1, 1)), st.floats(1e3, 1e12), st.sampled_from((-1, 1)))
def test_two_poisoners_of_ten_move_robust_rules_no_further_than_the_others_lie(
    good: Any, far: float, side: int
) -> None:
    values = np.concatenate([good, np.full((2, 3), side * far)])
    for name in ("trimmed", "screened"):
        assert np.all(np.abs(RULES[name](updates(values), rule())) <= 1.0 + 1e-9), name
    assert np.abs(RULES["mean"](updates(values), rule())).max() > 1.0


@given(some_updates, st.floats(0.5, 4))
def test_no_update_is_longer_than_so_many_times_the_median(values: Any, times: float) -> None:
    found, cut = bounded(updates(values), times)
    most = times * np.median(np.linalg.norm(values, axis=1))
    assert np.all(np.linalg.norm(found.values, axis=1) <= most * (1 + 1e-9) + 1e-12)
    assert np.array_equal(found.values[~cut], values[~cut])
    assert np.array_equal(bounded(updates(values), 0.0)[0].values, values)


@given(arrays.arrays(np.float64, 5, elements=FINITE), st.floats(0.1, 10))
def test_a_clipped_update_keeps_its_direction(update: Any, most: float) -> None:
    found = clipped(update, most)
    assert np.linalg.norm(found) <= most * (1 + 1e-9)
    assert float(found @ update) == pytest.approx(float(np.linalg.norm(found) * np.linalg.norm(update)), abs=1e-6)


@given(arrays.arrays(np.float64, 20, elements=st.floats(-1e6, 1e6)), st.integers(1, 50))
def test_fixed_point_numbers_are_as_they_were(values: Any, sites: int) -> None:
    assert as_numbers(as_words(values, sites)) == pytest.approx(values, abs=2**-24)


@pytest.mark.parametrize("wrong", [1e13, np.nan, -np.inf])
def test_a_number_that_would_overflow_is_refused(wrong: float) -> None:
    with pytest.raises(PlatformError, match="too large"):
        as_words(np.array([1.0, wrong]), 10)


@given(st.binary(min_size=32, max_size=32), st.integers(3, 12), st.data())
def test_enough_shares_tell_a_secret_and_fewer_tell_another(content: bytes, sites: int, data: Any) -> None:
    secret, threshold = int.from_bytes(content, "big"), threshold_of(sites)
    places = {f"site-{at}": at for at in range(1, sites + 1)}
    shares = split_secret(secret, places, threshold)
    chosen = data.draw(st.permutations(list(places)))
    enough = {places[name]: shares[name] for name in chosen[:threshold]}
    assert join_secret(enough) == secret
    enough.pop(places[chosen[0]])
    assert join_secret(enough) != secret


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    make_certificates(folder, SITES, ["localhost"])
    return folder


class Sum:
    """A secure sum among maskers, without a network."""

    def __init__(self, keys: Path, name: str = "sum", sites: tuple[str, ...] = SITES) -> None:
        self.name, self.check = name, checker(keys)
        self.maskers = {one: Masker(one, name, *signer(keys, one)) for one in sites}
        self.keys = {one: Keys.from_dict(masker.keys.as_dict()) for one, masker in self.maskers.items()}

    def shared(self) -> None:
        self.shares = {one: masker.shares(self.keys, self.check) for one, masker in self.maskers.items()}

    def received(self, name: str, senders: set[str]) -> dict[str, bytes]:
        return {sender: self.shares[sender][name] for sender in senders if sender != name}

    def masked(self, values: dict[str, Any], senders: set[str], left: set[str]) -> dict[str, Any]:
        return {
            name: self.maskers[name].masked(as_words(values[name], len(SITES)), self.received(name, senders))
            for name in sorted(left)
        }


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_the_sum_is_that_of_who_is_left_whoever_drops_out_when(keys: Path, data: Any) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    values = {name: rng.normal(0, 100, 11) for name in SITES}
    order = data.draw(st.permutations(SITES))
    sends, stays, opens = (data.draw(st.integers(threshold_of(7), 7)) for _ in range(3))
    senders = set(order[:sends])
    left = set(order[: min(sends, stays)])
    one = Sum(keys)
    one.shared()
    masked = one.masked(values, senders, left)
    openers = set(sorted(left)[: max(threshold_of(7), min(opens, len(left)))])
    opened = {name: one.maskers[name].unmask(left, senders - left) for name in openers}
    found = as_numbers(summed(one.name, masked, one.keys, senders, opened))
    assert found == pytest.approx(sum(values[name] for name in left), abs=1e-5)


def test_a_masked_vector_looks_like_chance_and_is_another_each_time(keys: Path) -> None:
    seen = []
    for name in ("first", "second"):
        one = Sum(keys, name)
        one.shared()
        seen.append(one.masked(dict.fromkeys(SITES, np.zeros(4000)), set(SITES), set(SITES))["site-0"])
    bits = np.unpackbits(np.concatenate(seen).view(np.uint8))
    assert abs(bits.mean() - 0.5) < 0.005
    assert not np.any(seen[0] == seen[1])
    assert np.array_equal(generated(b"k" * 32, 5), generated(b"k" * 32, 9)[:5])


def test_too_few_left_is_no_sum(keys: Path) -> None:
    one = Sum(keys)
    one.shared()
    left = set(SITES[: threshold_of(7) - 1])
    masked = one.masked(dict.fromkeys(SITES, np.ones(3)), set(SITES), left)
    with pytest.raises(PlatformError, match="no part"):
        one.maskers["site-0"].unmask(left, set(SITES) - left)
    with pytest.raises(PlatformError) as failed:
        summed(one.name, masked, one.keys, set(SITES), {})
    assert failed.value.code == "quorum"


def test_a_site_never_gives_both_secrets_of_another(keys: Path) -> None:
    one = Sum(keys)
    one.shared()
    one.masked(dict.fromkeys(SITES, np.ones(3)), set(SITES), set(SITES))
    asked, gone = set(SITES[:6]), {SITES[6]}
    for survivors, dropped in ((asked, asked), (set(SITES), gone), (asked, set()), (asked - {"site-0"}, gone)):
        with pytest.raises(PlatformError, match="no part"):
            one.maskers["site-0"].unmask(survivors, dropped)
    one.maskers["site-0"].unmask(asked, gone)
    with pytest.raises(PlatformError, match="no part"):
        one.maskers["site-0"].unmask(set(SITES), set())


def test_keys_that_a_coordinator_has_put_in_place_of_a_sites_are_refused(keys: Path, tmp_path: Path) -> None:
    one = Sum(keys)
    make_certificates(tmp_path, SITES, ["localhost"])
    one.keys["site-1"] = Masker("site-1", one.name, *signer(tmp_path, "site-1")).keys  # of another authority
    with pytest.raises(PlatformError, match="site-1"):
        one.maskers["site-0"].shares(one.keys, one.check)
    two = Sum(keys)
    two.keys["site-1"] = two.maskers["site-2"].keys  # of another site
    with pytest.raises(PlatformError, match="site-1"):
        two.maskers["site-0"].shares(two.keys, two.check)
    old, new = Sum(keys, "old"), Sum(keys, "new")
    new.keys["site-1"] = old.keys["site-1"]  # of another sum
    with pytest.raises(PlatformError, match="site-1"):
        new.maskers["site-0"].shares(new.keys, new.check)


def test_shares_that_were_changed_on_their_way_are_refused(keys: Path) -> None:
    one = Sum(keys)
    one.shared()
    received = one.received("site-0", set(SITES))
    received["site-1"] = received["site-1"][:-1] + bytes([received["site-1"][-1] ^ 1])
    with pytest.raises(PlatformError, match="site-0"):
        one.maskers["site-0"].masked(as_words(np.ones(3), 7), received)


def test_two_sites_cannot_hide_from_each_other(keys: Path) -> None:
    one = Sum(keys, sites=SITES[:2])
    with pytest.raises(PlatformError, match="3 are needed"):
        one.shared()


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text() | st.none(), max_size=4), some_updates)
def test_a_message_arrives_as_it_was_sent(document: Any, values: Any) -> None:
    found = unpacked(packed(Message(document=document, arrays={"update": values})), "site-1")
    assert found.document == document
    assert np.array_equal(found.arrays["update"], values)


@given(st.binary(max_size=200))
def test_what_is_no_message_is_refused(content: bytes) -> None:
    with pytest.raises(PlatformError, match="site-1"):
        unpacked(content, "site-1")
