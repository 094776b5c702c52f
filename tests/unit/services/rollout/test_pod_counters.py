"""Counters of many pods that come and go add up to what was answered, whoever keeps them."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from services.rollout.observation import Counts
from services.rollout.pod_counters import Followed, Unreached, addresses, at


def text(requests: int, version: str = "2") -> str:
    tags = f'model="toy",version="{version}",route="/predict"'
    return f'fairlead_requests_total{{{tags},code="200"}} {requests}\n'


def test_a_pod_of_another_version_at_the_same_address_does_not_count() -> None:
    assert Followed("2").look([("one", text(5, "1"))]) is None
    assert Followed("2").look([]) is None


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 50), st.booleans())))
def test_what_pods_answered_is_counted_once_when_they_restart_and_when_the_keeper_does(
    steps: list[tuple[str, int, bool]],
) -> None:
    followed, pods, answered = Followed("2"), {"a": 0, "b": 0, "c": 0}, 0
    followed.look([(pod, text(0)) for pod in pods])
    for pod, more, ends in steps:
        pods[pod] += more
        answered += more
        total = followed.look([(name, text(count)) for name, count in pods.items()])
        assert total is not None
        assert total.requests == answered
        if ends:  # a new pod takes its place, and a new keeper goes on where this one was
            pods[pod] = 0
            followed = Followed("2", total)
            followed.look([(name, text(count)) for name, count in pods.items()])


def test_a_pod_that_does_not_answer_for_a_while_takes_nothing_away() -> None:
    followed = Followed("2", Counts(requests=100))
    followed.look([("a", text(40)), ("b", text(60))])
    assert followed.look([("a", text(45))]) == Counts(requests=105, seconds=0)
    total = followed.look([("a", text(45)), ("b", text(70))])
    assert total is not None
    assert total.requests == 115


def test_requests_that_did_not_arrive_are_those_since_a_router_was_first_seen() -> None:
    unreached = Unreached()
    assert unreached.look([("one", 7.0)]) == 0
    assert unreached.look([("one", 9.0), ("two", 3.0)]) == 2
    assert unreached.look([("one", 1.0), ("two", 4.0)]) == 4, "a router that began anew"


def test_a_name_without_addresses_has_none_and_one_of_ipv6_is_written_so() -> None:
    assert addresses("nobody.invalid") == []
    assert at("fd00::1", 3000, "/metrics") == "http://[fd00::1]:3000/metrics"
