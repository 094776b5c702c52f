"""How requests gather into batches, what is refused early, and who fails with whom."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest

from services.batching.queue_items import Part
from services.errors import Problem
from services.request_options import PRIORITIES, RequestOptions
from tests.batching import Bench, later, release, run


def test_what_gathers_while_the_model_works_goes_together() -> None:
    bench = Bench()

    async def story() -> Any:
        first = await bench.hold()
        rest = later(bench, 1, 2, 3)
        await asyncio.sleep(0.01)
        return await release(bench, first, *rest)

    assert run(bench, story) == [0, 2, 4, 6]
    assert bench.calls == [[0], [1, 2, 3]]


def test_a_batch_holds_at_most_so_many_rows_and_a_large_request_goes_alone() -> None:
    bench = Bench(rows=4)

    async def story() -> Any:
        first = await bench.hold()
        rest = [*later(bench, 1, 2, rows=3), *later(bench, 3), *later(bench, 4, rows=9)]
        await asyncio.sleep(0.01)
        return await release(bench, first, *rest)

    assert run(bench, story) == [0, 2, 4, 6, 8]
    assert bench.calls == [[0], [1, 3], [2], [4]]


def test_only_similar_lengths_share_a_batch_within_the_budget_of_tokens() -> None:
    bench = Bench(tokens=100)

    async def story() -> Any:
        first = await bench.hold()
        rest = [
            task for item, length in enumerate((40, 10, 40, 10, 40), 1) for task in later(bench, item, lengths=[length])
        ]
        await asyncio.sleep(0.01)
        return await release(bench, first, *rest)

    assert run(bench, story) == [0, 2, 4, 6, 8, 10]
    assert bench.calls == [[0], [1, 3], [2, 4], [5]]
    assert bench.batches[1] == (2, [40, 40])


def test_kinds_and_loners_do_not_mix() -> None:
    bench = Bench()

    async def story() -> Any:
        first = await bench.hold()
        rest = [*later(bench, 1, 2, alone=True), *later(bench, 3, kind="other"), *later(bench, 4)]
        await asyncio.sleep(0.01)
        return await release(bench, first, *rest)

    run(bench, story)
    assert bench.calls == [[0], [1], [2], [3], [4]]


def test_a_bad_item_fails_alone() -> None:
    bench = Bench()

    async def story() -> Any:
        first = await bench.hold()
        rest = later(bench, 1, 2, -3, 4, 5, 6, 7)
        await asyncio.sleep(0.01)
        return await release(bench, first, *rest)

    answers = run(bench, story)
    assert isinstance(answers[3], ValueError)
    assert answers[:3] + answers[4:] == [0, 2, 4, 8, 10, 12, 14]
    assert len(bench.calls) <= 1 + 2 * 3 + 1, "halves, not one by one"


def test_several_batches_are_in_flight() -> None:
    bench = Bench(workers=3, rows=1)

    async def story() -> Any:
        bench.held.clear()
        tasks = later(bench, 1, 2, 3, 4)
        while len(bench.calls) < 3:
            await asyncio.sleep(0.001)
        assert bench.batcher.depth == 1
        return await release(bench, *tasks)

    assert run(bench, story) == [2, 4, 6, 8]


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back() -> None:
    bench = Bench(pending=2)

    async def story() -> Problem:
        first = await bench.hold()
        second = later(bench, 1)
        await asyncio.sleep(0.01)
        with pytest.raises(Problem) as caught:
            await bench.ask(2)
        await release(bench, first, *second)
        return caught.value

    problem = run(bench, story)
    assert (problem.status, problem.headers["retry-after"]) == (429, "1")
    assert bench.refused == ["queue_full"]
    assert bench.calls == [[0], [1]]


def test_a_deadline_that_cannot_be_met_is_refused_before_the_wait() -> None:
    bench = Bench(rows=1)
    bench.seconds = 0.1

    async def story() -> Problem:
        await bench.ask(1)
        first = await bench.hold(2)
        bench.seconds = 0
        with pytest.raises(Problem) as caught:
            await bench.ask(3, options=RequestOptions(deadline=time.perf_counter() + 0.05))
        patient = later(bench, 4, options=RequestOptions(deadline=time.perf_counter() + 5))
        await release(bench, first, *patient)
        return caught.value

    problem = run(bench, story)
    assert (problem.status, problem.code) == (503, "deadline-unreachable")
    assert "retry-after" in problem.headers
    assert bench.refused == ["deadline_unreachable"]
    assert [3] not in bench.calls


def test_a_deadline_in_the_past_never_reaches_the_model() -> None:
    bench = Bench()

    async def story() -> Any:
        with pytest.raises(Problem) as caught:
            await bench.ask(1, options=RequestOptions(deadline=time.perf_counter() - 1))
        return caught.value

    assert run(bench, story).status == 504
    assert (bench.calls, bench.refused) == ([], ["deadline_passed"])


def test_a_deadline_that_passes_in_the_queue_never_reaches_the_model() -> None:
    bench = Bench()

    async def story() -> Any:
        first = await bench.hold()
        late = later(bench, 1, options=RequestOptions(deadline=time.perf_counter() + 0.02))
        await asyncio.sleep(0.05)
        return await release(bench, first, *late)

    answers = run(bench, story)
    assert (answers[0], answers[1].status) == (0, 504)
    assert bench.calls == [[0]]


def test_after_one_slow_call_the_next_request_is_tried() -> None:
    bench = Bench()
    bench.seconds = 0.1

    async def story() -> int:
        await bench.ask(1)
        bench.seconds = 0
        return await bench.ask(2, options=RequestOptions(deadline=time.perf_counter() + 0.05))

    assert run(bench, story) == 4


def test_a_high_priority_overtakes_and_a_low_one_is_not_forgotten() -> None:
    bench = Bench(rows=1)

    async def story() -> Any:
        first = await bench.hold()
        waiting = []
        for item, word in enumerate(("low", "normal", "high"), 1):
            waiting += later(bench, item, options=RequestOptions(priority=PRIORITIES[word]))
            await asyncio.sleep(0.001)
        return await release(bench, first, *waiting)

    assert run(bench, story) == [0, 2, 4, 6]
    assert bench.calls == [[0], [3], [2], [1]]


def test_who_goes_away_while_waiting_costs_nothing_and_frees_its_place() -> None:
    bench = Bench(pending=2)

    async def story() -> Any:
        first = await bench.hold()
        gone = later(bench, 1)[0]
        await asyncio.sleep(0.01)
        gone.cancel()
        await asyncio.sleep(0.01)
        other = later(bench, 2)
        await asyncio.sleep(0.01)
        return await release(bench, first, *other)

    assert run(bench, story) == [0, 4]
    assert bench.calls == [[0], [2]]


def test_who_goes_away_in_the_middle_of_a_batch_leaves_the_others_alone() -> None:
    bench = Bench()

    async def story() -> Any:
        bench.held.clear()
        tasks = later(bench, 1, 2, 3)
        while not bench.calls:
            await asyncio.sleep(0.001)
        tasks[1].cancel()
        return await release(bench, tasks[0], tasks[2])

    assert run(bench, story) == [2, 6]


def test_draining_answers_what_was_accepted_and_refuses_the_rest() -> None:
    bench = Bench()

    async def story() -> Any:
        first = await bench.hold()
        second = later(bench, 1)
        await asyncio.sleep(0.01)
        draining = asyncio.create_task(bench.batcher.drain())
        await asyncio.sleep(0.01)
        with pytest.raises(Problem) as caught:
            await bench.ask(2)
        assert not draining.done()
        answers = await release(bench, first, *second)
        await draining
        return answers, caught.value.status

    assert run(bench, story) == ([0, 2], 503)
    assert bench.refused == ["stopping"]


def test_a_batch_that_is_not_full_waits_for_its_budget_and_no_longer() -> None:
    bench = Bench(rows=3, wait=0.3)

    async def story() -> float:
        start = time.perf_counter()
        early = later(bench, 1)
        await asyncio.sleep(0.01)
        late = later(bench, 2)
        await asyncio.gather(*early, *late)
        waited = time.perf_counter() - start
        full = time.perf_counter()
        await asyncio.gather(*later(bench, 3, 4, 5))
        assert time.perf_counter() - full < 0.25
        return waited

    assert 0.295 < run(bench, story) < 2
    assert bench.calls == [[1, 2], [3, 4, 5]]


def test_a_large_request_is_answered_in_order_and_lets_others_between_its_parts() -> None:
    bench = Bench(rows=2)
    bench.seconds = 0.01

    async def story() -> Any:
        bench.batcher.learn("k", 2, 0.01)
        parts = [Part(item=item, rows=2) for item in range(1, 9)]
        large = asyncio.create_task(bench.batcher.submit_parts(parts, kind="k", options=RequestOptions()))
        await asyncio.sleep(0.015)
        small = await bench.ask(100)
        assert not large.done()
        return small, await large

    assert run(bench, story) == (200, [2, 4, 6, 8, 10, 12, 14, 16])
    assert [100] in bench.calls[2:5]


def test_a_large_request_counts_once_and_its_parts_share_threads() -> None:
    bench = Bench(workers=2, rows=1, pending=2)

    async def story() -> Any:
        bench.held.clear()
        parts = [Part(item=item, rows=1) for item in range(5)]
        large = asyncio.create_task(bench.batcher.submit_parts(parts, kind="k", options=RequestOptions()))
        while len(bench.calls) < 2:
            await asyncio.sleep(0.001)
        other = later(bench, 7)
        await asyncio.sleep(0.005)
        with pytest.raises(Problem) as refused:
            await bench.ask(8)
        bench.held.set()
        return await large, await other[0], refused.value.status

    assert run(bench, story) == ([0, 2, 4, 6, 8], 14, 429)
    assert bench.batcher._pending == bench.batcher._extra == 0


def test_a_bad_part_fails_its_request_and_gives_the_others_up() -> None:
    bench = Bench(rows=1)

    async def story() -> Any:
        parts = [Part(item=item, rows=1) for item in (1, -2, 3, 4, 5)]
        with pytest.raises(ValueError, match="negative"):
            await bench.batcher.submit_parts(parts, kind="k", options=RequestOptions())
        await bench.batcher.drain()

    run(bench, story)
    assert len(bench.calls) < 5
    assert (bench.batcher.depth, bench.batcher._pending, bench.batcher._extra) == (0, 0, 0)


def test_who_hangs_up_takes_all_parts_along() -> None:
    bench = Bench(rows=1)

    async def story() -> None:
        first = await bench.hold()
        parts = [Part(item=item, rows=1) for item in range(5)]
        large = asyncio.create_task(bench.batcher.submit_parts(parts, kind="k", options=RequestOptions()))
        await asyncio.sleep(0.005)
        large.cancel()
        await asyncio.gather(large, return_exceptions=True)
        assert bench.batcher.depth == 0
        await release(bench, first)
        await bench.batcher.drain()

    run(bench, story)
    assert bench.calls == [[0]]


def test_what_ends_a_call_on_the_loop_ends_the_service_and_not_the_loop() -> None:
    bench = Bench(inline=0.01)

    def crash(items: Sequence[int]) -> list[int]:
        raise SystemExit(3)

    bench.batcher._call = crash

    async def story() -> Any:
        bench.batcher.learn("k", 1, 1e-6)
        alone = await asyncio.gather(bench.ask(1), return_exceptions=True)
        bench.batcher._crowd = 8.0
        return [*alone, *await asyncio.gather(*later(bench, 1, 2), return_exceptions=True)]

    assert [type(answer) for answer in run(bench, story)] == [RuntimeError] * 3
    assert [type(crash) for crash in bench.crashes] == [SystemExit] * 2


def test_what_ends_a_thread_is_reported_and_answers_its_batch() -> None:
    bench = Bench()

    def crash(items: Sequence[int]) -> list[int]:
        raise SystemExit(3)

    bench.batcher._call = crash

    async def story() -> Any:
        return await asyncio.gather(*later(bench, 1, 2), return_exceptions=True)

    answers = run(bench, story)
    assert [type(answer) for answer in answers] == [RuntimeError, RuntimeError]
    assert [type(crash) for crash in bench.crashes] == [SystemExit]
