"""A detector through the whole service: JSON, tensors, counts, the log, labels and what monitors see."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from contracts import metric_names as names
from contracts.problems import get_problem, read_output
from services.problems import get_serving
from services.problems.detection import NOTHING, SERVING
from services.server.golden import check
from tests.detection_bundle import OUTPUT, spots
from tests.image_bundle import encoded, picture

BRIGHT, DARK = {"image": encoded(picture(255, size=16))}, {"image": encoded(picture(20, size=16))}
SPOT = {"label": "spot", "score": 1.0, "box": [4.0, 4.0, 12.0, 12.0]}
SAID: Any = read_output(OUTPUT)


def test_objects_are_answered_as_the_document_says(
    serve_bundle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = serve_bundle(spots(tmp_path))
    answer = served.predict(BRIGHT, DARK).json()
    assert [one["objects"] for one in answer["predictions"]] == [[SPOT], []]
    document = served.client.get("/openapi.json").json()
    post = document["paths"]["/predict"]["post"]
    schema = post["responses"]["200"]["content"]["application/json"]["schema"] | {"components": document["components"]}
    jsonschema.validate(answer, schema)
    answer["predictions"][0]["objects"][0]["label"] = "cup"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(answer, schema)
    monkeypatch.setattr("services.server.golden._ask", served.ask)
    assert check(spots(tmp_path), "") == 2


def test_an_image_may_be_the_body_or_a_part_of_a_form(serve_bundle: Any, tmp_path: Path) -> None:
    client, file = serve_bundle(spots(tmp_path)).client, picture(255, size=16)
    whole = client.post("/predict", content=file, headers={"content-type": "image/png"}).json()
    form = client.post("/predict", files=[("file", ("a.png", file)), ("file", ("b.png", picture(20)))]).json()
    assert whole["predictions"][0]["objects"] == [SPOT]
    assert [len(one["objects"]) for one in form["predictions"]] == [1, 0]
    refused = client.post("/predict", content=b"no image", headers={"content-type": "image/png"})
    assert refused.status_code == 422


def test_tensors_are_filled_to_the_most_objects(serve_bundle: Any, tmp_path: Path) -> None:
    client = serve_bundle(spots(tmp_path)).client
    said = {one["name"]: one["shape"] for one in client.get("/v2/models/spots").json()["outputs"]}
    assert (said["boxes"], said["scores"], said["labels"]) == ([-1, 4, 4], [-1, 4], [-1, 4])
    tensor = {"name": "image", "datatype": "BYTES", "shape": [2], "data": [BRIGHT["image"], DARK["image"]]}
    outputs = client.post("/v2/models/spots/infer", json={"inputs": [tensor]}).json()["outputs"]
    found = {one["name"]: one for one in outputs}
    assert found["count"]["data"] == [1, 0]
    assert found["boxes"]["shape"] == [2, 4, 4]
    assert found["boxes"]["data"][:4] == SPOT["box"]
    assert found["labels"]["data"] == ["spot", *[""] * 7]


def test_objects_are_counted_logged_and_watched(serve_bundle: Any, tmp_path: Path) -> None:
    served = serve_bundle(spots(tmp_path), predictions={"folder": str(tmp_path / "log")})
    served.predict(BRIGHT, BRIGHT, DARK)
    served.runtime.log.close()
    counts = {label: count.value for label, count in served.runtime.metrics.labels.items()}
    assert counts == {"light": 0, "spot": 2, NOTHING: 1}
    both = {"model": "spots", "version": "3"}
    assert (served.metric(f"{names.OBJECTS}_count", **both), served.metric(f"{names.OBJECTS}_sum", **both)) == (3, 2)
    lines = [line for file in (tmp_path / "log").rglob("*.jsonl") for line in file.read_text().splitlines()]
    log = [json.loads(line) for line in lines]
    assert log[0]["found"] == [SPOT]
    assert log[0]["inputs"]["image"]["brightness"] == 255
    assert [log[0]["inputs"]["image"][name] for name in ("width", "height")] == [16, 16], "of the file"
    assert SERVING.watched(log[0]) == {"answer": 1, "score": 1.0, "side": 8.0, "class": "spot"}
    assert SERVING.watched(log[2]) == {"answer": 0, "score": None, "side": None, "class": ""}


def test_labels_are_objects_and_say_whether_an_answer_was_right() -> None:
    serving = get_serving(get_problem("detection"))
    told = serving.label(SAID, [{"label": "spot", "box": [4, 4, 12, 12]}])
    jsonschema.validate(told, serving.label_schema(SAID))
    assert serving.label_of_text(SAID, '[{"label": "spot", "box": [4, 4, 12, 12]}]') == told
    records: list[Any] = [{"found": [SPOT]}, {"found": [SPOT]}, {"found": []}]
    labels: list[Any] = [told, [], told]
    assert [serving.is_right(one, label, {}) for one, label in zip(records, labels, strict=True)] == [
        True,
        False,
        False,
    ]
    measure = serving.measure(SAID, None, records, labels)
    assert measure is not None
    assert measure(None) == {"precision": 0.5, "recall": 0.5, "f1": 0.5, "false_alarms": pytest.approx(1 / 3)}
    assert measure([0.0, 0.0, 1.0]) == {"false_alarms": 0.0, "f1": 0.0, "recall": 0.0}
    for wrong in ([{"label": "dog", "box": [0, 0, 1, 1]}], [{"label": "spot", "box": [1, 1, 0, 0]}], "spot", [[]] * 41):
        with pytest.raises(ValueError, match=r"object|class"):
            serving.label(SAID, wrong)
