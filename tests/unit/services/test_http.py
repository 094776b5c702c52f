"""Routing, limits and what is logged when something fails."""

from __future__ import annotations

import logging
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urljoin

import pytest

from services.errors import Problem
from services.logs import JsonFormatter
from services.server.requests import Route, Router

GOOD = {"amount": 500, "country": "AT"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/predict", 405),
        ("DELETE", "/v2/models/payments", 405),
        ("POST", "/predict//", 404),
        ("GET", "/docs" + "/" * 5000, 404),
        ("GET", "/assets/..%2f..%2fsecret", 404),
    ],
)
def test_unknown_paths_and_methods_are_problems(
    serve: Any, make_bundle: Any, method: str, path: str, status: int
) -> None:
    answer = serve(make_bundle()).client.request(method, path)
    assert answer.status_code == status
    assert answer.json()["status"] == status
    assert ("allow" in answer.headers) == (status == 405)


def test_a_path_that_nobody_has_is_refused_in_the_form_of_the_paths_beside_it() -> None:
    def form(problem: Problem) -> bytes:
        return b""

    router = Router([Route("/v1/{name}/all", {}, refusal=form), Route("/predict", {})])
    assert router.refusal("/v1/other") is form
    assert [router.refusal(path) for path in ("/predict/other", "/v10/a", "/", "", "v1/a", "*")] == [None] * 6


def test_a_body_that_is_not_json_is_refused(serve: Any, make_bundle: Any) -> None:
    client = serve(make_bundle()).client
    answer = client.post("/predict", content=b"{}", headers={"content-type": "text/plain"})
    assert answer.status_code == 415
    assert "application/json" in answer.json()["fix"]


@pytest.mark.parametrize("announced", [True, False])
def test_a_large_body_is_refused(serve: Any, make_bundle: Any, announced: bool) -> None:
    client = serve(make_bundle(), max_body_bytes=2048).client
    body = b'{"instances": [' + b" " * 4096 + b"]}"
    content = body if announced else iter([body[:1000], body[1000:]])
    answer = client.post("/predict", content=content, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["detail"]) == (413, "at most 2048 bytes are accepted")


def test_a_failing_model_gives_500_and_logs_no_values(
    serve: Any, make_bundle: Any, caplog: pytest.LogCaptureFixture
) -> None:
    served = serve(make_bundle())
    served.engine.error = ValueError("cannot score customer 4711")
    with caplog.at_level(logging.ERROR):
        answer = served.predict(GOOD)
    assert answer.status_code == 500
    assert "4711" not in answer.text
    lines = [JsonFormatter().format(record) for record in caplog.records]
    assert any('"exception":"ValueError"' in line and "conftest.py" in line for line in lines)
    assert not any("4711" in line for line in lines)
    served.engine.error = None
    assert served.predict(GOOD).status_code == 200


def test_a_slow_model_gives_504_and_keeps_its_place_in_the_queue(serve: Any, make_bundle: Any) -> None:
    served = serve(make_bundle(), timeout_seconds=0.2, max_concurrency=1, inline_ms=0)
    served.engine.blocked = threading.Event()
    assert served.predict(GOOD).status_code == 504
    refused = served.predict(GOOD)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    served.engine.blocked.set()
    deadline = time.monotonic() + 5
    while served.predict(GOOD).status_code == 429 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert served.predict(GOOD).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"x-request-timeout-ms": "0"}, 504, "deadline-exceeded"),
        ({"x-request-timeout-ms": "-5"}, 504, "deadline-exceeded"),
        ({"x-request-deadline": "1700000000"}, 504, "deadline-exceeded"),
        ({"x-request-timeout-ms": "soon"}, 400, "bad-header"),
        ({"x-request-timeout-ms": "nan"}, 400, "bad-header"),
        ({"x-request-deadline": "inf"}, 400, "bad-header"),
        ({"x-request-priority": "urgent"}, 400, "bad-header"),
    ],
)
def test_a_deadline_in_the_past_or_a_wrong_header_never_reaches_the_model(
    serve: Any, make_bundle: Any, headers: dict[str, str], status: int, code: str
) -> None:
    served = serve(make_bundle())
    before = len(served.engine.seen)
    answer = served.client.post("/predict", json={"instances": [GOOD]}, headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:fairlead:problem:{code}")
    assert len(served.engine.seen) == before


def test_a_request_with_time_and_priority_is_answered(serve: Any, make_bundle: Any) -> None:
    headers = {"x-request-timeout-ms": "5000", "x-request-priority": "High"}
    assert serve(make_bundle()).client.post("/predict", json={"instances": [GOOD]}, headers=headers).status_code == 200


def test_the_deadline_of_a_client_ends_its_wait(serve: Any, make_bundle: Any) -> None:
    served = serve(make_bundle(), inline_ms=0)
    served.engine.blocked = threading.Event()
    start = time.monotonic()
    answer = served.client.post("/predict", json={"instances": [GOOD]}, headers={"x-request-timeout-ms": "100"})
    served.engine.blocked.set()
    assert (answer.status_code, answer.json()["type"]) == (504, "urn:fairlead:problem:deadline-exceeded")
    assert time.monotonic() - start < 2


def test_one_bad_row_of_one_client_fails_alone(serve: Any, make_bundle: Any) -> None:
    served = serve(make_bundle(), inline_ms=0)
    engine = served.engine
    predict = engine.predict

    def picky(columns: Any) -> Any:
        if 666 in columns["amount"]:
            raise ValueError("this row is not for me")
        return predict(columns)

    engine.predict = picky
    gate = engine.blocked = threading.Event()
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(served.predict, {"amount": at, "country": "AT"}) for at in (1, 2, 666, 3, 4)]
        time.sleep(0.2)
        gate.set()
        assert sorted(answer.result().status_code for answer in answers) == [200, 200, 200, 200, 500]
        assert answers[2].result().status_code == 500


@pytest.mark.parametrize(
    "text", [b'{"instances": [{"amount": NaN, "country": "AT"}]}', b'{"instances": [{"amount": 1e999}]}']
)
def test_nan_and_infinity_are_no_json(serve: Any, make_bundle: Any, text: bytes) -> None:
    answer = serve(make_bundle()).client.post("/predict", content=text, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)


def test_json_that_is_too_deep_is_refused(serve: Any, make_bundle: Any) -> None:
    deep = b'{"instances": ' + b"[" * 5000 + b"]" * 5000 + b"}"
    answer = serve(make_bundle()).client.post("/predict", content=deep, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:fairlead:problem:malformed-json")


def test_requests_in_flight_are_finished_at_shutdown(serve: Any, make_bundle: Any) -> None:
    served = serve(make_bundle())
    gate = served.engine.blocked = threading.Event()
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(served.predict, GOOD) for _ in range(4)]
        time.sleep(0.1)
        gate.set()
        assert [answer.result().status_code for answer in answers] == [200] * 4


def test_templates_match_whole_segments_only() -> None:
    async def handler(request: Any) -> Any: ...

    router = Router([Route("/a/{x}", {"GET": handler}), Route("/a/{x}/b", {"GET": handler})])
    assert router.find("/a/1")[1] == {"x": "1"}
    assert router.find("/a/1/b")[0] is not None
    assert router.find("/a/")[0] is None
    assert router.find("/a//b")[0] is None
    assert router.find("/a/1/")[1] == {"x": "1"}
    assert router.find("/a/1/c")[0] is None


PATHS = ("/docs", "/openapi.json", "/metrics", "/startupz", "/v2", "/v2/health/ready", "/assets/swagger-ui.css")
OF_THE_MODEL = ("/v2/models/payments", "/v2/models/payments/ready", "/v2/models/payments/versions/3")


@pytest.mark.parametrize("path", [*PATHS, *OF_THE_MODEL])
def test_a_slash_at_the_end_of_a_path_changes_nothing(serve: Any, make_bundle: Any, path: str) -> None:
    client = serve(make_bundle()).client
    plain, slash = client.get(path), client.get(f"{path}/")
    assert (slash.status_code, slash.headers["content-type"]) == (200, plain.headers["content-type"])


def test_predictions_with_a_slash_and_the_files_of_the_page(serve: Any, make_bundle: Any) -> None:
    served = serve(make_bundle())
    assert served.client.post("/predict/", json={"instances": [GOOD]}).status_code == 200
    for page in ("/", "/docs", "/docs/"):
        link = re.search(r'href="([^"]+css)"', served.client.get(page).text)
        assert link is not None
        assert served.client.get(urljoin(f"http://x{page}", link[1]).removeprefix("http://x")).status_code == 200


@pytest.mark.parametrize(("marks", "status"), [(1, 200), (2, 400), (100_000, 400)])
def test_a_byte_order_mark_before_json_is_passed_over_once(
    serve: Any, make_bundle: Any, marks: int, status: int
) -> None:
    client = serve(make_bundle()).client
    body = b"\xef\xbb\xbf" * marks + b'{"instances": [{"amount": 500, "country": "AT"}]}'
    assert client.post("/predict", content=body, headers={"content-type": "application/json"}).status_code == status
