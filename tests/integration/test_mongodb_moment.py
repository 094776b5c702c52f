"""A collection that changes while it is read: all documents are of one moment where the server offers it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pymongo
import pytest
from pyarrow import parquet
from pymongo.errors import AutoReconnect, OperationFailure
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from contracts import mongodb
from pipelines.data import collection
from pipelines.data.document_file import DocumentFile
from tests.mongo_server import MongoServer

pytestmark = pytest.mark.integration


class Finds(CommandListener):
    """The read concerns of cursors that are opened, and the moments that the server names."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.named: list[Any] = []

    def started(self, event: CommandStartedEvent) -> None:
        if event.command_name == "find":
            self.sent.append(dict(event.command.get("readConcern", {})))

    def succeeded(self, event: CommandSucceededEvent) -> None:
        if event.command_name == "find":
            self.named.append(event.reply["cursor"].get("atClusterTime"))

    def failed(self, event: CommandFailedEvent) -> None:
        pass


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoServer]:
    made = MongoServer(tmp_path_factory.mktemp("replica"), replica=True)
    yield made
    made.stop()


@pytest.fixture
def finds(monkeypatch: pytest.MonkeyPatch) -> Finds:
    seen, client = Finds(), pymongo.MongoClient
    monkeypatch.setattr(pymongo, "MongoClient", partial(client, event_listeners=[seen]))
    return seen


def moment_of(server: MongoServer, folder: Path, name: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The documents of a collection, and what is said of the moment that they are of."""
    about: dict[str, Any] = {}
    found = collection.fetch(mongodb.parse(server.address(name)), folder, "ingest", about=about)
    return list(parquet.read_table(found).to_pylist()), about["moment"]


def test_a_replica_set_is_read_as_of_one_moment_whatever_changes_meanwhile(
    replica: MongoServer,
    finds: Finds,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(collection, "_BATCH", 100)
    add, changed = DocumentFile.add, []
    with replica.database() as database:
        database.moving.insert_many([{"_id": number, "n": 0} for number in range(1_000)])
        began = datetime.now(UTC)

        def watched(self: Any, documents: Any, size: int) -> None:
            if not changed:
                changed.append(database.moving.delete_one({"_id": 800}).deleted_count)
                database.moving.update_many({"_id": {"$gte": 500}}, {"$set": {"n": 1}})
                database.moving.insert_one({"_id": 5_000, "n": 1})
            add(self, documents, size)

        monkeypatch.setattr(DocumentFile, "add", watched)
        read, moment = moment_of(replica, tmp_path, "moving")
        assert changed == [1]
        assert database.moving.count_documents({"n": 1}) == 500
    assert [(row["_id"], row["n"]) for row in read] == [(number, 0) for number in range(1_000)]
    assert moment["snapshot"]
    assert abs(datetime.fromisoformat(moment["at"]) - began) < timedelta(seconds=30)
    said = capsys.readouterr().out
    assert f"moving is read as of {moment['at']}" in said
    assert "changed while" not in said
    assert finds.sent == [{"level": "snapshot"}]


def test_cursors_that_follow_a_lost_one_ask_for_its_moment(
    replica: MongoServer, finds: Finds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find, cuts = collection._Reader._find, [AutoReconnect("cut"), OperationFailure("too old, says it", 239)]
    monkeypatch.setattr(collection, "_BATCH", 10)
    monkeypatch.setattr(collection, "_PATIENCE", (0.0,))

    def cut(self: Any, *given: Any) -> Iterator[bytes]:
        for raw in find(self, *given):
            yield raw
            if cuts:
                raise cuts.pop(0)

    monkeypatch.setattr(collection._Reader, "_find", cut)
    with replica.database() as database:
        database.lost.insert_many([{"_id": number} for number in range(50)])
    read, moment = moment_of(replica, tmp_path, "lost")
    assert [row["_id"] for row in read] == list(range(50))
    first = finds.named[0]
    assert first is not None
    assert finds.sent == [{"level": "snapshot"}, {"level": "snapshot", "atClusterTime": first}, {}]
    assert moment == {"snapshot": False, "why": "the server has it no more: too old"}
