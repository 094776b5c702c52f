"""Images in every form that a request may have, and what a bad one is told."""

from __future__ import annotations

import asyncio
import json
import struct
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import jsonschema
import pytest

from contracts import metric_names as names
from contracts.bundle import Bundle, write_bundle
from contracts.engines import load_engine
from services.oip import oip_pb2 as pb
from services.oip.grpc_server import SERVICE, GrpcServer
from services.problems import get_serving
from services.server.lifecycle import MODALITIES
from services.settings import ServiceSettings
from tests.image_bundle import SIGNATURE, encoded, image_source, picture

LINEAGE = {"code_version": "c", "data_version": "d", "source": "s", "seed": 1, "created": "2026-01-01T00:00:00Z"}
DARK, BRIGHT = picture(0), picture(204)
PATH = "/v2/models/shades/infer"


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    image_source(tmp_path / "source")
    fields = {"name": "shades", "task": "shades", "recipe": "r", "modality": "image", "engine": "onnx"}
    gate = {"passed": True, "checks": []}
    return write_bundle(
        tmp_path / "source", tmp_path / "bundles", fields | {"signature": SIGNATURE, "gate": gate, "lineage": LINEAGE}
    )


@pytest.fixture
def start(serve: Any, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A service over the bundle with its own engine; keyword arguments are settings."""
    monkeypatch.setattr("services.model.runtime.load_engine", load_engine)
    return lambda **settings: serve(bundle, **settings)


def labels(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [one["label"] for one in answer.json()["predictions"]]


def complaint(answer: Any) -> tuple[int, str, str]:
    """Status, and the first field with its message."""
    body = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    first = body.get("errors", [{"field": "", "message": body.get("detail", "")}])[0]
    return answer.status_code, first["field"], first["message"]


def form(served: Any, *files: tuple[str, bytes]) -> Any:
    return served.client.post("/predict", files=[(name, ("x", content)) for name, content in files])


def raw(served: Any, content: bytes, media: str) -> Any:
    return served.client.post("/predict", content=content, headers={"content-type": media})


def test_json_carries_base64(start: Any) -> None:
    answer = start().predict({"image": encoded(DARK)}, {"image": encoded(BRIGHT)})
    assert labels(answer) == ["dark", "bright"]
    assert answer.json()["predictions"][1]["probabilities"] == pytest.approx({"dark": 0.2, "bright": 0.8}, abs=1e-6)


def test_how_far_an_image_is_from_usual_ones_is_logged(
    serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_source(tmp_path / "source", vector=True)
    normal = {"inputs": {"image": {"kind": "file", "center": [3**-0.5] * 3}}}
    (tmp_path / "source" / "baseline.json").write_text(json.dumps(normal))
    fields = {"name": "shades", "task": "shades", "recipe": "r", "modality": "image", "engine": "onnx"}
    more = {"signature": SIGNATURE, "gate": {"passed": True, "checks": []}, "lineage": LINEAGE}
    made = write_bundle(tmp_path / "source", tmp_path / "bundles", fields | more)
    monkeypatch.setattr("services.model.runtime.load_engine", load_engine)
    served = serve(made, predictions={"folder": str(tmp_path / "log")})
    served.predict(*[{"image": encoded(picture((255, 0, 0)))}] * 3)
    served.runtime.log.close()
    [file] = (tmp_path / "log").rglob("*.jsonl")
    told = [json.loads(line)["inputs"]["image"] for line in file.read_text().splitlines()]
    assert told[0]["distance"] == pytest.approx(1 - 3**-0.5, abs=1e-6)
    assert ["distance" in one for one in told] == [True, False, False]


@pytest.fixture
def cautious(serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A service over a bundle that tells how far an image is from what it knows."""
    image_source(tmp_path / "source", ood=True)
    fields = {"name": "shades", "task": "shades", "recipe": "r", "modality": "image", "engine": "onnx"}
    more = {"signature": SIGNATURE, "gate": {"passed": True, "checks": []}, "lineage": LINEAGE}
    made = write_bundle(tmp_path / "source", tmp_path / "bundles", fields | more)
    monkeypatch.setattr("services.model.runtime.load_engine", load_engine)
    return lambda **settings: serve(made, **settings)


def test_a_strange_image_is_said_to_be_one_counted_and_logged(cautious: Any, tmp_path: Path) -> None:
    served = cautious(predictions={"folder": str(tmp_path / "log")})
    found = served.predict({"image": encoded(DARK)}, {"image": encoded(BRIGHT)}).json()["predictions"]
    assert [(one["ood_score"], one["abstain"]) for one in found] == [(0.0, False), (pytest.approx(1.6), True)]
    assert [one["flags"] for one in found] == [[], ["out_of_distribution"]]
    assert found[1]["probabilities"] == pytest.approx({"dark": 0.2, "bright": 0.8}, abs=1e-6), "it answers all the same"
    [alone] = served.predict({"image": encoded(BRIGHT)}).json()["predictions"]
    assert alone["flags"] == ["out_of_distribution"]
    tensor = {"name": "image", "shape": [2], "datatype": "BYTES", "data": [encoded(BRIGHT), encoded(DARK)]}
    outputs = served.client.post(PATH, json={"inputs": [tensor]}).json()["outputs"]
    told = {one["name"]: (one["datatype"], one["data"]) for one in outputs}
    assert told["abstain"] == ("BOOL", [True, False])
    assert told["ood_score"][1] == pytest.approx([1.6, 0.0])
    assert "ood_score" in [one["name"] for one in served.client.get("/v2/models/shades").json()["outputs"]]
    sample = served.runtime.metrics.registry.get_sample_value
    assert sample(names.ABSTENTIONS, {"model": "shades", "version": served.runtime.version}) == 3
    answer = served.client.get("/openapi.json").json()["components"]["schemas"]["Prediction"]
    assert {"ood_score", "abstain"} <= set(answer["required"])
    served.runtime.log.close()
    [file] = (tmp_path / "log").rglob("*.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [round(one["ood_score"], 3) for one in lines] == [0.0, 1.6, 1.6, 1.6, 0.0]
    assert lines[1]["flags"] == ["out_of_distribution"]
    watched = get_serving(served.runtime.model().problem).watched(lines[1])
    assert watched["ood_score"] == pytest.approx(1.6)


def test_abstaining_is_a_setting(cautious: Any) -> None:
    [found] = cautious(abstain={"above": 1.7}).predict({"image": encoded(BRIGHT)}).json()["predictions"]
    assert (found["abstain"], found["flags"]) == (False, [])
    [found] = cautious(abstain={"enabled": False}).predict({"image": encoded(BRIGHT)}).json()["predictions"]
    assert not {"abstain", "ood_score"} & set(found)


def test_a_form_carries_several_files_in_order(start: Any) -> None:
    served = start()
    assert labels(form(served, ("file", BRIGHT), ("file", DARK), ("image", BRIGHT))) == ["bright", "dark", "bright"]


@pytest.mark.parametrize("media", ["image/png", "image/jpeg", "application/octet-stream"])
def test_a_body_is_one_file(start: Any, media: str) -> None:
    assert labels(raw(start(), BRIGHT, media)) == ["bright"]


def test_json_tensors_carry_base64(start: Any) -> None:
    tensor = {"name": "image", "shape": [2], "datatype": "BYTES", "data": [encoded(BRIGHT), encoded(DARK)]}
    answer = start().client.post(PATH, json={"inputs": [tensor], "outputs": [{"name": "label"}]})
    assert answer.json()["outputs"][0]["data"] == ["bright", "dark"]


def packed(*files: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(file)) + file for file in files)


def test_binary_tensors_carry_files_as_they_are(start: Any) -> None:
    files = packed(DARK, BRIGHT)
    tensor = {"name": "image", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": len(files)}}
    header = json.dumps({"inputs": [tensor], "outputs": [{"name": "label"}]}).encode()
    answer = start().client.post(
        PATH, content=header + files, headers={"inference-header-content-length": str(len(header))}
    )
    assert answer.json()["outputs"][0]["data"] == ["dark", "bright"]


@pytest.mark.parametrize("as_raw", [True, False])
def test_grpc_carries_files_as_they_are(bundle: Bundle, as_raw: bool) -> None:
    message = pb.ModelInferRequest(model_name="shades")
    tensor = message.inputs.add(name="image", datatype="BYTES", shape=[2])
    if as_raw:
        message.raw_input_contents.append(packed(DARK, BRIGHT))
    else:
        tensor.contents.bytes_contents.extend([DARK, BRIGHT])
    message.outputs.add(name="probabilities")

    async def story() -> Any:
        runtime = MODALITIES.get("image").make()
        await runtime.start(ServiceSettings(bundle=str(bundle.path), version="3"))
        await runtime.loaded()
        server = GrpcServer(runtime)
        port = await server.start("127.0.0.1", 0)
        runtime.on_stop.append(server.stop)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            infer = channel.unary_unary(
                f"/{SERVICE}/ModelInfer", pb.ModelInferRequest.SerializeToString, pb.ModelInferResponse.FromString
            )
            answer = await infer(message)
            message.inputs[0].shape[0] = 1
            message.inputs[0].contents.bytes_contents[:] = [b"nothing"]
            del message.raw_input_contents[:]
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await infer(message)
        await runtime.stop()
        return answer, caught.value

    answer, error = asyncio.run(asyncio.wait_for(story(), 20))
    [output] = answer.outputs
    got: Sequence[float] = output.contents.fp64_contents
    if as_raw:
        got = struct.unpack("<4d", answer.raw_output_contents[0])
    assert list(got) == pytest.approx([1.0, 0.0, 0.2, 0.8], abs=1e-6)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "inputs.image[0]: is no image" in error.details()


def test_metadata_says_bytes(start: Any) -> None:
    client = start().client
    assert client.get("/v2/models/shades").json()["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
    assert client.get("/v2").json()["name"] == "fairlead-image"


UNREADABLE = "is no image that can be read; expected JPEG, PNG, WEBP, GIF, BMP"


@pytest.mark.parametrize("bad", [b"hello", DARK[:40]], ids=["no image", "cut off"])
def test_a_bad_file_is_named_in_every_form(start: Any, bad: bytes) -> None:
    served = start()
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [encoded(bad)]}
    assert complaint(served.predict({"image": encoded(DARK)}, {"image": encoded(bad)})) == (
        422,
        "instances[1].image",
        UNREADABLE,
    )
    assert complaint(form(served, ("file", DARK), ("file", bad))) == (422, "file[1]", UNREADABLE)
    assert complaint(raw(served, bad, "image/png")) == (422, "(body)", UNREADABLE)
    assert complaint(served.client.post(PATH, json={"inputs": [tensor]})) == (422, "inputs.image[0]", UNREADABLE)


def test_too_many_pixels_are_refused_before_they_are_decoded(start: Any) -> None:
    served = start(max_image_pixels=100)
    expected = (422, "file[1]", "has 64 pixels, 36 of the 100 that one request may have are left")
    assert complaint(form(served, ("file", DARK), ("file", DARK))) == expected


@pytest.mark.parametrize("media", ["text/plain", "", "video/mp4"])
def test_another_content_type_is_refused(start: Any, media: str) -> None:
    assert complaint(raw(start(), DARK, media))[0] == 415


def test_a_tabular_service_takes_no_files(serve: Any, make_bundle: Any) -> None:
    served = serve(make_bundle())
    assert complaint(raw(served, DARK, "image/png"))[0] == 415
    assert complaint(form(served, ("file", DARK)))[0] == 415


@pytest.mark.parametrize(
    ("content_type", "body", "status", "said"),
    [
        ("multipart/form-data", b"x", 400, "has no boundary"),
        ("multipart/form-data; boundary=a", b"no boundary here", 400, "do not follow the boundary"),
        (
            "multipart/form-data; boundary=a",
            b'--a\r\nContent-Disposition: form-data; name="file"\r\n\r\nx',
            400,
            "the last boundary is missing",
        ),
        ("multipart/form-data; boundary=" + "a" * 999, b"x", 400, "do not follow"),
        ("multipart/form-data; boundary=a", b"--a--\r\n", 422, "at least one part"),
    ],
)
def test_a_broken_form_is_refused(start: Any, content_type: str, body: bytes, status: int, said: str) -> None:
    got = complaint(raw(start(), body, content_type))
    assert got[0] == status
    assert said in got[2]


def test_empty_parts_and_unknown_ones_are_named(start: Any) -> None:
    served = start()
    assert complaint(form(served, ("file", DARK), ("file", b""))) == (422, "file[1]", "is empty; expected a file")
    assert complaint(raw(served, b"", "image/png")) == (422, "(body)", "is empty; expected a file")
    status, field, said = complaint(form(served, ("picture", DARK)))
    assert (status, field) == (422, "picture")
    assert said == "unknown part; accepted, once for each file: image, file"


@pytest.mark.parametrize("value", ["no base64", "YQ", "ä", "", None, 3])
def test_what_is_no_base64_is_named(start: Any, value: Any) -> None:
    status, field, said = complaint(start().predict({"image": value}))
    assert (status, field) == (422, "instances[0].image")
    assert "expected a file" in said


def test_limits_of_rows_and_bytes_hold(start: Any) -> None:
    served = start(max_instances=2, max_body_bytes=2048)
    assert form(served, *[("file", DARK)] * 3).status_code == 413
    assert raw(served, b"x" * 4096, "image/png").status_code == 413


def test_reasons_name_places_of_the_image(start: Any) -> None:
    answer = start().predict({"image": encoded(DARK)}, explain=3).json()
    places = [reason["feature"] for reason in answer["predictions"][0]["reasons"]]
    assert len(set(places)) == 3
    assert all(place.startswith("image[") and "% from the left]" in place for place in places)


def test_requests_share_a_call_and_the_stages_are_measured(start: Any) -> None:
    served = start()
    labels(form(served, ("file", DARK), ("file", BRIGHT)))
    assert served.metric("fairlead_predictions_total", label="bright", model="shades", version="3") == 1.0
    for stage in ("decode", "infer", "encode"):
        assert served.metric("fairlead_stage_duration_seconds_count", model="shades", stage=stage) >= 1.0


def test_too_many_that_wait_to_be_decoded_are_told_so(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    served = start(max_concurrency=1)
    engine, entered, release = served.engine, threading.Event(), threading.Event()
    original = engine.decode

    def slow(*given: Any) -> Any:
        entered.set()
        release.wait(5)
        return original(*given)

    monkeypatch.setattr(engine, "decode", slow)
    answers: list[Any] = []
    first = threading.Thread(target=lambda: answers.append(raw(served, DARK, "image/png")))
    first.start()
    assert entered.wait(5)
    refused = raw(served, DARK, "image/png")
    release.set()
    first.join()
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert labels(answers[0]) == ["dark"]


def test_pixels_are_never_logged(start: Any, tmp_path: Path) -> None:
    size, light = ["width", "height"], ["brightness", "contrast", "sharpness"]
    for policy, more in (("drop", []), ("hash", ["hash"]), ("truncate", [])):
        folder = tmp_path / policy
        served = start(predictions={"folder": str(folder), "text": policy})
        labels(raw(served, BRIGHT, "image/png"))
        served.runtime.log.close()
        [line] = next(folder.rglob("*.jsonl")).read_text().splitlines()
        logged = json.loads(line)["inputs"]["image"]
        assert list(logged) == [*size, *more, *light]
        assert [logged[name] for name in size] == [8, 8]
        assert all(isinstance(logged[name], float) for name in light)


def test_the_document_names_every_form_and_its_example_is_accepted(start: Any) -> None:
    served = start()
    document = served.client.get("/openapi.json").json()
    content = document["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert set(content) == {"application/json", "multipart/form-data", "application/octet-stream", "image/*"}
    schema = content["application/json"]["schema"] | {"components": document["components"]}
    jsonschema.validate(schema["example"], schema)
    assert labels(served.client.post("/predict", json=schema["example"])) == ["dark"]
