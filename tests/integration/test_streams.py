"""Frames over a real connection: a client that is faster than the model, and a service that stops."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.detection_bundle import spots
from tests.image_bundle import picture
from tests.integration.test_services import Service, services

pytestmark = pytest.mark.integration
BRIGHT = picture(255, size=16)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("streams")
    with services(folder) as begin:
        started = begin(spots(folder / "made"), drain_seconds=1.0, max_body_bytes=1 << 20)
        started.wait()
        yield started


def stream(service: Service) -> Any:
    url = service.http.base_url
    return connect(f"ws://{url.host}:{url.port}/stream", max_size=None, compression=None)


def test_frames_are_answered_in_order_and_none_is_lost_unsaid(service: Service) -> None:
    with stream(service) as socket:
        for _ in range(300):
            socket.send(BRIGHT)
        socket.send('{"end": true}')
        answers = []
        while "end" not in (said := json.loads(socket.recv(timeout=20))):
            answers.append(said)
    numbers = [one["frame"] for one in answers]
    assert numbers == sorted(numbers)
    assert numbers[-1] == 299
    assert len(answers) + sum(one["dropped"] for one in answers) == 300
    assert {item["track"] for one in answers for item in one["objects"]} == {1}
    assert said["end"]["dropped"] == 300 - len(answers)
    assert service.http.get("/predict").status_code == 405


def test_frames_that_come_too_fast_cost_no_memory(service: Service) -> None:
    process = psutil.Process(service.process.pid)
    file = BRIGHT + bytes(200_000)
    with stream(service) as socket:
        for _ in range(200):
            socket.send(file)
        before = process.memory_info().rss
        for _ in range(400):  # 80 MB
            socket.send(file)
        assert process.memory_info().rss - before < 20 << 20


def test_a_frame_that_is_too_large_ends_its_stream_alone(service: Service) -> None:
    with stream(service) as other:
        with stream(service) as socket:
            with contextlib.suppress(ConnectionClosed):  # of the send, as it may be
                socket.send(bytes(2 << 20))
            with pytest.raises(ConnectionClosed) as closed:
                socket.recv(timeout=10)
        # The server does not read the frame, so that its kernel's reset may overtake what it says.
        assert closed.value.rcvd is None or closed.value.rcvd.code == 1009
        other.send(BRIGHT)
        assert json.loads(other.recv(timeout=10))["frame"] == 0


def test_a_service_that_stops_says_so_and_takes_no_new_stream(service: Service) -> None:
    with stream(service) as socket:
        socket.send(BRIGHT)
        socket.recv(timeout=10)
        service.process.send_signal(signal.SIGTERM)
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
        with pytest.raises((InvalidStatus, OSError)):
            stream(service).close()
    assert service.process.wait(20) == 0
