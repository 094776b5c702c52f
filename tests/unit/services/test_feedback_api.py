"""Labels and annotations that are posted to an endpoint."""

from __future__ import annotations

import asyncio
import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from contracts import storage
from contracts.metric_names import FEEDBACK, LOG_LOST, LOG_RECORDS
from contracts.problems import get_problem, read_output
from services.feedback import layout, writing
from services.feedback.reading import labels, logged_annotations
from services.model.prediction_log import new_id
from services.problems import get_serving
from tests.problem_bundles import vectors
from tests.s3_folder import FolderClient

GOOD = {"amount": 500, "country": "AT"}


def post(served: Any, *given: Any) -> Any:
    return served.client.post("/feedback", json={"labels": list(given)})


@pytest.fixture
def served(serve: Any, make_bundle: Any, tmp_path: Path) -> Any:
    return serve(make_bundle(), predictions={"folder": str(tmp_path / "log")})


def kept(tmp_path: Path) -> list[Any]:
    return [(one.id, one.label, one.version) for one in labels(str(tmp_path / "log"), "payments")]


def outcomes(served: Any) -> dict[str, float]:
    names = ("accepted", "refused", "failed")
    return {name: served.metric(FEEDBACK, model="payments", outcome=name) for name in names}


def test_labels_are_kept_beside_the_log(served: Any, tmp_path: Path) -> None:
    identifier = served.predict(GOOD).json()["predictions"][0]["id"]
    before = datetime.now(UTC)
    answer = post(served, {"id": identifier, "label": "fraud"}, {"id": new_id(), "label": "genuine", "time": None})
    assert (answer.status_code, answer.json()) == (200, {"model": "payments", "version": "3", "accepted": 2})
    first, second = labels(str(tmp_path / "log"), "payments")
    assert (first.id, first.label, first.version, second.label) == (identifier, "fraud", "3", "genuine")
    assert before <= first.time == second.time <= datetime.now(UTC)
    given = post(served, {"id": identifier, "label": "fraud", "time": "2026-03-01T10:00:00+02:00"})
    assert given.status_code == 200
    assert list(labels(str(tmp_path / "log"), "payments"))[-1].time == datetime(2026, 3, 1, 8, tzinfo=UTC)
    assert outcomes(served) == {"accepted": 3, "refused": 0, "failed": 0}


AN_ID = "0" * 32
AHEAD = (datetime.now(UTC) + timedelta(days=1)).isoformat()


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"id": AN_ID, "label": "frauds"}, "labels[1].label"),
        ({"id": AN_ID, "label": 1}, "labels[1].label"),
        ({"id": AN_ID, "label": None}, "labels[1].label"),
        ({"id": "x", "label": "fraud"}, "labels[1].id"),
        ({"id": "f" * 32, "label": "fraud"}, "labels[1].id"),
        ({"id": 7, "label": "fraud"}, "labels[1].id"),
        ({"id": AN_ID, "label": "fraud", "time": "2026-03-01T10:00:00"}, "labels[1].time"),
        ({"id": AN_ID, "label": "fraud", "time": "yesterday"}, "labels[1].time"),
        ({"id": AN_ID, "label": "fraud", "time": 12}, "labels[1].time"),
        ({"id": AN_ID, "label": "fraud", "time": AHEAD}, "labels[1].time"),
        ({"id": AN_ID, "label": "fraud", "more": 1}, "labels[1]"),
        ({"id": AN_ID}, "labels[1]"),
        ("fraud", "labels[1]"),
    ],
)
def test_one_wrong_label_refuses_all_and_is_named(served: Any, tmp_path: Path, wrong: Any, field: str) -> None:
    answer = post(served, {"id": AN_ID, "label": "fraud"}, wrong)
    assert answer.status_code == 422
    assert [one["field"] for one in answer.json()["errors"]] == [field]
    assert kept(tmp_path) == []
    assert outcomes(served) == {"accepted": 0, "refused": 2, "failed": 0}


REFUSED_BODIES = [
    [], {}, {"labels": []}, {"labels": {}}, {"labels": [], "x": 1}, {"label": []}, {"annotations": {}},
    {"annotations": []}, {"labels": [], "annotations": [{"id": AN_ID, "annotation": "x"}]},
]  # fmt: skip


@pytest.mark.parametrize("body", REFUSED_BODIES)
def test_another_document_is_refused(served: Any, body: Any) -> None:
    assert served.client.post("/feedback", json=body).status_code == 422


def test_more_labels_than_rows_of_a_request_are_refused(serve: Any, make_bundle: Any, tmp_path: Path) -> None:
    served = serve(make_bundle(), predictions={"folder": str(tmp_path / "log")}, max_instances=1)
    one = {"id": AN_ID, "label": "fraud"}
    assert post(served, one).status_code == 200
    assert post(served, one, one).status_code == 422


def test_without_a_log_it_is_off_and_says_how_to_have_it(serve: Any, make_bundle: Any) -> None:
    answer = post(serve(make_bundle()), {"id": AN_ID, "label": "fraud"})
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:fairlead:problem:no-prediction-log")
    assert "predictions.folder" in answer.json()["fix"]


def test_a_disk_that_takes_nothing_is_said_and_predictions_go_on(served: Any, tmp_path: Path) -> None:
    (tmp_path / "log" / "payments").mkdir(parents=True)
    (tmp_path / "log" / "payments" / "labels").write_text("a file, where the folder should be")
    answer = post(served, {"id": AN_ID, "label": "fraud"})
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:fairlead:problem:labels-not-written")
    assert "send them again" in answer.json()["fix"]
    assert outcomes(served) == {"accepted": 0, "refused": 0, "failed": 1}
    assert served.predict(GOOD).status_code == 200


def test_a_full_disk_is_said_and_predictions_go_on(served: Any, tmp_path: Path) -> None:
    for kind in ("predictions", "labels"):
        home = layout.home(str(tmp_path / "log"), "payments", kind)
        Path(home).mkdir(parents=True, exist_ok=True)
        layout.own_file(home).symlink_to("/dev/full")
    answer = post(served, {"id": AN_ID, "label": "fraud"})
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:fairlead:problem:labels-not-written")
    assert "No space left on device" in answer.json()["detail"]
    assert served.predict(GOOD).status_code == 200
    served.runtime.log.close()
    assert served.metric(LOG_LOST, model="payments") == 1
    assert served.metric(LOG_RECORDS, model="payments") == 0


def test_an_api_key_is_wanted_as_for_predictions(serve: Any, make_bundle: Any, tmp_path: Path) -> None:
    from services.server.auth import make_key

    key, line = make_key("client")
    (tmp_path / "keys").write_text(line + "\n")
    settings = {"keys_file": str(tmp_path / "keys"), "predictions": {"folder": str(tmp_path / "log")}}
    served = serve(make_bundle(), **settings)
    body = {"labels": [{"id": AN_ID, "label": "fraud"}]}
    assert served.client.post("/feedback", json=body).status_code == 401
    headers = {"authorization": f"Bearer {key}"}
    assert served.client.post("/feedback", json=body, headers=headers).status_code == 200


def test_in_s3_a_request_is_an_object(serve: Any, make_bundle: Any, tmp_path: Path, monkeypatch: Any) -> None:
    client = FolderClient(tmp_path / "s3")
    (tmp_path / "s3" / "lake").mkdir(parents=True)
    monkeypatch.setattr(storage, "_client", lambda: client)
    served = serve(make_bundle(), predictions={"folder": "s3://lake/log"})
    assert post(served, {"id": AN_ID, "label": "fraud"}).status_code == 200
    assert [one.id for one in labels("s3://lake/log", "payments")] == [AN_ID]
    client.fails = True
    assert post(served, {"id": AN_ID, "label": "fraud"}).status_code == 503


def test_the_loop_goes_on_while_a_label_is_written(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    written, seen = threading.Event(), list[str]()

    def slow(*_: Any) -> None:
        seen.append(threading.current_thread().name)
        written.wait(5)

    monkeypatch.setattr("services.feedback.api.write_labels", slow)
    asking = threading.Thread(target=post, args=(served, {"id": AN_ID, "label": "fraud"}))
    asking.start()
    while not seen:
        pass
    assert served.predict(GOOD).status_code == 200
    written.set()
    asking.join()


def test_requests_at_once_write_whole_lines(tmp_path: Path) -> None:
    from services.feedback.records import Label

    given = [Label(id=new_id(), label="x" * 2000, time=datetime.now(UTC)) for _ in range(40)]

    async def all_at_once() -> None:
        tasks = [asyncio.to_thread(writing.write_labels, str(tmp_path), "m", [one]) for one in given]
        await asyncio.gather(*tasks)

    asyncio.run(all_at_once())
    assert {one.id for one in labels(str(tmp_path), "m")} == {one.id for one in given}


@pytest.mark.parametrize(
    ("output", "good", "bad", "texts"),
    [
        ({"problem": "regression"}, [1, 2.5, -3], ["1", True, None, [1]], {"2.5": 2.5, "x": None, "nan": None}),
        (
            {"problem": "multilabel", "labels": ["a", "b"]},
            [[], ["b", "a"]],
            ["a", ["c"], None, [1]],
            {"": [], "b | a": ["a", "b"], "c": None},
        ),
    ],
)
def test_labels_are_asked_of_the_problem(output: Any, good: list[Any], bad: list[Any], texts: dict[str, Any]) -> None:
    output = read_output(output)
    serving = get_serving(get_problem(output.problem))
    schema = serving.label_schema(output)
    assert schema is not None
    for value in good:
        jsonschema.validate(serving.label(output, value), schema)
    for value in bad:
        with pytest.raises(ValueError, match="expected"):
            serving.label(output, value)
    for text, value in texts.items():
        if value is None:
            with pytest.raises(ValueError, match="expected"):
                serving.label_of_text(output, text)
        else:
            assert serving.label_of_text(output, text) == value


def test_embeddings_take_no_labels(serve_bundle: Any, tmp_path: Path) -> None:
    served = serve_bundle(vectors(tmp_path), predictions={"folder": str(tmp_path / "log")})
    refused = post(served, {"id": AN_ID, "label": 1}).json()
    assert refused["type"] == "urn:fairlead:problem:no-labels"
    assert "annotations" in refused["fix"]
    operation = served.client.get("/openapi.json").json()["paths"]["/feedback"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert list(schema["properties"]) == ["annotations"]
    said = served.client.post("/feedback", json={"annotations": [{"id": AN_ID, "annotation": "too near to all"}]})
    assert (said.status_code, said.json()["accepted"], said.json()["annotations"]) == (200, 0, 1)


REMARK = {
    "text": "card was stolen", "tags": ["reviewed"], "answer": "genuine", "mine": {"deep": [1, None]},
    "spans": [{"start": 0, "end": 4, "label": "CARD"}],
}  # fmt: skip


def test_what_people_say_is_kept_beside_the_labels(served: Any, tmp_path: Path) -> None:
    identifier = served.predict(GOOD).json()["predictions"][0]["id"]
    said = {"id": identifier, "annotation": REMARK, "time": "2026-03-01T10:00:00+02:00"}
    body = {"labels": [{"id": identifier, "label": "fraud"}], "annotations": [said, {**said, "annotation": "words"}]}
    answer = served.client.post("/feedback", json=body)
    assert (answer.status_code, answer.json()["accepted"], answer.json()["annotations"]) == (200, 1, 2)
    assert [one[1] for one in kept(tmp_path)] == ["fraud"]
    first, second = logged_annotations(str(tmp_path / "log"), "payments")
    assert (first.id, first.annotation, first.version, second.annotation) == (identifier, REMARK, "3", "words")
    assert first.time == datetime(2026, 3, 1, 8, tzinfo=UTC)
    assert outcomes(served) == {"accepted": 3, "refused": 0, "failed": 0}
    assert served.client.post("/feedback", json=body).status_code == 200
    assert len({(one.id, one.key) for one in logged_annotations(str(tmp_path / "log"), "payments")}) == 2, (
        "sent again, the same"
    )
    operation = served.client.get("/openapi.json").json()["paths"]["/feedback"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    jsonschema.validate(body, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"annotations": [{**said, "annotation": {"tags": "reviewed"}}]}, schema)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"id": AN_ID}, "annotations[1]"),
        ("words", "annotations[1]"),
        ({"id": AN_ID, "annotation": "x", "label": "fraud"}, "annotations[1]"),
        ({"id": "x", "annotation": "x"}, "annotations[1].id"),
        ({"id": f"chat-{AN_ID}", "annotation": "x"}, "annotations[1].id"),
        ({"id": AN_ID, "annotation": "x", "time": AHEAD}, "annotations[1].time"),
        ({"id": AN_ID, "annotation": ""}, "annotations[1].annotation"),
        ({"id": AN_ID, "annotation": None}, "annotations[1].annotation"),
        ({"id": AN_ID, "annotation": {"text": 1}}, "annotations[1].annotation"),
        ({"id": AN_ID, "annotation": {"tags": ["a", 1]}}, "annotations[1].annotation"),
        ({"id": AN_ID, "annotation": {"spans": [{"start": 3, "end": 3}]}}, "annotations[1].annotation"),
        ({"id": AN_ID, "annotation": {"spans": [{"start": True, "end": 3}]}}, "annotations[1].annotation"),
        ({"id": AN_ID, "annotation": {"a": {"$set": 1}}}, "annotations[1].annotation"),
        ({"id": AN_ID, "annotation": 2**63}, "annotations[1].annotation"),
        ({"id": AN_ID, "annotation": "x" * (1 << 20)}, "annotations[1].annotation"),
    ],
)
def test_one_wrong_annotation_refuses_all_and_is_named(served: Any, tmp_path: Path, wrong: Any, field: str) -> None:
    good = {"id": f"chatcmpl-{AN_ID}", "annotation": {"text": "fine"}}
    body = {"labels": [{"id": AN_ID, "label": "fraud"}], "annotations": [good, wrong]}
    answer = served.client.post("/feedback", json=body)
    assert answer.status_code == 422
    assert [one["field"] for one in answer.json()["errors"]] == [field]
    assert kept(tmp_path) == list(logged_annotations(str(tmp_path / "log"), "payments")) == []
    assert outcomes(served) == {"accepted": 0, "refused": 3, "failed": 0}
    assert served.client.post("/feedback", json={"annotations": [good]}).status_code == 200
    assert [one.id for one in logged_annotations(str(tmp_path / "log"), "payments")] == [AN_ID]


def test_annotations_that_cannot_be_written_are_said(served: Any, tmp_path: Path) -> None:
    (tmp_path / "log" / "payments").mkdir(parents=True)
    (tmp_path / "log" / "payments" / "annotations").write_text("a file, where the folder should be")
    body = {"labels": [{"id": AN_ID, "label": "fraud"}], "annotations": [{"id": AN_ID, "annotation": "x"}]}
    answer = served.client.post("/feedback", json=body)
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:fairlead:problem:annotations-not-written")
    assert kept(tmp_path) == []
    assert outcomes(served) == {"accepted": 0, "refused": 0, "failed": 2}


def test_the_document_describes_what_is_accepted(served: Any) -> None:
    operation = served.client.get("/openapi.json").json()["paths"]["/feedback"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    good = {"labels": [{"id": AN_ID, "label": "fraud", "time": "2026-03-01T10:00:00Z"}]}
    jsonschema.validate(good, schema)
    for change in ({"label": "frauds"}, {"id": "x"}, {"time": 1}, {"more": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"labels": [good["labels"][0] | change]}, schema)
    answer = operation["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.validate(json.loads(served.client.post("/feedback", json=good).text), answer)
