"""Jobs of images that two servers of one model share through a real Redis."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from services.drawing import shared_jobs
from tests.drawing_bundle import grays
from tests.integration.redis_servers import Server

pytestmark = pytest.mark.integration
JOBS = "/v1/images/jobs"


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def two(serve_bundle: Any, tmp_path: Path, redis: Server, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    monkeypatch.setattr(shared_jobs, "_SECONDS", 0.05)
    monkeypatch.setattr(shared_jobs, "_LATER", 0.05)
    monkeypatch.setattr(shared_jobs, "_TAKE_SECONDS", 0.05)
    bundle = grays(tmp_path)
    return tuple(serve_bundle(bundle, drawing={"redis": redis.address}) for _ in range(2))


def slowed(served: Any) -> tuple[threading.Event, threading.Event]:
    """Let a server stop at each step until it may go on; and whether it has come to one."""
    go, at_step, draw = threading.Event(), threading.Event(), served.runtime.engine.draw

    def slow(wishes: Any, report: Any) -> Any:
        def told(done: int) -> None:
            at_step.set()
            assert go.wait(20)
            report(done)

        return draw(wishes, told)

    served.runtime.jobs._draw = slow
    return go, at_step


def until(holds: Callable[[], bool]) -> None:
    for _ in range(1000):
        if holds():
            return
        time.sleep(0.01)
    raise AssertionError("it does not come to hold")


def test_any_server_says_how_a_job_is_and_gives_its_images(two: tuple[Any, Any]) -> None:
    taker, other = two
    go, at_step = slowed(taker)
    where = taker.client.post(JOBS, json={"prompt": "dark", "n": 2, "seed": 4}).headers["location"]
    assert at_step.wait(10)
    until(lambda: other.client.get(where).status_code == 200)
    until(lambda: other.client.get(where).json()["status"] == "running")
    go.set()
    until(lambda: other.client.get(where).json()["status"] == "succeeded")
    found = other.client.get(where).json()
    assert [one["seed"] for one in found["result"]["data"]] == [4, 5]
    (job,) = taker.runtime.jobs._kept.values()
    until(lambda: job.collected and job.recorded)
    assert other.runtime.jobs._kept == {}
    assert {**taker.client.get(where).json(), "result": None} == {**found, "result": None}
    refused = other.client.post(f"{where}/cancel")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "job_has_ended")


def test_any_server_ends_a_job(two: tuple[Any, Any]) -> None:
    taker, other = two
    go, at_step = slowed(taker)
    where = taker.client.post(JOBS, json={"prompt": "dark", "steps": 20}).headers["location"]
    assert at_step.wait(10)
    until(lambda: other.client.get(where).status_code == 200)
    threading.Timer(0.5, go.set).start()
    gone = other.client.post(f"{where}/cancel").json()
    assert (gone["status"], gone["error"]["code"], gone["result"]) == ("cancelled", "cancelled", None)
    assert gone["progress"] < 1
    assert taker.client.get(where).json() == gone


def test_a_job_whose_server_is_gone_has_failed_where_none_is_taken_over(
    serve_bundle: Any, tmp_path: Path, redis: Server
) -> None:
    bundle, given = grays(tmp_path), {"redis": redis.address, "max_takeovers": 0}
    taker, other = (serve_bundle(bundle, drawing=given) for _ in range(2))
    go, at_step = slowed(taker)
    where = taker.client.post(JOBS, json={"prompt": "dark"}).headers["location"]
    assert at_step.wait(10)
    until(lambda: other.client.get(where).status_code == 200)
    for task in list(taker.runtime.shared._tasks):  # as when its machine is lost
        taker.client.portal.call(task.cancel)
    (alive,) = redis.client.keys(f"*{where.rpartition('/')[2]}*alive")
    redis.client.delete(alive)
    found = other.client.get(where).json()
    assert (found["status"], found["error"]["code"]) == ("failed", "server_gone")
    go.set()


def lost(served: Any, redis: Server, then: Callable[[], object] = int) -> None:
    """Let a server say nothing any more, as when its machine is lost; `then` is before others can know of it."""
    shared, portal = served.runtime.shared, served.client.portal
    following = dict(shared._tasks)
    for job in following.values():
        portal.call(job.writing.acquire)  # nothing is being written
    for task in [shared._taking, *following]:
        portal.call(task.cancel)
    for job in following.values():
        portal.call(job.writing.release)
    then()
    for alive in redis.client.keys("*:alive"):
        redis.client.delete(alive)


def succeeded(served: Any, where: str) -> bool:
    return bool(served.client.get(where).json()["status"] == "succeeded")


def begun(served: Any, at_step: threading.Event, *prompts: str) -> list[str]:
    """Where a job that runs and others that wait behind it are."""
    places = []
    for prompt in ("dark", *prompts):
        places.append(served.client.post(JOBS, json={"prompt": prompt, "seed": 9}).headers["location"])
        assert at_step.wait(10)
    return places


def test_a_job_that_waits_is_taken_over_and_drawn_once(two: tuple[Any, Any], redis: Server) -> None:
    taker, other = two
    go, at_step = slowed(taker)
    _, waits = begun(taker, at_step, "a grey")
    until(lambda: other.client.get(waits).status_code == 200)
    assert other.client.get(waits).json()["status"] == "queued"
    key = f"fl-image-job:grays:{{{waits.rpartition('/')[2]}}}"
    until(lambda: redis.client.hexists(key, "request"))
    lost(taker, redis)
    until(lambda: other.client.get(waits).json()["status"] == "succeeded")
    found = other.client.get(waits).json()
    assert [(one["revised_prompt"], one["seed"]) for one in found["result"]["data"]] == [("grey", 9)]
    assert found["id"] == waits.rpartition("/")[2]
    until(lambda: not redis.client.hexists(key, "request"))  # no prompt stays where nobody needs it
    go.set()  # the first server was only slow
    jobs = taker.runtime.jobs
    until(lambda: jobs._running is None and not jobs.waiting)
    assert taker.client.get(waits).json()["result"] == found["result"], "it has not drawn it too"


def test_a_job_that_had_begun_is_begun_anew_by_another_server(two: tuple[Any, Any], redis: Server) -> None:
    taker, other = two
    go, at_step = slowed(taker)
    (running,) = begun(taker, at_step)
    identifier = running.rpartition("/")[2]
    key = f"fl-image-job:grays:{{{identifier}}}"
    until(lambda: redis.client.hexists(key, "request"))
    until(lambda: other.client.get(running).json()["status"] == "running")
    job = taker.runtime.jobs._kept[identifier]
    lost(taker, redis)
    until(lambda: other.client.get(running).json()["status"] == "succeeded")
    found = other.client.get(running).json()
    assert [one["seed"] for one in found["result"]["data"]] == [9]
    until(lambda: not redis.client.hexists(key, "request"))  # no prompt stays where nobody needs it
    assert redis.client.zscore("fl-image-jobs-waiting:grays", identifier) is None
    follow = taker.runtime.shared.follow  # the first server was only slow
    taker.client.portal.call(follow, job, taker.runtime.jobs, taker.runtime.taker)
    until(lambda: job.passed)
    go.set()
    until(lambda: taker.runtime.jobs._running is None)
    assert taker.client.get(running).json()["result"] == found["result"], "what it has drawn counts for nothing"


def test_a_job_that_was_cancelled_is_not_begun_anew(two: tuple[Any, Any], redis: Server) -> None:
    taker, other = two
    go, at_step = slowed(taker)
    _, drawn = slowed(other)
    (running,) = begun(taker, at_step)
    key = f"fl-image-job:grays:{{{running.rpartition('/')[2]}}}"
    until(lambda: redis.client.hexists(key, "request"))
    lost(taker, redis, lambda: redis.client.hset(key, "cancel", 1))  # it was asked of the server that is gone
    until(lambda: other.client.get(running).json()["status"] == "cancelled")
    assert not drawn.is_set()
    assert not redis.client.hexists(key, "request")
    go.set()


def test_jobs_are_left_by_a_server_that_ends(two: tuple[Any, Any], redis: Server) -> None:
    taker, other = two
    go, at_step = slowed(taker)
    running, waits = begun(taker, at_step, "grey")
    until(lambda: bool(redis.client.zrange("fl-image-jobs-waiting:grays", 0, -1)))
    until(lambda: other.client.get(waits).status_code == 200)
    shared, portal = taker.runtime.shared, taker.client.portal
    portal.call(shared.settle)
    portal.call(shared.leave, taker.runtime.jobs)
    for where in (waits, running):
        until(partial(succeeded, other, where))
    go.set()


def test_a_job_is_taken_over_a_few_times_at_most(two: tuple[Any, Any], redis: Server) -> None:
    taker, other = two
    go, at_step = slowed(taker)
    _, waits = begun(taker, at_step, "grey")
    key = f"fl-image-job:grays:{{{waits.rpartition('/')[2]}}}"
    until(lambda: redis.client.hexists(key, "request"))
    lost(taker, redis, lambda: redis.client.hset(key, "taken", 3))
    found = other.client.get(waits).json()
    assert (found["status"], found["error"]["code"]) == ("failed", "server_gone")
    until(lambda: not redis.client.hexists(key, "request"))
    assert waits.rpartition("/")[2] not in other.runtime.jobs._kept
    go.set()


def test_a_job_of_nobody_and_a_redis_that_is_away(serve_bundle: Any, tmp_path: Path) -> None:
    server = Server(tmp_path / "redis")
    served = serve_bundle(grays(tmp_path), drawing={"redis": server.address})
    assert served.client.get(f"{JOBS}/none").json()["error"]["code"] == "job_not_found"
    server.stop()
    away = served.client.get(f"{JOBS}/none")
    assert (away.status_code, away.json()["error"]["code"]) == (503, "jobs_unavailable")
    where = served.client.post(JOBS, json={"prompt": "dark"}).headers["location"]
    until(lambda: served.client.get(where).json()["status"] == "succeeded")
