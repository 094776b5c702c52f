"""The threads that call the model: how many, on which CPUs, and what becomes of what they run."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator

import pytest

from services.batching.executor import Executor, cpu_shares


@pytest.fixture
def crashes() -> list[BaseException]:
    return []


@pytest.fixture
def executor(crashes: list[BaseException]) -> Iterator[Executor]:
    made = Executor(2, crashes.append)
    yield made
    made.stop()


def test_there_are_as_many_threads_as_workers(executor: Executor) -> None:
    barrier, names = threading.Barrier(2), set[str]()

    def work() -> None:
        barrier.wait(5)
        names.add(threading.current_thread().name)

    async def story() -> None:
        await asyncio.gather(*(executor.run(work) for _ in range(8)))

    asyncio.run(story())
    assert names == {"model-0", "model-1"}


def test_a_failure_is_raised_where_the_call_is_waited_for(executor: Executor, crashes: list[BaseException]) -> None:
    with pytest.raises(KeyError):
        asyncio.run(executor.run(lambda: {"": 0}["nothing"]))
    assert asyncio.run(executor.run(lambda: 1)) == 1
    assert crashes == []


def test_each_thread_stays_on_its_cpus() -> None:
    allowed = frozenset(sorted(os.sched_getaffinity(0))[:1])
    executor = Executor(1, lambda err: None, [allowed])
    assert asyncio.run(executor.run(lambda: os.sched_getaffinity(0))) == set(allowed)
    executor.stop()
    assert os.sched_getaffinity(0) >= allowed


def test_cpus_are_shared_out_without_overlap_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {2, 3, 5, 7, 11})
    assert cpu_shares(2, 2) == [frozenset({2, 3}), frozenset({5, 7})]
    assert cpu_shares(3, 2) is None
