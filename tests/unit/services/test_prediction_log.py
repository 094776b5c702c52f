"""What is kept of a prediction, and what is not."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from contracts import storage
from contracts.bundle import Input
from contracts.content import Describe, Traits
from contracts.errors import PlatformError
from contracts.metric_names import LOG_LOST, LOG_RECORDS
from contracts.problems import get_problem
from services.feedback.hashing import hashed
from services.feedback.line_file import append
from services.feedback.records import Prediction
from services.metrics.service_metrics import ServiceMetrics
from services.model import distances, prediction_log
from services.model.prediction_log import PredictionLog, new_id
from services.model.request_schema import Batch
from services.problems import get_serving
from services.settings import PredictionLogSettings

GOOD = {"amount": 500, "country": "AT"}


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in sorted(folder.rglob("*.jsonl")) for line in file.read_text().splitlines()]


def logged(serve: Any, bundle: Any, tmp_path: Path, *instances: Any, **settings: Any) -> tuple[Any, list[Any]]:
    folder = tmp_path / "predictions"
    served = serve(bundle, predictions={"folder": str(folder), **settings})
    answer = served.predict(*instances).json()
    served.runtime.log.close()
    return answer, records(folder)


def test_a_record_has_the_id_of_the_answer(serve: Any, make_bundle: Any, tmp_path: Path) -> None:
    answer, found = logged(serve, make_bundle(), tmp_path, GOOD, {"amount": None, "country": "DE"})
    assert [one["id"] for one in found] == [one["id"] for one in answer["predictions"]]
    first, second = found
    assert (first["model"], first["version"], first["label"], first["score"]) == ("payments", "3", "fraud", 0.5)
    assert first["probabilities"] == [0.5, 0.5]
    assert first["inputs"] == {"amount": 500.0, "country": "AT"}
    assert first["schema"] == 2
    assert 0 < first["latency_ms"] < 60_000
    assert second["inputs"]["amount"] is None
    assert second["flags"] == ["missing:amount"]
    assert datetime.fromisoformat(first["time"]).tzinfo is not None


def test_there_is_one_file_per_model_process_and_day(serve: Any, make_bundle: Any, tmp_path: Path) -> None:
    logged(serve, make_bundle(), tmp_path, GOOD)
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    (name,) = [file.name for file in (tmp_path / "predictions" / "payments").iterdir()]
    assert name == f"{day}.{socket.gethostname()}-{os.getpid()}.jsonl"


@pytest.mark.parametrize(
    ("setting", "kept"),
    [("drop", {"chars": 9, "script": "latin"}), ("truncate", "secr"), ("hash", None)],
)
def test_text_is_redacted(serve: Any, make_text_bundle: Any, tmp_path: Path, setting: str, kept: Any) -> None:
    instance = {"title": "secret-42", "content": ""}
    _, found = logged(serve, make_text_bundle(), tmp_path, instance, text=setting, text_chars=4)
    title = found[0]["inputs"]["title"]
    if kept is None:
        assert len(title["hash"]) == 32
    else:
        assert title == kept
    assert "secret-42" not in json.dumps(found)


def test_an_unknown_category_counts_as_text(serve: Any, make_bundle: Any, tmp_path: Path) -> None:
    _, found = logged(serve, make_bundle(), tmp_path, {"amount": 1, "country": "Jane Doe"})
    assert found[0]["inputs"]["country"] == {"chars": 8}


def of_content(
    folder: Path, make_bundle: Any, vector: Any = None, center: Any = None, **settings: Any
) -> tuple[PredictionLog, Any]:
    """A log of a model of texts and images, and what adds one prediction to it."""
    inputs = [Input(name="note", dtype="string"), Input(name="photo", dtype="bytes")]
    signature = make_bundle().document.signature.model_copy(update={"inputs": inputs})
    about, normal = {"model": "m", "version": "1"}, {"inputs": {"note": {"kind": "text", "grams": ["the", "he "]}}}
    for name, one in (center or {}).items():
        normal["inputs"].setdefault(name, {})["center"] = one
    told = PredictionLogSettings(folder=str(folder), **settings)
    log = PredictionLog(told, signature, about, ServiceMetrics("m", "1"), normal, 7, vector)
    columns = {"note": np.array(["the secret"], object), "photo": np.full((1, 8, 8, 3), 9, np.uint8)}
    batch = Batch(schema="by_features", rows=1, columns=columns, flags=[[]], prepared=[[1, 7, 7, 4]])
    scored: Any = SimpleNamespace(ood=[], answers=np.array([[0.5, 0.5]]), decided=[("fraud", 0.5)], inputs=columns)
    return log, lambda: log.add(new_id(), 0, batch, scored, 1.0)


def test_of_texts_and_files_their_traits_are_kept_and_no_content(tmp_path: Path, make_bundle: Any) -> None:
    log, add = of_content(tmp_path / "log", make_bundle)
    add()
    log.close()
    (found,) = records(tmp_path / "log")
    assert found["inputs"] == {
        "note": {"chars": 10, "script": "latin", "familiar": 0.5, "unknown": 0.5},
        "photo": {"brightness": 9.0, "contrast": 0.0, "sharpness": 0.0},
    }


@pytest.mark.parametrize(("name", "row"), [("note", [1, 7, 7, 4]), ("photo", np.full((8, 8, 3), 9).tolist())])
def test_the_writer_measures_how_far_few_rows_are_from_usual_ones(
    tmp_path: Path, make_bundle: Any, monkeypatch: pytest.MonkeyPatch, name: str, row: Any
) -> None:
    clock, asked = [100.0], list[Any]()
    monkeypatch.setattr(distances, "monotonic", lambda: clock[0])

    def vector(given: Any) -> Any:
        asked.append((threading.current_thread().name, np.asarray(given).tolist()))
        return np.array([3.0, 4.0])

    log, add = of_content(tmp_path / "log", make_bundle, vector, {name: [1.0, 0.0]})
    for _ in range(50):
        add()
    log.close()
    assert asked == [("prediction-log", row)]
    of_rows = [one["inputs"][name].get("distance") for one in records(tmp_path / "log")]
    assert of_rows == [0.4] + [None] * 49
    assert all("distance" not in one["inputs"][name] for one in records(tmp_path / "log")[1:]), "and no null"


def test_a_model_whose_vector_fails_is_logged_without_and_says_so_once(
    tmp_path: Path, make_bundle: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distances, "_SECONDS", 0.0)

    def vector(given: Any) -> Any:
        raise RuntimeError("no memory")

    log, add = of_content(tmp_path / "log", make_bundle, vector, {"note": [1.0, 0.0]})
    with caplog.at_level(logging.WARNING):
        add()
        add()
        log.close()
        add()
    assert [one["inputs"]["note"]["unknown"] for one in records(tmp_path / "log")] == [0.5, 0.5]
    assert [one.getMessage() for one in caplog.records] == ["distance_failed"]


def test_of_a_file_its_hash_is_kept_where_that_is_asked_for(tmp_path: Path, make_bundle: Any) -> None:
    log, add = of_content(tmp_path / "log", make_bundle, text="hash", salt="pepper")
    add()
    add()
    log.close()
    first, second = (one["inputs"]["photo"] for one in records(tmp_path / "log"))
    assert first["hash"] == hashed(b"pepper", bytes([9]) * 8 * 8 * 3) == second["hash"]
    assert first["brightness"] == 9.0


def test_texts_and_images_are_described_by_the_writer_not_by_the_request(
    tmp_path: Path, make_bundle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def noting(describe: Describe, value: Any) -> Traits:
        asked.append(threading.current_thread().name)
        return describe(value)

    log, add = of_content(tmp_path / "log", make_bundle)
    for name, describe in log._traits.items():
        monkeypatch.setitem(log._traits, name, partial(noting, describe))
    add()
    log.close()
    assert asked == ["prediction-log"] * 2
    assert len(records(tmp_path / "log")) == 1


def test_what_waits_to_be_described_is_bounded_and_what_is_lost_counted(
    tmp_path: Path, make_bundle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, add = of_content(tmp_path / "log", make_bundle)
    log.close()  # its thread has ended: nothing is described
    monkeypatch.setattr(prediction_log, "_WAITING_BYTES", 500)
    for _ in range(5):
        add()
    (size,) = {one.size for one in log._lines}  # type: ignore[union-attr]
    assert 192 < size < 500
    assert (len(log._lines), log._lost.value) == (-(-500 // size), 5 + 500 // -size)
    for one in log._lines:
        log._finished(one)  # type: ignore[arg-type]
    add()
    assert (len(log._lines), log._lost.value) == (-(-500 // size) + 1, 5 + 500 // -size)


def test_of_a_vector_its_cosine_with_the_usual_one_is_kept() -> None:
    serving = get_serving(get_problem("embedding"))
    answers = np.array([[3.0, 0.0], [0.0, 2.0]])
    record = serving.recorder({"center": [1.0, 1.0]})
    assert record(answers, [None, None], 0) == {"cosine": pytest.approx(0.5**0.5)}
    assert serving.recorder({})(answers, [None, None], 0) == {}, "older bundles have no centre"
    assert (serving.watched({"cosine": 0.5}), serving.watched({})) == ({"answer": 0.5}, {})


def test_the_moment_of_features_is_kept_with_the_keys(make_bundle: Any, tmp_path: Path) -> None:
    signature = make_bundle().document.signature.model_copy(update={"entities": ["card"], "timestamp": "at"})
    settings = PredictionLogSettings(folder=str(tmp_path / "log"))
    log = PredictionLog(settings, signature, {"model": "m", "version": "1"}, ServiceMetrics("m", "1"))
    columns = {"card": np.array(["7"], object), "at": np.array(["2026-01-31T12:00:00.5"], "M8[us]")}
    batch = Batch(schema="by_entity", rows=1, columns=columns, flags=[[]])
    scored: Any = SimpleNamespace(
        ood=[], answers=np.array([[0.5, 0.5]]), decided=[("fraud", 0.5)], inputs={"amount": np.array([1.0])}
    )
    log.add(new_id(), 0, batch, scored, 1.0)
    log.close()
    (found,) = records(tmp_path / "log")
    one = Prediction.of(found)
    assert (one.moment, set(one.entities)) == (datetime(2026, 1, 31, 12, 0, 0, 500_000, UTC), {"card"})
    assert Prediction.of(one.document()) == one


def test_nothing_is_logged_without_a_folder(serve: Any, make_bundle: Any) -> None:
    served = serve(make_bundle())
    assert served.runtime.log is None
    assert served.predict(GOOD).json()["predictions"][0]["id"]


@pytest.mark.parametrize(("sample", "low", "high"), [(0.0, 0, 0), (1.0, 4000, 4000), (0.25, 800, 1200)])
def test_the_share_is_decided_by_the_id(make_bundle: Any, tmp_path: Path, sample: float, low: int, high: int) -> None:
    settings = PredictionLogSettings(folder=str(tmp_path), sample=sample)
    log = PredictionLog(settings, make_bundle().document.signature, {"model": "m"}, ServiceMetrics("m", "1"))
    ids = [new_id() for _ in range(4000)]
    assert low <= sum(map(log.sampled, ids)) <= high
    assert [log.sampled(one) for one in ids[:50]] == [log.sampled(one) for one in ids[:50]]
    log.close()


def test_ids_are_unique_and_sort_by_time() -> None:
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert [one[:12] for one in ids] == sorted(one[:12] for one in ids)


def test_a_folder_that_cannot_be_written_costs_records_not_requests(
    serve: Any, make_bundle: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "predictions").write_text("a file, where the folder should be")
    served = serve(make_bundle(), predictions={"folder": str(tmp_path / "predictions")})
    with caplog.at_level(logging.ERROR):
        assert served.predict(GOOD).status_code == 200
        served.runtime.log.close()
    assert caplog.records[-1].getMessage() == "prediction_log_failed"
    assert vars(caplog.records[-1])["fields"]["lost"] == 1


def test_a_line_that_a_full_disk_cuts_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "m" / "a.jsonl"
    append(file, b'{"id": 1}\n')

    class Short:
        def __init__(self, stream: Any) -> None:
            self.stream = stream

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: Any) -> None:
            self.stream.close()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.stream, name)

        def write(self, data: bytes) -> int:
            return int(self.stream.write(data[:5]))

    opened = Path.open
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda self, *args, **named: Short(opened(self, *args, **named)))
        with pytest.raises(OSError, match="disk full"):
            append(file, b'{"id": 2}\n')
    assert file.read_bytes() == b'{"id": 1}\n'


def test_what_a_process_left_half_is_ended_before_more_is_written(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"id": 1}\n{"id": ')
    append(file, b'{"id": 3}\n')
    assert file.read_bytes() == b'{"id": 1}\n{"id": \n{"id": 3}\n'


def test_records_and_losses_are_counted(serve: Any, make_bundle: Any, tmp_path: Path) -> None:
    served = serve(make_bundle(), predictions={"folder": str(tmp_path / "good")})
    served.predict(GOOD, GOOD)
    served.runtime.log.close()
    assert served.metric(LOG_RECORDS, model="payments") == 2
    assert served.metric(LOG_LOST, model="payments") == 0
    (tmp_path / "bad").write_text("a file, where the folder should be")
    served = serve(make_bundle(), predictions={"folder": str(tmp_path / "bad")})
    served.predict(GOOD, GOOD)
    served.runtime.log.close()
    assert served.metric(LOG_RECORDS, model="payments") == 0
    assert served.metric(LOG_LOST, model="payments") == 2


class Bucket:
    """An S3 that takes objects, or is down."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.objects: dict[str, bytes] = {}
        self.down = False
        monkeypatch.setattr(storage, "exists", lambda uri: True)
        monkeypatch.setattr(storage, "write_bytes", self.write)

    def write(self, uri: str, data: bytes) -> None:
        if self.down:
            raise PlatformError("the storage did not serve it", fix="check the network")
        self.objects[uri] = data


@pytest.fixture
def in_s3(make_bundle: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Bucket, PredictionLog]]:
    bucket = Bucket(monkeypatch)
    settings = PredictionLogSettings(folder="s3://lake/predictions", upload_seconds=3600)
    metrics = ServiceMetrics("payments", "1")
    log = PredictionLog(settings, make_bundle().document.signature, {"model": "payments"}, metrics)
    yield bucket, log
    log.close()


def test_in_s3_what_has_gathered_becomes_one_object_below_model_and_day(
    in_s3: tuple[Bucket, PredictionLog],
) -> None:
    bucket, log = in_s3
    log._lines += [b'{"id": 1}\n', b'{"id": 2}\n']
    log.close()
    ((uri, data),) = bucket.objects.items()
    assert uri.startswith(f"s3://lake/predictions/payments/{datetime.now(UTC):%Y-%m-%d}/")
    assert data == b'{"id": 1}\n{"id": 2}\n'


def test_records_that_s3_did_not_take_are_kept_and_bounded(
    in_s3: tuple[Bucket, PredictionLog], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bucket, log = in_s3
    log.close()  # its thread has ended: the test decides when it writes
    monkeypatch.setattr(prediction_log, "_HELD_BYTES", 25)
    bucket.down = True
    log._held, log._held_bytes = [b'{"id": 1}\n', b'{"id": 2}\n', b'{"id": 3}\n'], 30
    with caplog.at_level(logging.ERROR):
        log._upload(closed=True)
    assert vars(caplog.records[-1])["fields"]["lost"] == 1
    bucket.down = False
    log._upload(closed=False)
    assert bucket.objects == {}, "it is not tried again before its time"
    log._upload(closed=True)
    assert list(bucket.objects.values()) == [b'{"id": 2}\n{"id": 3}\n']


def test_an_object_that_s3_did_not_confirm_is_sent_again_as_it_was(in_s3: tuple[Bucket, PredictionLog]) -> None:
    bucket, log = in_s3
    log.close()
    log._held, log._held_bytes = [b'{"id": 1}\n'], 10
    write = bucket.write

    def silent(uri: str, data: bytes) -> None:
        write(uri, data)
        raise PlatformError("the storage did not answer")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "write_bytes", silent)
        log._upload(closed=True)
    log._held.append(b'{"id": 2}\n')
    log._upload(closed=True)
    assert sorted(bucket.objects.values()) == [b'{"id": 1}\n', b'{"id": 2}\n']
    assert (log._held, log._logged.value, log._lost.value) == ([], 2, 0)


def test_much_at_once_is_not_waited_for(in_s3: tuple[Bucket, PredictionLog], monkeypatch: pytest.MonkeyPatch) -> None:
    bucket, log = in_s3
    log.close()
    monkeypatch.setattr(prediction_log, "_OBJECT_BYTES", 5)
    log._held, log._held_bytes = [b'{"id": 1}\n'], 10
    log._upload(closed=False)
    assert list(bucket.objects.values()) == [b'{"id": 1}\n']
