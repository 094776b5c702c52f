"""Endpoints as child processes, and predictions asked of them."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from contracts.bundle import Bundle, BundleDocument
from contracts.errors import PlatformError
from contracts.ports import free_port
from deploy.cli.machine.ports import is_free
from deploy.cli.serving.endpoint import Endpoint, Served, flat
from deploy.cli.serving.prediction import by_url, given_rows, problem, read_rows, shown
from deploy.cli.serving.serve import curl_line, warnings
from services.server.launch import ServeCommand

# Stands in for a service: not ready at first, then as the test wants.
SERVICE = """
import http.server, json, sys
port, final = int(sys.argv[1]), sys.argv[2]
asked = 0
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self, status, document):
        body = json.dumps(document).encode()
        self.send_response(status); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        global asked
        asked += 1
        if asked < 3:
            self.answer(503, {"type": "urn:fairlead:problem:loading", "title": "the service is loading"})
        elif final == "ready":
            self.answer(200, {})
        else:
            self.answer(503, {"type": "urn:fairlead:problem:golden-mismatch", "title": "it does not reproduce",
                              "detail": "example 3", "fix": "train it again"})
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "bad" in body["instances"]:
            self.answer(422, {"type": "urn:fairlead:problem:invalid-input", "title": "the request does not fit",
                              "errors": [{"field": "instances[0].amount", "message": "expected a number"}]})
        else:
            rows = [{"label": str(one), "probability": 0.5, "flags": []} for one in body["instances"]]
            self.answer(200, {"model": "fraud", "version": "3", "predictions": rows})
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""

DOCUMENT = BundleDocument.model_validate(
    {
        "name": "fraud",
        "task": "fraud",
        "recipe": "lightgbm",
        "modality": "tabular",
        "engine": "lightgbm",
        "signature": {"inputs": [{"name": "amount", "dtype": "float64"}], "classes": ["ok", "fraud"]},
        "gate": {"passed": True, "checks": []},
        "lineage": {"code_version": "c", "data_version": "d", "source": "s", "seed": 1, "created": "2026-01-01"},
        "files": {},
    }
)


@pytest.fixture
def make(endpoints, tmp_path, monkeypatch) -> Iterator[Callable[..., Endpoint]]:
    """An endpoint whose process is the stand-in, or any other argv."""
    made: list[Endpoint] = []

    def build(final: str = "ready", argv: tuple[str, ...] = ()) -> Endpoint:
        port = free_port()
        script = tmp_path / "service.py"
        script.write_text(SERVICE)
        command = ServeCommand(argv=argv or (sys.executable, str(script), str(port), final), env={})
        monkeypatch.setattr("services.server.launch.serve_command", lambda *args, **kwargs: command)
        made.append(Endpoint(endpoints, Served("fraud", "3"), Bundle(Path("/bundles/fraud"), DOCUMENT, "0" * 64), port))
        return made[-1]

    yield build
    for endpoint in made:
        endpoint.stop()


def test_waiting_hears_the_reason_and_ends_when_ready(make) -> None:
    endpoint, reasons = make(), []
    endpoint.start()
    endpoint.wait_ready(reasons.append)
    assert reasons[-1] == "the service is loading"


def test_a_service_that_refuses_its_model_is_not_waited_for(make) -> None:
    endpoint = make("refuse")
    endpoint.start()
    with pytest.raises(PlatformError) as caught:
        endpoint.wait_ready()
    assert (caught.value.code, caught.value.detail, caught.value.fix) == (
        "golden_mismatch",
        "example 3",
        "train it again",
    )


def test_a_service_that_dies_shows_the_end_of_its_log(make) -> None:
    endpoint = make(argv=(sys.executable, "-c", "import sys; sys.exit('no such bundle')"))
    endpoint.start()
    with pytest.raises(PlatformError) as caught:
        endpoint.wait_ready()
    assert "no such bundle" in caught.value.detail
    assert str(endpoint.log) in caught.value.fix


def test_a_service_is_waited_for_as_long_as_it_is_at_work(make, monkeypatch) -> None:
    monkeypatch.setattr("deploy.cli.serving.endpoint.PATIENCE", 0.3)
    idle = make(argv=(sys.executable, "-c", "import time; time.sleep(60)"))
    idle.start()
    with pytest.raises(PlatformError, match="could not serve") as caught:
        idle.wait_ready()
    assert "still not ready after" in caught.value.detail
    busy = "import sys, time; end = time.time() + 1.5\nwhile time.time() < end: pass\nsys.exit('was at work')"
    endpoint = make(argv=(sys.executable, "-c", busy))
    endpoint.start()
    with pytest.raises(PlatformError) as caught:
        endpoint.wait_ready()
    assert "was at work" in caught.value.detail


def test_stopping_frees_the_port(make) -> None:
    with make() as endpoint:
        endpoint.start()
        endpoint.wait_ready()
        assert not is_free(endpoint.port)
    assert is_free(endpoint.port)


def test_a_port_in_use_is_refused_before_anything_starts(make) -> None:
    endpoint = make()
    endpoint.start()
    endpoint.wait_ready()
    second = make()
    second.port = endpoint.port
    with pytest.raises(PlatformError, match=f"port {endpoint.port} is in use"):
        second.start()


def test_an_address_of_another_machine_is_refused_before_anything_starts(make) -> None:
    endpoint = make()
    endpoint.host = "192.0.2.1"
    with pytest.raises(PlatformError, match=r"192\.0\.2\.1") as caught:
        endpoint.start()
    assert "--host 127.0.0.1" in caught.value.fix


@pytest.mark.parametrize(
    ("host", "url", "keys", "warned"),
    [
        ("127.0.0.1", "http://127.0.0.1:3000", "", ()),
        ("localhost", "http://localhost:3000", "", ()),
        ("::1", "http://[::1]:3000", "", ()),
        ("0.0.0.0", "http://127.0.0.1:3000", "", ("0.0.0.0", "without an API key", "KEYS_FILE=keys")),
        ("::", "http://[::1]:3000", "", ("::", "without an API key")),
        ("0.0.0.0", "http://127.0.0.1:3000", "keys", ("0.0.0.0",)),
    ],
)
def test_an_address_that_others_reach_is_warned_of(endpoints, host, url, keys, warned) -> None:
    bundle = Bundle(Path("/bundles/fraud"), DOCUMENT, "0" * 64)
    endpoint = Endpoint(endpoints, Served("fraud", "3"), bundle, 3000, {"keys_file": keys}, host)
    assert endpoint.url == url
    lines = warnings(endpoint)
    assert len(lines) == bool(warned)
    assert all(word in lines[0] for word in warned)
    assert any("API key" in line for line in lines) == (bool(warned) and not keys)
    assert ("$FAIRLEAD_API_KEY" in curl_line(endpoint, {})) == bool(keys)


def test_predictions_of_an_endpoint_come_in_batches_in_order(make) -> None:
    endpoint = make()
    endpoint.start()
    endpoint.wait_ready()
    answers = list(by_url(endpoint.url, list(range(1200)), explain=False))
    assert [row["label"] for answer in answers for row in answer["predictions"]] == [str(n) for n in range(1200)]
    with pytest.raises(PlatformError) as caught:
        list(by_url(endpoint.url + "/predict", ["bad"], explain=True))
    assert caught.value.code == "invalid_input"
    assert "instances[0].amount: expected a number" in caught.value.detail


def test_predict_by_url_prints_a_table_or_json(make, fairlead) -> None:
    endpoint = make()
    endpoint.start()
    endpoint.wait_ready()
    said = fairlead("predict", "fraud", "--input", '[{"amount": 1}]', "--url", endpoint.url)
    assert "fraud:3" in said.out
    assert "0.5000" in said.out
    assert fairlead("predict", "fraud", "-i", "{}", "--url", endpoint.url, "--json").json["version"] == "3"


def test_no_endpoint_is_an_error_with_a_cure(fairlead) -> None:
    said = fairlead("predict", "fraud", "--input", "{}", "--url", f"http://127.0.0.1:{free_port()}")
    assert said.code == 1
    assert "fairlead serve" in said.err


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('{"a": 1}', [{"a": 1}]),
        ('[{"a": 1}, {"a": 2}]', [{"a": 1}, {"a": 2}]),
        ('{"a": 1}\n\n{"a": 2}\n', [{"a": 1}, {"a": 2}]),
        ('{"instances": [{"a": 1}]}', [{"a": 1}]),
    ],
)
def test_rows_come_as_text_or_from_a_file(tmp_path, text, rows) -> None:
    assert read_rows(text) == rows
    (tmp_path / "rows.json").write_text(text)
    assert read_rows(str(tmp_path / "rows.json")) == rows


@pytest.mark.parametrize(
    ("text", "complaint"),
    [('{"a": 1}\n{"a": ', "line 2"), ("[]", "no rows"), ("nothing.json", "cannot read"), ("{", "line 1")],
)
def test_bad_rows_are_refused_with_their_line(text, complaint) -> None:
    with pytest.raises(PlatformError) as caught:
        read_rows(text)
    assert complaint in str(caught.value)


def test_a_file_of_other_bytes_is_refused(tmp_path) -> None:
    (tmp_path / "rows.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PlatformError, match="cannot read"):
        read_rows(str(tmp_path / "rows.json"))


def test_a_row_is_given_as_json_or_as_a_file_of_an_image(tmp_path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8")
    assert given_rows("", [str(tmp_path / "a.jpg")]) == [{"image": "/9g="}]
    assert given_rows('{"a": 1}', []) == [{"a": 1}]
    for given, images, said in (
        ("", [], "nothing to predict"),
        ("{}", ["a.jpg"], "both given"),
        ("", ["nothing.jpg"], "cannot read --image 'nothing.jpg'"),
    ):
        with pytest.raises(PlatformError, match=said):
            given_rows(given, images)


def test_boxes_are_drawn_on_the_images_that_were_asked_about(tmp_path) -> None:
    from PIL import Image

    from deploy.cli.serving.drawing import check_target, draw_answers

    for name, size in (("a.png", (400, 500)), ("b.png", (40, 50))):
        Image.new("RGB", size, "white").save(tmp_path / name)
    files = [str(tmp_path / name) for name in ("a.png", "b.png")]
    found = [{"label": "cup", "score": 0.9, "box": [100.0, 200.0, 300.0, 400.0]}]
    said = [{"objects": found}, {"objects": [{**found[0], "box": [10.0, 20.0, 30.0, 40.0]}]}]
    first, second = draw_answers(str(tmp_path / "out.png"), files, said)
    assert (first, second) == (str(tmp_path / "out.png"), str(tmp_path / "out-2.png"))
    large, small = Image.open(first), Image.open(second)
    assert large.size == (400, 500)
    assert small.size == (360, 450), "a small image is drawn larger, so that labels do not cover it"
    for image in (large, small):
        edge = image.getpixel((image.width // 2, image.height * 4 // 5))
        assert edge != (255, 255, 255)
        assert image.getpixel((image.width // 2, image.height * 3 // 5)) == (255, 255, 255)
    with pytest.raises(PlatformError, match="no boxes to draw"):
        draw_answers(str(tmp_path / "out.png"), files[:1], [{"label": "dark"}])
    with pytest.raises(PlatformError, match="needs images"):
        draw_answers(str(tmp_path / "out.png"), [], said)
    with pytest.raises(PlatformError, match="no picture can be written"):
        check_target("out.txt")


def test_images_that_a_model_made_are_written_as_they_are(tmp_path) -> None:
    import base64

    import numpy as np

    from contracts.provenance import marked_png, read_mark
    from deploy.cli.serving.drawing import draw_answers

    made = [marked_png(np.full((4, 4, 1), at, np.uint8), {"seed": at}) for at in (1, 2)]
    said = [{"label": "fish", "image": base64.b64encode(one).decode()} for one in made]
    files = draw_answers(str(tmp_path / "out.png"), [], said)
    assert [Path(file).name for file in files] == ["out.png", "out-2.png"]
    assert [read_mark(Path(file).read_bytes())["seed"] for file in files] == [1, 2]
    with pytest.raises(PlatformError, match=r"are PNG files, not \.jpg"):
        draw_answers(str(tmp_path / "out.jpg"), [], said)
    assert "image" not in str([column.header for column in shown(said).columns])


def test_an_answer_that_is_no_problem_document_is_still_told() -> None:
    assert "answered 502" in problem(502, "<html>").headline


def test_settings_are_flattened_to_dotted_keys() -> None:
    assert flat({"threads": 2, "predictions": {"sample": 0.1}}) == {"threads": 2, "predictions.sample": 0.1}


def test_the_curl_line_survives_quotes_of_a_shell(make) -> None:
    line = curl_line(make(), {"instances": [{"text": "it's 東京"}]})
    import shlex

    assert json.loads(shlex.split(line)[-1]) == {"instances": [{"text": "it's 東京"}]}


@pytest.mark.parametrize(
    ("answer", "row"),
    [
        ({"label": "fraud", "probability": 0.25, "probabilities": {"fraud": 0.25}, "threshold": 0.1}, "fraud 0.2500"),
        ({"labels": ["late", "rude"], "probabilities": {"late": 0.75, "rude": 0.5}}, "late, rude"),
        ({"labels": [], "probabilities": {"late": 0.25}}, "-"),
        ({"value": 3.5, "interval": [2.25, 1234567.0]}, "3.5000 2.2500, 1234567.0"),
        ({"embedding": [0.1, -0.2, 0.3, 0.4, 0.5]}, "0.1000, -0.2000, 0.3000, 0.4000, ... (5 numbers)"),
    ],
)
def test_the_answer_of_every_problem_is_shown(answer: dict[str, Any], row: str) -> None:
    console = Console(width=100, file=io.StringIO())
    console.print(shown([{"id": "1", **answer, "flags": ["missing:amount"]}]))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert " ".join(lines[3].split()) == f"0 {row} missing:amount"
