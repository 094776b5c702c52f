"""The log of predictions in a real S3 server: followed, compacted, joined with labels, and one entity forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from contracts import storage
from contracts.metric_names import LOG_LOST, LOG_RECORDS
from services.feedback import layout
from services.feedback.compaction import compact
from services.feedback.days import days
from services.feedback.forgetting import Forgotten, forget
from services.feedback.hashing import hashed
from services.feedback.joining import joined
from services.feedback.line_file import Unreadable
from services.feedback.reading import Position, new_predictions
from services.feedback.records import Label, Prediction, line_of
from services.feedback.writing import write_labels
from services.metrics.service_metrics import ServiceMetrics
from services.model.prediction_log import PredictionLog
from services.settings import PredictionLogSettings
from tests.problem_bundles import house_prices
from tests.servers import s3_server

pytestmark = pytest.mark.integration
FOLDER = "s3://lake/predictions"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with s3_server(tmp_path_factory.mktemp("s3"), "lake") as variables:
        yield variables


@pytest.fixture(autouse=True)
def _client(server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.items():
        monkeypatch.setenv(name, value)


def record(number: int, at: datetime) -> Prediction:
    return Prediction(
        id=f"{int(at.timestamp() * 1000):012x}{number:020x}",
        time=at,
        model="m",
        version="1",
        digest="",
        answer={"value": 1.5},
        inputs={"x": float(number), "note": {"chars": 3}},
        entities={"card": hashed(b"salt", number % 2)},
        flags=(),
        latency_ms=1.0,
        schema=2,
    )


def test_the_log_is_the_same_in_s3_as_in_a_folder() -> None:
    now = datetime.now(UTC)
    old = now.replace(microsecond=0) - timedelta(days=3)
    given = [record(number, old + timedelta(hours=12 * number)) for number in range(6)]
    home = layout.home(FOLDER, "m")
    for number, one in enumerate(given[:5]):
        storage.write_bytes(storage.join(home, f"{one.time:%Y-%m-%d}", f"{number}-a-1-0.jsonl"), line_of(one))
    followed = new_predictions(FOLDER, "m", Position())
    assert sorted(one.id for one in followed.records) == [one.id for one in given[:5]]
    write_labels(FOLDER, "m", [Label(id=one.id, label=2.0, time=now) for one in given[:3]])
    assert compact(FOLDER, "m", "predictions", Unreadable()).files >= 4
    storage.write_bytes(layout.new_object(home), line_of(given[5]))
    assert [one.id for one in new_predictions(FOLDER, "m", followed.position).records] == [given[5].id]
    rows = list(joined(FOLDER, "m", old, now + timedelta(days=1)))
    by_id = {row.prediction.id: row.label and row.label.label for row in rows}
    assert by_id == {one.id: 2.0 if number < 3 else None for number, one in enumerate(given)}
    assert sorted((row.prediction for row in rows), key=lambda one: one.id) == given
    assert forget(FOLDER, "m", {"card": "0"}, "salt") == Forgotten(predictions=3, labels=2)
    left = {row.prediction.id for row in joined(FOLDER, "m", old, now + timedelta(days=1))}
    assert left == {one.id for one in given[1::2]}
    found = days(FOLDER, "m", Unreadable())
    assert (sum(day.rows for day in found), sum(day.labels for day in found)) == (3, 1)
    assert all(day.bytes > 0 for day in found)


def test_a_server_that_is_away_costs_records_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    from services.model import prediction_log

    signature = house_prices(tmp_path).document.signature
    monkeypatch.setattr(prediction_log, "_HELD_BYTES", 20)
    metrics = ServiceMetrics("m", "1")
    settings = PredictionLogSettings(folder=FOLDER, upload_seconds=3600)
    log = PredictionLog(settings, signature, {"model": "away"}, metrics)
    log._lines += [b'{"id": 1}\n', b'{"id": 2}\n', b'{"id": 3}\n']
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    log.close()
    count = metrics.registry.get_sample_value
    assert (count(LOG_RECORDS, {"model": "m"}), count(LOG_LOST, {"model": "m"})) == (0, 3)
    assert "prediction_log_failed" in caplog.text
