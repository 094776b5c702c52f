"""Dataset versions as documents: as they came and as they were cleaned, once, whole, and without who is forgotten."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pymongo.errors import AutoReconnect
from typer.testing import CliRunner

from contracts import mongodb, storage
from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from contracts.ports import free_port
from deploy.cli.app import app
from deploy.cli.privacy.taking_out import Forgetting, Log, Person
from pipelines.data import document_store
from pipelines.data.document_store import DocumentStore
from pipelines.steps.calls import CALLS
from pipelines.task import dump_config
from pipelines.tasks import get_task
from services.feedback import annotating, layout
from services.feedback.annotation_store import Annotations
from services.feedback.line_file import append
from services.feedback.records import Prediction, line_of
from services.feedback.writing import write_annotations
from services.monitor.housekeeping import Housekeeping
from tests.mongo_server import MongoServer

pytestmark = pytest.mark.integration
PERSON = "CANARY-4711"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoServer]:
    made = MongoServer(tmp_path_factory.mktemp("mongo"))
    yield made
    made.stop()


@pytest.fixture
def shop(server: MongoServer) -> Iterator[Any]:
    with server.emptied() as database:
        yield database


class Home:
    """A home with a file of payments, each third of the person."""

    def __init__(self, folder: Path, server: MongoServer) -> None:
        self.documents = f"mongodb://127.0.0.1:{server.port}/shop"
        self.endpoints = Endpoints(home=str(folder / "home"), documents=self.documents).resolved()
        self.source, self._out = folder / "payments.csv", folder / "manifest.json"
        with self.source.open("w", newline="") as file:
            out = csv.writer(file)
            out.writerow(["transaction_id", "event_time", "customer_id", "terminal_id", "amount", "fraud"])
            for at in range(60):
                who = f" {PERSON} " if at % 3 == 0 else f"C{at % 7:06d}"
                out.writerow([f"P{at}", f"2026-03-01T{at % 24:02d}:00:00", who, "T1", 10 + at, at % 2])

    def read(self, more: str = "", **data: Any) -> dict[str, Any]:
        """Ingest; the manifest of the run."""
        config = json.loads(dump_config(get_task("fraud").recipes["logistic"]))
        config["data"] |= data
        where = self.endpoints.model_copy(update={"documents": self.documents + more}).resolved()
        given = {"task": "fraud", "config": json.dumps(config), "source": str(self.source)}
        CALLS["ingest"].call({**given, "endpoints": where.model_dump_json(), "manifest": str(self._out)})
        made: dict[str, Any] = json.loads(self._out.read_text())
        return made


@pytest.fixture
def home(server: MongoServer, shop: Any, tmp_path: Path) -> Home:
    return Home(tmp_path, server)


def test_a_version_is_looked_up_by_document(home: Home, shop: Any) -> None:
    made = home.read("?raw=all", pii={"customer_id": "mask:whole"})
    assert made["documents"] == {"place": home.documents, "raw": 60, "clean": 60}
    (found,) = DocumentStore(home.documents, "fraud").find("transaction_id", "P3")
    assert (found.version, found.row) == (made["version"], 4)
    assert found.raw is not None
    assert found.clean is not None
    assert found.raw["customer_id"] == f" {PERSON} "
    assert PERSON not in json.dumps(found.clean)
    assert found.raw["amount"] == found.clean["amount"] == "13"
    assert shop["fraud.versions"].find_one()["complete"] is True
    first = [list(shop[f"fraud.{kind}"].find().sort("_id", 1)) for kind in ("raw", "clean")]
    home.read("?raw=all", pii={"customer_id": "mask:whole"})
    assert [list(shop[f"fraud.{kind}"].find().sort("_id", 1)) for kind in ("raw", "clean")] == first


def test_what_is_taken_out_of_rows_is_kept_nowhere_unless_asked_for(
    home: Home, shop: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    made = home.read(pii={"customer_id": "mask:whole"})
    assert made["documents"] == {"place": home.documents, "clean": 60}
    assert shop["fraud.raw"].count_documents({}) == 0
    assert "raw=all keeps them" in capsys.readouterr().out
    assert home.read()["documents"]["raw"] == 60  # nothing is taken out: as they came


def test_a_run_that_was_ended_goes_on_and_what_others_removed_is_written_again(
    home: Home, shop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document_store, "_AT_ONCE", 20)
    monkeypatch.setattr(mongodb, "_PATIENCE", (0.0,))
    write, sent = mongodb.write, []

    def ends(collection: Any, address: Any, requests: Any, tell: Any) -> None:
        if collection.name != "fraud.versions":
            sent.append((collection.name, len(requests)))
            if len(sent) == 2:
                raise KeyboardInterrupt
        write(collection, address, requests, tell)

    monkeypatch.setattr(mongodb, "write", ends)
    with pytest.raises(KeyboardInterrupt):
        home.read()
    assert shop["fraud.raw"].count_documents({}) == 20
    assert "complete" not in shop["fraud.versions"].find_one()
    home.read()
    assert sent[2:] == [("fraud.raw", 20)] * 2 + [("fraud.clean", 20)] * 3
    shop["fraud.clean"].delete_many({"row": {"$lt": 5}})
    del sent[3:]
    home.read()
    assert shop["fraud.clean"].count_documents({}) == 60
    assert {name for name, _ in sent[3:]} == {"fraud.clean"}
    shop["fraud.clean"].insert_one({"_id": shop["fraud.clean"].find_one()["version"] + ":x"})
    with pytest.raises(PlatformError, match=r"fraud.clean has 61 documents .* and 60 were written"):
        home.read()


def test_a_write_that_is_not_answered_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mongodb, "_PATIENCE", (0.0,))
    tries: list[Any] = []

    class Away:
        def bulk_write(self, requests: Any, ordered: bool) -> None:
            tries.append(requests)
            if len(tries) != 2:
                raise AutoReconnect("away")

    address = mongodb.parse_database("mongodb://127.0.0.1/shop")
    said = list[str]()
    mongodb.write(Away(), address, [1], said.append)
    assert tries == [[1], [1]]
    assert said == ["mongodb://127.0.0.1/shop/documents does not answer, and is asked again: AutoReconnect"]
    with pytest.raises(AutoReconnect):
        mongodb.write(Away(), address, [1])


@pytest.mark.parametrize(
    "text", ["mongodb://h", "mongodb://h/", "mongodb://h/a/b", "redis://h/a", "mongodb://h/a?raw=x"]
)
def test_an_address_that_is_no_database_is_refused(text: str) -> None:
    with pytest.raises(PlatformError, match="address of a MongoDB") as caught:
        DocumentStore(text, "fraud")
    assert caught.value.code == "bad_address"


def test_who_is_forgotten_is_in_no_document(home: Home, shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = home.read()["version"]
    monkeypatch.setattr("contracts.registry.Registry", lambda _: type("Models", (), {"names": lambda self: []})())
    person = Person(task=get_task("fraud"), column="customer_id", text=PERSON)
    assert Forgetting(home.endpoints, person, [], dry_run=True).run().documents == 40
    assert shop["fraud.raw"].count_documents({}) == 60
    done = Forgetting(home.endpoints, person, [], dry_run=False).run()
    after = done.versions[0]["replaced_by"]
    assert (done.documents, after != before) == (40, True)
    for kind in ("raw", "clean"):
        left = list(shop[f"fraud.{kind}"].find())
        assert len(left) == 40
        assert {each["version"] for each in left} == {after}
        assert PERSON not in str(left)
    assert home.read()["version"] == after  # and the source does not bring them back
    assert [shop[f"fraud.{kind}"].count_documents({}) for kind in ("raw", "clean", "versions")] == [40, 40, 1]


def test_a_row_is_shown_as_it_came_and_as_it_was_cleaned(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    made = home.read()
    monkeypatch.setenv("FAIRLEAD_HOME", home.endpoints.home)
    ask = ["data", "documents", "fraud", "P3"]
    refused = CliRunner().invoke(app, ask)
    assert (refused.exit_code, "FAIRLEAD_DOCUMENTS" in refused.output) == (1, True)
    monkeypatch.setenv("FAIRLEAD_DOCUMENTS", home.documents)
    said = CliRunner().invoke(app, [*ask, "--json"])
    (found,) = json.loads(said.stdout)["documents"]
    assert (found["version"], found["row"], found["raw"]["amount"]) == (made["version"], 4, "13")
    assert "as it came" in CliRunner().invoke(app, ask).output
    missing = CliRunner().invoke(app, [*ask[:3], "P3000"])
    assert (missing.exit_code, "has transaction_id 'P3000'" in missing.output) == (1, True)


NOTE = {"id": "0" * 31 + "1", "annotation": {"verdict": "1", "who.said": ["a", 2.5, None]}}


def test_annotations_are_kept_once_and_lines_that_are_none_are_named(
    home: Home, shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        NOTE, {**NOTE, "annotation": "plain words", "time": "2026-03-01T10:00:00Z"}, NOTE,
        {"id": "1"}, {**NOTE, "id": "1"}, {**NOTE, "time": "now"}, {**NOTE, "annotation": {"$set": 1}},
        {**NOTE, "annotation": 2**63},
    ]  # fmt: skip
    file = tmp_path / "notes.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)) + "\nno JSON\n")
    monkeypatch.setenv("FAIRLEAD_HOME", home.endpoints.home)
    ask = ["predictions", "annotate", "fraud", "--source", str(file), "--json"]
    refused = CliRunner().invoke(app, ask)
    assert (refused.exit_code, "no document store is set" in refused.output) == (1, True)
    monkeypatch.setenv("FAIRLEAD_DOCUMENTS", home.documents)
    said = CliRunner().invoke(app, ask)
    made = json.loads(said.stdout)
    assert (said.exit_code, made["rows"], made["kept"], made["repeated"], made["refused"]) == (1, 9, 2, 1, 6)
    assert [line.split(":")[0] for line in made["refused_rows"]] == [f"row {row}" for row in range(4, 10)]
    assert json.loads(CliRunner().invoke(app, ask).stdout)["kept"] == 0
    shown = CliRunner().invoke(app, ["predictions", "annotations", "fraud", str(NOTE["id"]), "--json"])
    first, second = json.loads(shown.stdout)["annotations"]
    assert first == {"time": "2026-03-01T10:00:00+00:00", "annotation": "plain words"}
    assert second["annotation"] == NOTE["annotation"]
    assert shop["fraud.annotations"].count_documents({}) == 2


def test_annotations_that_endpoints_got_move_to_the_document_store_once(
    home: Home, shop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = home.endpoints.uri("predictions")
    said = annotating.checked(NOTE, datetime(2026, 3, 1, 12, tzinfo=UTC), version="7")
    write_annotations(folder, "fraud", [said])
    monkeypatch.setenv("FAIRLEAD_HOME", home.endpoints.home)
    ask, show = (
        ["predictions", "annotate", "fraud", "--json"],
        ["predictions", "annotations", "fraud", said.id, "--json"],
    )
    assert json.loads(CliRunner().invoke(app, show).stdout)["annotations"][0]["annotation"] == NOTE["annotation"]
    refused = CliRunner().invoke(app, ask)
    assert (refused.exit_code, "no document store is set" in refused.output) == (1, True)
    monkeypatch.setenv("FAIRLEAD_DOCUMENTS", home.documents)
    write, tries = mongodb.write, list[int]()

    def away(*given: Any) -> None:
        tries.append(1)
        write(*given)
        raise PlatformError("the server went away", fix="again", code="away")

    with monkeypatch.context() as patch:
        patch.setattr(mongodb, "write", away)
        assert CliRunner().invoke(app, ask).exit_code == 1
    write_annotations(folder, "fraud", [said])
    made = json.loads(CliRunner().invoke(app, ask).stdout)
    assert (len(tries), made["rows"], made["kept"], made["repeated"], made["refused"]) == (1, 2, 0, 2, 0)
    (kept,) = shop["fraud.annotations"].find()
    assert (kept["_id"], kept["version"]) == (f"{said.id}:{said.key}", "7")
    assert layout.files(folder, "fraud", "annotations") == []
    assert len(json.loads(CliRunner().invoke(app, show).stdout)["annotations"]) == 1


def test_a_monitor_moves_annotations_once_whatever_ended_it_and_compacts_though_the_store_is_away(
    home: Home, shop: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    folder, now = home.endpoints.uri("predictions"), datetime.now(UTC)
    said = annotating.checked({**NOTE, "time": "2026-03-01T10:00:00Z"}, now)
    write_annotations(folder, "fraud", [said])
    house = Housekeeping(folder, 0, home.documents, compacts=False)
    house.of(["fraud"])
    with monkeypatch.context() as patch:
        patch.setattr(storage, "remove", _ended)
        house.once()
    assert shop["fraud.annotations"].count_documents({}) == 1, "and it ended before the file went"
    house.once()
    write_annotations(folder, "fraud", [said])
    house.once()
    assert shop["fraud.annotations"].count_documents({}) == 1
    assert layout.files(folder, "fraud", "annotations") == []
    write_annotations(folder, "fraud", [said])
    away = Housekeeping(folder, 0, f"mongodb://127.0.0.1:{free_port()}/shop?serverSelectionTimeoutMS=200")
    away.of(["fraud"])
    caplog.clear()
    away.once(now + timedelta(days=1, hours=1))
    away.once(now + timedelta(days=1, hours=1))
    told = [each.getMessage() for each in caplog.records]
    assert told == ["annotations_not_moved", "log_compacted"], "said once, and the rest goes on"
    assert [file.is_lines for file in layout.files(folder, "fraud", "annotations")] == [False]
    house.once()
    assert layout.files(folder, "fraud", "annotations") == []


def _ended(uri: str) -> None:
    raise OSError("the process ended")


def test_annotations_of_who_is_forgotten_go_too(home: Home, shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, other = f"{1:032x}", f"{2:032x}"
    folder = home.endpoints.uri("predictions")
    for identifier, who in ((theirs, PERSON), (other, "C000002")):
        record = Prediction(
            id=identifier, time=datetime(2026, 3, 1, 12, tzinfo=UTC), model="fraud", version="1", digest="ab",
            answer={"label": "genuine", "score": 0.1}, inputs={}, entities={"customer_id": who}, flags=(),
            latency_ms=1.0, schema=2,
        )  # fmt: skip
        append(Path(storage.join(layout.home(folder, "fraud"), "2026-03-01.a-1.jsonl")), line_of(record))
    notes = [{"_id": name, "prediction": name, "annotation": 1} for name in (theirs, other)]
    Annotations(home.documents, "fraud").write(notes)
    now = datetime(2026, 3, 2, tzinfo=UTC)
    write_annotations(folder, "fraud", [annotating.checked({"id": theirs, "annotation": "x"}, now)])
    monkeypatch.setattr("contracts.registry.Registry", lambda _: type("Models", (), {"names": lambda self: []})())
    person = Person(task=get_task("fraud"), column="customer_id", text=PERSON)
    logs = [Log(model="fraud", salt="salt", adapters=None)]
    looked = Forgetting(home.endpoints, person, logs, dry_run=True).run()
    assert (looked.predictions, looked.documents, looked.annotations) == (1, 1, 1)
    done = Forgetting(home.endpoints, person, logs, dry_run=False).run()
    assert (done.predictions, done.documents, done.annotations) == (1, 1, 1)
    assert [each["_id"] for each in shop["fraud.annotations"].find()] == [other]
