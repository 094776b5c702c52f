"""What a call is expected to take, and which calls are made on the loop."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from services.batching.calltime import CallTime, ShortCalls
from tests.batching import Bench, later, run


def test_a_call_known_to_be_short_needs_no_thread() -> None:
    bench = Bench(inline=0.01)
    names: list[str] = []
    call = bench.call
    bench.batcher._call = lambda items: names.append(threading.current_thread().name) or call(items)

    async def story() -> None:
        await bench.ask(1)
        await bench.ask(2)

    run(bench, story)
    assert names[0].startswith("model-")
    assert names[1] == "MainThread"


def test_a_burst_of_short_calls_leaves_the_threads_again() -> None:
    bench = Bench(inline=0.01, rows=4)

    async def story() -> Any:
        await bench.ask(0)
        first = later(bench, *range(20))
        return await asyncio.gather(*first)

    assert run(bench, story) == [item * 2 for item in range(20)]
    assert bench.batcher.depth == 0
    assert bench.batcher.oldest_call == 0.0


def test_short_calls_of_one_turn_go_together() -> None:
    bench = Bench(inline=0.01)

    async def story() -> None:
        bench.batcher.learn("k", 1, 1e-6)
        for _ in range(60):
            await asyncio.gather(*later(bench, *range(8)))

    run(bench, story)
    assert len(bench.calls[0]) == 1, "nothing is known of a crowd yet"
    assert [len(call) for call in bench.calls[-3:]] == [8, 8, 8]


def test_many_short_calls_leave_the_loop_to_others_between_them() -> None:
    bench = Bench(inline=0.01, rows=1)
    bench.seconds = 0.004
    ticks: list[int] = []

    async def tick() -> None:
        while True:
            ticks.append(len(bench.calls))
            await asyncio.sleep(0)

    async def story() -> None:
        bench.batcher.learn("k", 1, 0.004)
        bench.batcher._crowd = 8.0
        ticking = asyncio.create_task(tick())
        await asyncio.gather(*later(bench, *range(12)))
        ticking.cancel()

    run(bench, story)
    assert len(set(ticks)) > 2


def test_what_is_learned_before_the_first_request_counts() -> None:
    bench = Bench(inline=0.01)
    names: list[str] = []
    call = bench.call
    bench.batcher._call = lambda items: names.append(threading.current_thread().name) or call(items)

    async def story() -> None:
        bench.batcher.learn("k", 1, 1e-5)
        await bench.ask(1)

    run(bench, story)
    assert names == ["MainThread"]


def test_the_time_of_a_call_is_learned_by_its_size() -> None:
    times = CallTime()
    for size in (1, 8, 32, 16, 4, 1, 32):
        times.saw(size, 0.005 + 0.0005 * size)
    assert times(64) == pytest.approx(0.037, rel=0.01)
    assert times.start == pytest.approx(0.005, rel=0.01)


def test_one_pause_of_the_machine_changes_little() -> None:
    times = CallTime()
    for _ in range(30):
        times.saw(1, 0.001)
    times.saw(1, 10.0)
    assert times(1) < 0.002


def test_cold_starts_and_pauses_make_a_short_call_no_long_one() -> None:
    short = ShortCalls(0.0002)
    for seconds in (0.05, 0.01, 0.00003, 0.004, 0.00003):  # cold, cold, warm, a pause, warm
        short.saw(1, seconds)
    assert short(1)
    assert not ShortCalls(0.0002)(1), "nothing is known"


def test_a_model_that_became_slow_leaves_the_loop() -> None:
    short = ShortCalls(0.0002)
    short.saw(1, 0.00003)
    for _ in range(20):
        short.saw(1, 0.001)
    assert not short(1)


def test_larger_calls_are_guessed_from_smaller_ones_and_never_too_short() -> None:
    short = ShortCalls(0.0002)
    short.saw(1, 0.00003)
    assert short(4)
    assert not short(64)
    short.saw(64, 0.0001)
    assert short(64)
    assert short(16)


def test_calls_that_wait_for_the_interpreter_on_threads_are_tried_in_place_now_and_then() -> None:
    short, tried = ShortCalls(0.0002), []
    for at in range(200):
        if short(1):
            tried.append(at)
            short.saw(1, 0.0015)  # it really is long: a model that waits for something
        else:
            short.saw_on_thread(1, 0.0015, 0.00001)
    assert len(tried) == 2, "after 32 calls, then after 64, 128 and so on"
    short.saw_on_thread(1, 0.0015, 0.00001)
    while not short(1):
        short.saw_on_thread(1, 0.0015, 0.00001)
    short.saw(1, 0.00002)
    assert short(1)


def test_what_waits_long_is_never_tried_in_place() -> None:
    short = ShortCalls(0.0002)
    for _ in range(10_000):
        assert not short(1)
        short.saw_on_thread(1, 0.05, 0.00001)
