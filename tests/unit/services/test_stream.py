"""Frames over one connection: answers in order, ids that stay, drops that are counted, and what is refused."""

from __future__ import annotations

import io
import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from contracts import metric_names as names
from services.server.auth import digest_of
from tests.detection_bundle import spots
from tests.image_bundle import picture

BRIGHT, DARK = picture(255, size=16), picture(20, size=16)
LABELS = {"model": "spots", "version": "3"}


@pytest.fixture
def served(serve_bundle: Any, tmp_path: Path) -> Any:
    return serve_bundle(spots(tmp_path), stream={"queue": 2, "connections": 2}, inline_ms=0)


def frames(served: Any, outcome: str) -> float:
    return float(served.metric(names.VIDEO_FRAMES, **LABELS, outcome=outcome))


def told(socket: Any) -> Any:
    return socket.receive_json()


def test_objects_keep_their_ids_and_frames_their_order(served: Any) -> None:
    with served.client.websocket_connect("/stream") as socket:
        answers = []
        for number, file in enumerate([BRIGHT, BRIGHT, DARK, BRIGHT]):
            socket.send_json({"time": number / 10})
            socket.send_bytes(file)
            answers.append(told(socket))
        socket.send_json({"end": True})
        end = told(socket)["end"]
    assert [one["frame"] for one in answers] == [0, 1, 2, 3]
    assert [one["time"] for one in answers] == [0, 0.1, 0.2, 0.3]
    assert [[item["track"] for item in one["objects"]] for one in answers] == [[1], [1], [], [1]]
    assert answers[0]["objects"][0] == {"label": "spot", "score": 1.0, "box": [4.0, 4.0, 12.0, 12.0], "track": 1}
    assert len({one["id"] for one in answers}) == 4
    assert (end["frames"], end["answered"], end["dropped"], end["tracks"]) == (4, 4, 0, {"spot": 1})
    assert (frames(served, "answered"), served.metric(names.VIDEO_TRACKS, **LABELS)) == (4, 1)


def test_a_slow_model_drops_the_oldest_waiting_frames_and_says_how_many(
    served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, go = served.engine, threading.Event()
    predict = engine.predict
    monkeypatch.setattr(engine, "predict", lambda columns: (go.wait(5), predict(columns))[1])
    with served.client.websocket_connect("/stream") as socket:
        for _ in range(10):
            socket.send_bytes(BRIGHT)
        socket.send_json({"end": True})
        until = time.monotonic() + 5
        while frames(served, "dropped") < 7 and time.monotonic() < until:
            time.sleep(0.01)
        go.set()
        answers = [told(socket) for _ in range(3)]
        end = told(socket)["end"]
    assert [(one["frame"], one["dropped"]) for one in answers] == [(0, 0), (8, 7), (9, 0)]
    assert (end["frames"], end["answered"], end["dropped"]) == (10, 3, 7)
    assert frames(served, "dropped") == 7


def test_a_stream_may_wait_in_the_place_of_dropping(serve_bundle: Any, tmp_path: Path) -> None:
    client = serve_bundle(spots(tmp_path), stream={"queue": 1, "full": "wait"}).client
    with client.websocket_connect("/stream") as socket:
        for _ in range(12):
            socket.send_bytes(BRIGHT)
        socket.send_json({"end": True})
        assert [told(socket)["frame"] for _ in range(12)] == list(range(12))
        assert told(socket)["end"]["dropped"] == 0


def test_a_frame_that_is_no_image_is_an_answer_and_the_stream_goes_on(served: Any) -> None:
    with served.client.websocket_connect("/stream") as socket:
        for file in (BRIGHT, b"no image", BRIGHT):
            socket.send_bytes(file)
            last = told(socket)
            if file == b"no image":
                assert (last["frame"], last["error"]["status"]) == (1, 422)
        assert last["objects"][0]["track"] == 1
    assert frames(served, "refused") == 1


def test_zones_are_settings_and_events_are_counted(served: Any) -> None:
    with served.client.websocket_connect("/stream") as socket:
        zone = [[0, 0], [16, 0], [16, 16], [0, 16]]
        socket.send_json({"settings": {"zones": {"all": zone}, "steady": 1, "track": {"patience": 0.05}}})
        found = []
        for number, file in enumerate([BRIGHT, BRIGHT, DARK, DARK]):
            socket.send_json({"time": number / 10})
            socket.send_bytes(file)
            found.append(told(socket)["events"])
        socket.send_json({"end": True})
        end = told(socket)["end"]
    about = {"zone": "all", "track": 1, "label": "spot"}
    assert found == [[{"event": "entered", **about}], [], [{"event": "left", **about}], []]
    assert end["counts"] == {"all": {"entered": 1, "left": 1, "inside": 0}}
    assert served.metric(names.VIDEO_EVENTS, **LABELS, event="entered") == 1


def test_rate_and_change_pass_frames_over(served: Any) -> None:
    with served.client.websocket_connect("/stream") as socket:
        socket.send_json({"settings": {"rate": 5}})
        for number in range(10):
            socket.send_json({"time": number / 10})
            socket.send_bytes(BRIGHT)
            if number % 2 == 0:
                assert told(socket)["frame"] == number
    with served.client.websocket_connect("/stream") as socket:
        socket.send_json({"settings": {"change": 0.1}})
        for file in (BRIGHT, BRIGHT, DARK):
            socket.send_bytes(file)
        assert [told(socket)["frame"] for _ in range(2)] == [0, 2]
    assert frames(served, "passed_over") == 6


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("no json", "(message)"),
        ('{"time": -1}', "time"),
        ('{"settings": {"zone": {}}}', "zone"),
        ('{"settings": {"zones": {"a": [[0, 0], [1, 1]]}}}', "zones.a"),
        ('{"settings": []}', "settings"),
        ('{"end": true, "time": 1}', "(message)"),
    ],
)
def test_what_is_no_message_ends_the_stream_with_its_reason(served: Any, text: str, field: str) -> None:
    with served.client.websocket_connect("/stream") as socket:
        socket.send_text(text)
        assert told(socket)["error"]["errors"][0]["field"] == field
        with pytest.raises(WebSocketDisconnect) as closed:
            told(socket)
    assert closed.value.code == 1008


def test_times_grow_and_settings_come_first(served: Any) -> None:
    for texts in (['{"time": 2}', '{"time": 2}'], ['{"time": 2}', '{"settings": {}}']):
        with served.client.websocket_connect("/stream") as socket:
            socket.send_text(texts[0])
            socket.send_bytes(BRIGHT)
            assert told(socket)["frame"] == 0
            socket.send_text(texts[1])
            socket.send_bytes(BRIGHT)
            assert told(socket)["error"]["status"] == 422


def test_a_zone_outside_of_the_frames_is_refused(served: Any) -> None:
    with served.client.websocket_connect("/stream") as socket:
        socket.send_json({"settings": {"zones": {"far": [[100, 100], [120, 100], [120, 120]]}}})
        socket.send_bytes(BRIGHT)
        assert "'far' lies outside the frames" in told(socket)["error"]["title"]


def test_who_may_connect(serve_bundle: Any, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"camera:{digest_of(b'secret')}\n")
    served = serve_bundle(spots(tmp_path), keys_file=str(keys), stream={"connections": 1})
    key = {"x-api-key": "secret"}

    def refused(path: str, headers: dict[str, str]) -> int:
        with (
            pytest.raises(WebSocketDenialResponse) as denied,
            served.client.websocket_connect(path, headers=headers),
        ):
            pass
        return int(denied.value.status_code)

    assert refused("/stream", {}) == 401
    assert refused("/predict", key) == 404
    assert refused("/stream", {**key, "origin": "https://elsewhere.example"}) == 403
    with served.client.websocket_connect("/stream", headers={**key, "origin": "http://testserver"}):
        assert served.metric(names.VIDEO_STREAMS, model="spots") == 1
        assert refused("/stream", key) == 429
    assert served.client.get("/stream", headers=key).status_code == 426


def test_a_silent_stream_is_closed(serve_bundle: Any, tmp_path: Path) -> None:
    client = serve_bundle(spots(tmp_path), stream={"idle_seconds": 0.05}).client
    with client.websocket_connect("/stream") as socket, pytest.raises(WebSocketDisconnect) as closed:
        told(socket)
    assert (closed.value.code, closed.value.reason) == (1001, "no frame for 0.05 s")


def test_a_hundred_megapixels_are_refused_by_their_header(served: Any) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((10_000, 10_000), np.uint8)).save(buffer, "PNG")
    with served.client.websocket_connect("/stream") as socket:
        socket.send_bytes(buffer.getvalue())
        assert "100000000 pixels" in told(socket)["error"]["errors"][0]["message"]


def test_each_frame_is_logged_by_the_id_of_its_answer(serve_bundle: Any, tmp_path: Path) -> None:
    served = serve_bundle(spots(tmp_path), predictions={"folder": str(tmp_path / "log")})
    with served.client.websocket_connect("/stream") as socket:
        socket.send_bytes(BRIGHT)
        identifier = told(socket)["id"]
    served.runtime.log.close()
    (line,) = [line for file in (tmp_path / "log").rglob("*.jsonl") for line in file.read_text().splitlines()]
    record = json.loads(line)
    assert record["id"] == identifier
    assert record["found"][0]["label"] == "spot"
    assert record["inputs"]["image"]["brightness"] == 255
