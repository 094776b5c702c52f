"""Models that draw through the whole service: OpenAI's interface, jobs, the policy, marks, rows, counts and the log."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts import metric_names as names
from contracts.drawing_engine import FlaggedError, Wish
from contracts.errors import PlatformError
from contracts.problems.image import Drawn, pixels_of
from contracts.provenance import is_sealed, read_mark
from services.drawing.jobs import Job, Jobs
from services.errors import Problem
from services.metrics.service_metrics import ServiceMetrics
from services.problems import get_serving
from services.settings import DrawingSettings
from tests.drawing_bundle import GRAYS, LABELS, SIDE, grays

PATH = "/v1/images/generations"


def files(answer: Any) -> list[bytes]:
    return [base64.b64decode(one["b64_json"]) for one in answer["data"]]


def test_the_real_client_of_openai_gets_images(serve_bundle: Any, tmp_path: Path) -> None:
    import openai

    client = openai.OpenAI(base_url="http://testserver/v1", api_key="none", http_client=None, max_retries=0)
    served = serve_bundle(grays(tmp_path)).client
    client._client = served  # speaks to the service in this process
    found = client.images.generate(
        model="grays", prompt="A Light Grey, please", n=2, size="16x16", response_format="b64_json",
        extra_body={"seed": 7, "steps": 3},
    )  # fmt: skip
    assert found.data is not None
    assert [one.revised_prompt for one in found.data] == ["light grey"] * 2
    marks = [read_mark(base64.b64decode(one.b64_json or "")) for one in found.data]
    assert [(mark["seed"], mark["steps"], mark["model"], mark["version"]) for mark in marks] == [
        (7, 3, "grays", "3"), (8, 3, "grays", "3"),
    ]  # fmt: skip
    pixels = pixels_of(base64.b64decode(found.data[0].b64_json or ""))
    assert pixels.shape == (16, 16, 1)
    assert abs(float(pixels.mean()) - (GRAYS[2] + 1) * 127.5) < 1
    with pytest.raises(openai.BadRequestError) as refused:
        client.images.generate(model="grays", prompt="a blue one")
    assert refused.value.param == "prompt"
    with pytest.raises(openai.NotFoundError):
        client.images.generate(model="other", prompt="dark")


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"n": 0}, "n", "invalid_value"),
        ({"n": 1000}, "n", "invalid_value"),
        ({"n": "2"}, "n", "invalid_value"),
        ({"steps": -4}, "steps", "invalid_value"),
        ({"steps": 21}, "steps", "invalid_value"),
        ({"guidance": 0.5}, "guidance", "invalid_value"),
        ({"guidance": 21.0}, "guidance", "invalid_value"),
        ({"seed": -1}, "seed", "invalid_value"),
        ({"size": "12x12"}, "size", "unsupported_size"),
        ({"size": "16x8"}, "size", "unsupported_size"),
        ({"size": "0x0"}, "size", "unsupported_size"),
        ({"size": "8000x8000"}, "size", "unsupported_size"),
        ({"prompt": ""}, "prompt", "invalid_value"),
        ({"prompt": "a zebra"}, "prompt", "invalid_value"),
        ({"prompt": "grey and dark"}, "prompt", "invalid_value"),
        ({"response_format": "url"}, "response_format", "invalid_value"),
        ({"colour": "red"}, "colour", "unknown_parameter"),
    ],
)
def test_a_bad_request_is_refused_by_its_member(
    serve_bundle: Any, tmp_path: Path, change: dict[str, Any], param: str, code: str
) -> None:
    client = serve_bundle(grays(tmp_path)).client
    answer = client.post(PATH, json={"prompt": "grey", **change})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["param"], error["code"], error["type"]) == (param, code, "invalid_request_error")
    assert "zebra" not in error["message"]


def test_what_the_policy_forbids_is_refused_and_counted(serve_bundle: Any, tmp_path: Path) -> None:
    served = serve_bundle(grays(tmp_path), drawing={"denied_labels": ["Grey"], "denied_words": "secret, hidden"})
    client = served.client
    for prompt in ("grey", "a Secret dark", "dark or grey"):
        error = client.post(PATH, json={"prompt": prompt}).json()["error"]
        assert (error["code"], error["param"]) == ("content_policy_violation", "prompt")
    assert client.post(PATH, json={"prompt": "a light grey"}).status_code == 200
    refused = client.post("/predict", json={"instances": [{"prompt": "grey"}]})
    assert (refused.status_code, refused.json()["type"]) == (422, "urn:fairlead:problem:content-policy")
    unknown = client.post("/predict", json={"instances": [{"prompt": "dark"}, {"prompt": "x", "steps": -1}]}).json()
    assert [one["field"] for one in unknown["errors"]] == ["instances[1].prompt", "instances[1].steps"]
    assert "light grey" in unknown["errors"][0]["message"]
    assert ", grey" not in unknown["errors"][0]["message"]  # what is not drawn is not offered
    lines = client.get("/metrics").text.splitlines()
    counted = {
        line.split('label="')[1].split('"')[0]: line for line in lines if line.startswith(names.PREDICTIONS + "{")
    }
    assert counted["(refused)"].endswith(" 4.0")
    assert counted["light grey"].endswith(" 1.0")


def test_rows_and_tensors_give_the_same_image_for_the_same_seed(serve_bundle: Any, tmp_path: Path) -> None:
    served = serve_bundle(grays(tmp_path), predictions={"folder": str(tmp_path / "log"), "text": "drop"})
    client = served.client
    rows = [{"prompt": "dark", "seed": 5}, {"prompt": "dark", "seed": 5, "steps": 2}, {"prompt": "light grey"}]
    found = client.post("/predict", json={"instances": rows}).json()["predictions"]
    assert [one["label"] for one in found] == ["dark", "dark", "light grey"]
    marks = [read_mark(base64.b64decode(one["image"])) for one in found]
    assert [(mark["seed"], mark["steps"]) for mark in marks] == [(5, 4), (5, 2), (0, 4)]
    tensor = {"name": "prompt", "datatype": "BYTES", "shape": [1], "data": ["dark"]}
    outputs = client.post("/v2/models/grays/infer", json={"inputs": [tensor]}).json()["outputs"]
    images = {one["name"]: one["data"] for one in outputs}
    assert images["label"] == ["dark"]
    assert read_mark(base64.b64decode(images["image"][0]))["model"] == "grays"
    drawn = client.post(PATH, json={"prompt": "a grey", "n": 2, "seed": 1}).json()["data"]
    served.runtime.log.close()
    records = [
        json.loads(line) for file in (tmp_path / "log").rglob("*.jsonl") for line in file.read_text().splitlines()
    ]
    assert sorted(one["class"] for one in records) == ["dark", "dark", "dark", "grey", "grey", "light grey"]
    assert all(0 <= one["brightness"] <= 1 for one in records)
    watched = get_serving(served.runtime.model().problem).watched(records[0])
    assert watched["sharpness"] == records[0]["sharpness"] >= 0
    assert not any("image" in one for one in records)
    assert {one["id"] for one in drawn} == {one["id"] for one in records if one["class"] == "grey"}


def test_a_mark_can_be_seen_and_sealed_and_other_pixels_are_told(serve_bundle: Any, tmp_path: Path) -> None:
    from io import BytesIO

    from PIL import Image

    key = tmp_path / "key"
    key.write_bytes(b"k" * 32)
    client = serve_bundle(grays(tmp_path), drawing={"seal_file": str(key)}).client
    body = {"prompt": "grey", "seed": 1, "size": "64x64"}
    plain, seen = (files(client.post(PATH, json={**body, "visible_mark": on}).json())[0] for on in (False, True))
    assert (pixels_of(plain) != pixels_of(seen)).any()
    assert set(np.unique(pixels_of(seen)[-5:, -5:])) <= {0, 255, *np.unique(pixels_of(plain))}
    mark = read_mark(seen)
    assert mark["visible_mark"]
    assert is_sealed(mark, b"k" * 32)
    assert not is_sealed(mark, b"x" * 32)
    assert not is_sealed({**mark, "seed": 2}, b"k" * 32)
    image = Image.open(BytesIO(seen))
    image.load()
    changed = BytesIO()
    image.point(lambda value: 255 - value).save(changed, "PNG", pnginfo=_info(image))
    with pytest.raises(PlatformError, match="does not say where it comes from") as told:
        read_mark(changed.getvalue())
    assert "other pixels" in told.value.detail


def _info(image: Any) -> Any:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for name, text in image.text.items():
        info.add_itxt(name, text)
    return info


def test_a_job_says_how_far_it_is_and_has_its_images_at_the_end(serve_bundle: Any, tmp_path: Path) -> None:
    served = serve_bundle(grays(tmp_path))
    client, engine = served.client, served.runtime.engine
    go, at_step, draw = threading.Event(), threading.Event(), engine.draw

    def slow(wishes: Any, report: Any) -> Any:
        def told(done: int) -> None:
            report(done)
            at_step.set()
            assert go.wait(10)
            report(done)

        return draw(wishes, told)

    served.runtime.jobs._draw = slow
    begun = client.post(PATH, json={"prompt": "dark", "n": 2, "async": True})
    assert begun.status_code == 202
    job, where = begun.json(), begun.headers["location"]
    assert (job["object"], job["status"], job["result"]) == ("image.job", "queued", None)
    assert at_step.wait(10)
    second = client.post("/v1/images/jobs", json={"prompt": "grey"}).json()
    running = client.get(where).json()
    assert running["status"] == "running"
    assert 0 < running["progress"] < 1
    assert client.get(f"/v1/images/jobs/{second['id']}").json()["before"] == 1
    gone = client.post(f"/v1/images/jobs/{second['id']}/cancel").json()
    assert (gone["status"], gone["error"]["code"]) == ("cancelled", "cancelled")
    go.set()
    found = wait_for(client, where)
    assert (found["status"], found["progress"], len(found["result"]["data"])) == ("succeeded", 1.0, 2)
    assert client.post(f"{where}/cancel").status_code == 409
    assert client.get("/v1/images/jobs/none").json()["error"]["code"] == "job_not_found"


def wait_for(client: Any, where: str) -> Any:
    for _ in range(500):
        found = client.get(where).json()
        if found["status"] in ("succeeded", "failed", "cancelled"):
            return found
        time.sleep(0.01)
    raise AssertionError(found)


def test_a_running_job_ends_after_its_step_when_it_is_cancelled(serve_bundle: Any, tmp_path: Path) -> None:
    served = serve_bundle(grays(tmp_path))
    client, engine = served.client, served.runtime.engine
    at_step, steps, draw = threading.Event(), [], engine.draw

    def slow(wishes: Any, report: Any) -> Any:
        def told(done: int) -> None:
            steps.append(done)
            at_step.set()
            time.sleep(0.2)
            report(done)

        return draw(wishes, told)

    served.runtime.jobs._draw = slow
    where = client.post(PATH, json={"prompt": "dark", "steps": 20, "async": True}).headers["location"]
    assert at_step.wait(10)
    gone = client.post(f"{where}/cancel").json()
    assert (gone["status"], gone["result"]) == ("cancelled", None)
    assert gone["progress"] < 1
    assert len(steps) < 20
    assert client.post(PATH, json={"prompt": "grey"}).status_code == 200  # the next one is drawn


async def _order(costs: list[int]) -> list[int]:
    done: list[int] = []
    hold = threading.Event()

    def draw(wishes: Any, report: Any) -> list[Any]:
        assert hold.wait(10)
        done.append(wishes[0].seed)
        return []

    jobs = Jobs(draw, 1.0, DrawingSettings(max_waiting_seconds=100), ServiceMetrics("m", "1"))

    def job(cost: int) -> Job:
        return Job(wishes=[Wish(label="a", seed=cost, steps=1, guidance=1.0)], work=cost)

    all_of = [jobs.submit(job(cost), keep=False) for cost in costs]
    await asyncio.sleep(0.05)  # the first one runs
    with pytest.raises(Problem) as refused:
        jobs.submit(job(90), keep=False)
    assert refused.value.status == 429
    assert int(refused.value.headers["retry-after"]) >= 1
    hold.set()
    await asyncio.gather(*(one.over.wait() for one in all_of))
    await jobs.close()
    return done


def test_short_jobs_go_before_long_ones_and_too_much_is_refused() -> None:
    assert asyncio.run(_order([30, 20, 5, 10])) in ([5, 10, 20, 30], [30, 5, 10, 20])


def test_jobs_that_ended_are_let_go(serve_bundle: Any, tmp_path: Path) -> None:
    client = serve_bundle(grays(tmp_path), drawing={"max_jobs": 2}).client
    places = []
    for _ in range(3):
        places.append(client.post("/v1/images/jobs", json={"prompt": "dark"}).headers["location"])
        assert wait_for(client, places[-1])["status"] == "succeeded"
    assert client.get(places[0]).status_code == 404
    assert client.get(places[2]).status_code == 200


def test_a_model_of_text_is_asked_with_any_text_but_for_what_the_policy_forbids(
    serve_bundle: Any, tmp_path: Path
) -> None:
    denied = {"denied_labels": ["lion"], "denied_words": "secret"}
    served = serve_bundle(grays(tmp_path, any_text=True), drawing=denied, predictions={"folder": str(tmp_path / "log")})
    client, asked = served.client, list[Wish]()

    def draw(wishes: Any, report: Any = None) -> list[Drawn]:
        asked.extend(wishes)
        if wishes[0].prompt == "a nude":
            raise FlaggedError
        return [Drawn(np.zeros((SIDE, SIDE, 1), np.uint8), one.label) for one in wishes]

    assert client.get("/v1/models").status_code == 200
    served.runtime.jobs._draw = served.runtime.engine.draw = draw
    found = client.post(PATH, json={"prompt": "a cat at night"}).json()["data"][0]
    assert found["revised_prompt"] == "a cat at night"
    assert client.post(PATH, json={"prompt": "so dark"}).status_code == 200
    assert client.post(PATH, json={"prompt": "dark"}).json()["data"][0]["revised_prompt"] == "dark"
    rows = client.post("/predict", json={"instances": [{"prompt": "a cat"}, {"prompt": "dark"}]}).json()["predictions"]
    assert [one["label"] for one in rows] == ["(text)", "dark"]
    said = [(one.label, one.prompt) for one in asked]
    assert said == [
        ("(text)", "a cat at night"), ("dark", "so dark"), ("dark", ""), ("(text)", "a cat"), ("dark", ""),
    ]  # fmt: skip
    for prompt in ("two lionesses and a Lion", "a SECRET cat", "a nude"):
        error = client.post(PATH, json={"prompt": prompt}).json()["error"]
        assert error["code"] == "content_policy_violation", prompt
    assert client.post(PATH, json={"prompt": "  "}).json()["error"]["param"] == "prompt"
    sample = served.runtime.metrics.registry.get_sample_value
    counted = {
        label: sample(names.PREDICTIONS, {"model": "grays", "version": "3", "label": label})
        for label in ("(text)", "dark", "(refused)")
    }
    assert counted == {"(text)": 2, "dark": 3, "(refused)": 3}
    served.runtime.log.close()
    log = "".join(file.read_text() for file in (tmp_path / "log").rglob("*.jsonl"))
    assert log.count('"class":"(text)"') == 2
    assert "night" not in log, "texts are hashed"


def jobs_counted(served: Any) -> dict[str, float]:
    series = served.runtime.metrics.registry.get_sample_value
    return {
        outcome: series(names.IMAGE_JOBS, {"model": "grays", "version": "3", "outcome": outcome})
        for outcome in names.IMAGE_JOB_OUTCOMES
    }


def test_images_that_nobody_fetches_are_counted_and_logged(
    serve_bundle: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = {"folder": str(tmp_path / "log"), "text": "drop"}
    served = serve_bundle(grays(tmp_path), drawing={"keep_seconds": 0.3}, predictions=log)
    client, jobs = served.client, served.runtime.jobs
    begin = partial(client.post, "/v1/images/jobs")
    fetched = begin(json={"prompt": "dark"}).headers["location"]
    assert wait_for(client, fetched)["status"] == "succeeded"
    left = begin(json={"prompt": "grey", "n": 2}).json()["id"]
    for _ in range(500):  # without a request, which would let go of it too
        if not jobs._kept:
            break
        time.sleep(0.01)
    assert jobs_counted(served) == {"collected": 1, "uncollected": 1, "failed": 0, "cancelled": 0}
    [line] = [one for one in caplog.records if one.getMessage() == "images_uncollected"]
    assert (line.fields["job"], line.fields["images"]) == (left, 2)  # type: ignore[attr-defined]
    assert client.get(f"/v1/images/jobs/{left}").status_code == 404
    served.runtime.log.close()
    text = "".join(file.read_text() for file in (tmp_path / "log").rglob("*.jsonl"))
    assert sorted(json.loads(one)["class"] for one in text.splitlines()) == ["dark", "grey", "grey"]


def test_the_only_job_that_is_kept_can_be_looked_at(serve_bundle: Any, tmp_path: Path) -> None:
    client = serve_bundle(grays(tmp_path), drawing={"max_jobs": 1}).client
    where = client.post("/v1/images/jobs", json={"prompt": "dark"}).headers["location"]
    assert [wait_for(client, where)["status"] for _ in range(2)] == ["succeeded"] * 2


def test_the_document_describes_what_is_asked(serve_bundle: Any, tmp_path: Path) -> None:
    client = serve_bundle(grays(tmp_path)).client
    document = client.get("/openapi.json").json()
    assert {PATH, "/v1/images/jobs", "/v1/images/jobs/{job}", "/v1/images/jobs/{job}/cancel"} <= set(document["paths"])
    assert "async" in document["components"]["schemas"]["ImageRequest"]["properties"]
    assert client.get("/v1/models").json()["data"][0]["id"] == "grays"
    assert client.get("/v1/models/other").status_code == 404


def test_a_seal_needs_a_key(serve_bundle: Any, tmp_path: Path) -> None:
    (tmp_path / "short").write_text("k")
    for file, said in ((tmp_path / "short", "has 1 bytes"), (tmp_path / "none", "cannot read")):
        answer = serve_bundle(grays(tmp_path), drawing={"seal_file": str(file)}).client.get("/v1/models")
        assert answer.status_code == 503
        assert said in answer.text


def test_sides_are_those_of_the_model(serve_bundle: Any, tmp_path: Path) -> None:
    client = serve_bundle(grays(tmp_path), drawing={"max_side": 24}).client
    assert client.post(PATH, json={"prompt": LABELS[0], "size": "auto"}).json()["size"] == f"{SIDE}x{SIDE}"
    assert client.post(PATH, json={"prompt": LABELS[0], "size": "24x24"}).json()["size"] == "24x24"
    message = client.post(PATH, json={"prompt": LABELS[0], "size": "32x32"}).json()["error"]["message"]
    assert "auto, 8x8, 16x16, 24x24" in message
