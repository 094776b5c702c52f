"""MongoDB as a source: nothing is lost or read twice, whatever happens to the server and to the documents."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from bson import CodecOptions, Decimal128, ObjectId
from bson.binary import UuidRepresentation
from pyarrow import parquet
from pymongo.errors import AutoReconnect

from contracts import mongodb
from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from deploy.cli.feedback.label_source import Columns, read_rows
from pipelines.data import collection
from pipelines.data.document_file import DocumentFile
from pipelines.data.inspection import inspect
from pipelines.data.versions import summary
from pipelines.steps.batch_score import batch_score
from pipelines.steps.ingest import ingest
from pipelines.task import dump_config
from pipelines.tasks import get_task, recipe_config
from tests.mongo_server import LOGIN, MongoServer
from tests.problem_bundles import house_prices

pytestmark = pytest.mark.integration
START = datetime(2024, 1, 1)
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoServer]:
    made = MongoServer(tmp_path_factory.mktemp("mongo"))
    yield made
    made.stop()


@pytest.fixture
def shop(server: MongoServer) -> Iterator[Any]:
    with server.emptied() as database:
        yield database


def rows(
    server: MongoServer, folder: Path, name: str, keep: Path | None = None, **options: str
) -> list[dict[str, Any]]:
    """The documents of a collection as they are read."""
    made = Path(folder, f"read-{time.monotonic_ns()}")
    made.mkdir()
    found = collection.fetch(mongodb.parse(server.address(name, **options)), made, "ingest", str(keep or ""))
    assert found.name == f"{name}.parquet"
    return list(parquet.read_table(found).to_pylist())


def article(number: int) -> dict[str, Any]:
    return {
        "_id": ObjectId(f"{number:024x}"),
        "text": {"title": f"Rates and prices, part {number}", "body": "The bank said so. " * (1 + number % 5)},
        "tags": [{"kind": "topic", "of": number % 4}],
        "at": START + number * DAY,
        "paid": Decimal128(f"{number}.50"),
    }


def test_a_task_takes_a_collection_as_its_source(server: MongoServer, shop: Any, tmp_path: Path) -> None:
    news = get_task("news")
    label, text = news.label, next(column.name for column in news.columns if column.name not in (news.id, news.label))
    shop.articles.insert_many([article(number) | {"label": {"topic": str(number % 3)}} for number in range(300)])
    names = {column.name: f"text.{'title' if column.name == text else 'body'}" for column in news.columns}
    names |= {news.id: "_id", label: "label.topic"}
    config = dump_config(recipe_config(news, None, {f"data.columns.{name}": at for name, at in names.items()}))
    source = server.address("articles", filter='{"paid": {"$gte": {"$numberDecimal": "100"}}}')
    data, out = str(tmp_path / "data"), tmp_path / "manifest.json"
    version = ingest("news", config, source, data, str(out))
    made = json.loads(out.read_text())
    assert (made["rows"], made["source"], made["files"][0]["name"]) == (200, source, "articles.parquet")
    assert made["moment"]["snapshot"] is False
    assert "not supported on standalone" in made["moment"]["why"]
    assert summary(str(out))["moment"] == made["moment"]
    assert ingest("news", config, source, data, str(out)) == version
    shop.articles.update_one({"_id": article(250)["_id"]}, {"$set": {"text.title": "Corrected"}})
    assert ingest("news", config, source, data, str(out)) != version


def test_a_collection_is_looked_at_before_a_run(server: MongoServer, shop: Any) -> None:
    shop.articles.insert_many([article(number) for number in range(50)])
    found = inspect(server.address("articles", fields="at,text.title"), None, {})
    assert [(column.name, column.kind) for column in found.columns] == [
        ("_id", "text"), ("at", "timestamp"), ("text.title", "text"),
    ]  # fmt: skip
    assert found.rows == 50
    meant = inspect(server.address("articles"), get_task("news"), {}).settings
    assert meant["data.columns.title"] == "text.title"


MIXED = [1, 2.5, Decimal128("3"), "a", "b", {"k": 1}, b"x", ObjectId(), True, START, None]


@pytest.mark.parametrize("ids", [MIXED, [UUID(int=number) for number in range(4)]], ids=["mixed", "uuid"])
def test_ids_of_every_type_are_read_once_from_behind_any_of_them(
    server: MongoServer, shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ids: list[Any]
) -> None:
    kept = CodecOptions(uuid_representation=UuidRepresentation.STANDARD)
    mixed = shop.get_collection("mixed", kept)
    mixed.insert_many([{"_id": each, "n": number} for number, each in enumerate(ids)])
    monkeypatch.setattr(collection, "_BATCH", 1)
    monkeypatch.setattr(collection, "_PATIENCE", (0.0,))
    find = collection._Reader._find

    def cut(self: Any, *given: Any) -> Iterator[bytes]:
        for raw in find(self, *given):
            yield raw
            raise AutoReconnect("cut")

    monkeypatch.setattr(collection._Reader, "_find", cut)
    read = rows(server, tmp_path, "mixed")
    assert sorted(row["n"] for row in read) == list(range(len(ids)))


def test_a_server_that_goes_away_in_the_middle_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = MongoServer(tmp_path / "mongo")
    with server.database() as database:
        database.articles.insert_many([article(number) for number in range(2_000)])
    monkeypatch.setattr(collection, "_BATCH", 100)
    add, seen = DocumentFile.add, []

    def watched(self: Any, documents: Any, size: int) -> None:
        add(self, documents, size)
        seen.append(len(documents))
        if len(seen) == 5:
            server.stop(kill=True)
            threading.Timer(1.0, server.start).start()

    monkeypatch.setattr(DocumentFile, "add", watched)
    read = rows(server, tmp_path, "articles")
    server.stop()
    assert [row["_id"] for row in read] == [str(article(number)["_id"]) for number in range(2_000)]
    assert "does not answer, and is asked again" in capsys.readouterr().out


def test_a_server_that_is_not_there_is_named_at_once(tmp_path: Path) -> None:
    from contracts.ports import free_port

    address = f"mongodb://127.0.0.1:{free_port()}/shop/articles?serverSelectionTimeoutMS=300"
    with pytest.raises(
        PlatformError, match=r"MongoDB does not answer: mongodb://127.0.0.1:\d+/shop/articles"
    ) as caught:
        collection.fetch(mongodb.parse(address), tmp_path)
    assert caught.value.code == "unreachable"


def test_who_may_not_read_is_told_so_and_no_password_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    user, password = LOGIN
    server = MongoServer(tmp_path / "mongo")
    with server.database() as database:
        database.articles.insert_one(article(1))
        database.client.admin.command("createUser", user, pwd=password, roles=[{"role": "read", "db": "shop"}])
    server.stop()
    server.start("--auth")
    monkeypatch.setenv(mongodb.USERNAME, user)
    monkeypatch.setenv(mongodb.PASSWORD, password)
    assert len(rows(server, tmp_path, "articles")) == 1
    for login in ({mongodb.PASSWORD: "wr0ng/word"}, {mongodb.PASSWORD: "", mongodb.USERNAME: ""}):
        for name, value in login.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(PlatformError, match="MongoDB refused this user") as caught:
            rows(server, tmp_path, "articles")
        assert caught.value.code == "no_access"
        assert mongodb.PASSWORD in caught.value.fix
        shown = json.dumps(caught.value.as_dict()) + capsys.readouterr().out
        assert password not in shown
        assert "wr0ng" not in shown
    server.stop()


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("nothing", {}, "collections of shop: articles"),
        ("articles", {"filter": '{"at": 5}'}, "filter of the address"),
        ("articles", {"filter": '{"at": {"$never": 5}}'}, "correct what its message names"),
    ],
)
def test_an_empty_collection_says_what_there_is(
    server: MongoServer, shop: Any, tmp_path: Path, name: str, options: dict[str, str], said: str
) -> None:
    shop.articles.insert_one(article(1))
    with pytest.raises(PlatformError) as caught:
        rows(server, tmp_path, name, None, **options)
    assert said in str(caught.value)


def test_documents_of_16_mb_are_read(server: MongoServer, shop: Any, tmp_path: Path) -> None:
    for number in range(2):
        shop.large.insert_one({"_id": number, "text": str(number) * (16 * 2**20 - 64)})
    assert [len(row["text"]) for row in rows(server, tmp_path, "large")] == [16 * 2**20 - 64] * 2


def test_what_changes_while_it_is_read_is_said(
    server: MongoServer, shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.articles.insert_many([article(number) for number in range(300)])
    monkeypatch.setattr(collection, "_BATCH", 100)
    add = DocumentFile.add

    def watched(self: Any, documents: Any, size: int) -> None:
        if not self.rows:
            shop.articles.delete_one({"_id": article(7)["_id"]})
            shop.articles.delete_one({"_id": article(250)["_id"]})
        add(self, documents, size)

    monkeypatch.setattr(DocumentFile, "add", watched)
    read = rows(server, tmp_path, "articles")
    assert len({row["_id"] for row in read}) == len(read) >= 299  # a server may show a cursor what was there before
    said = capsys.readouterr().out
    assert f"changed while it was read: 298 documents now, {len(read)} read" in said
    assert "not as of one moment: the server offers no snapshot: Snapshot read concern is not supported" in said


def test_only_what_is_new_is_read_and_the_result_is_that_of_reading_all(
    server: MongoServer, shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = tmp_path / "kept"
    shop.articles.insert_many([article(number) for number in range(200)])
    read = []
    add = DocumentFile.add
    monkeypatch.setattr(
        DocumentFile, "add", lambda self, found, size: (read.append(len(found)), add(self, found, size))[1]
    )

    def both() -> tuple[list[dict[str, Any]], int]:
        read.clear()
        added = rows(server, tmp_path, "articles", keep, grows="at")
        count = sum(read)
        assert added == rows(server, tmp_path, "articles", grows="at")
        return added, count

    assert both()[1] == 201  # the last one is looked at again: others may have its moment
    shop.articles.insert_many([article(number) for number in range(200, 250)])
    shop.articles.update_one({"_id": article(5)["_id"]}, {"$set": {"at": START + 300 * DAY, "text.title": "New"}})
    found, count = both()
    assert (len(found), count, found[-1]["text.title"]) == (250, 52, "New")
    shop.articles.delete_one({"_id": article(9)["_id"]})  # a count of the server tells: all are read again
    assert len(both()[0]) == 249
    shop.articles.insert_one({**article(400), "at": START})  # late, below what was read
    assert len(both()[0]) == 250
    shop.articles.update_one({"_id": article(400)["_id"]}, {"$set": {"at": START + 500 * DAY, "paid": "nothing"}})
    found, _ = both()  # documents disagree: a column depends on all
    assert found[-1]["paid"] == "nothing"


def test_a_field_that_does_not_grow_is_refused(server: MongoServer, shop: Any, tmp_path: Path) -> None:
    shop.articles.insert_many([article(1), {"_id": "none"}])
    with pytest.raises(PlatformError, match=r"field 'at' of .* does not grow") as caught:
        rows(server, tmp_path, "articles", grows="at")
    assert caught.value.context["column"] == "at"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(house_prices(tmp_path_factory.mktemp("houses")).path)


def house(number: int) -> dict[str, Any]:
    return {"_id": ObjectId(f"{number:024x}"), "size": 40.0 + number % 100, "rooms": float(1 + number % 5)}


def scored(model: str, folder: Path, source: str, to: str) -> dict[str, Any]:
    where = Endpoints(home=str(folder / "home")).resolved().model_dump_json()
    return batch_score(model, source, where, str(folder / f"scores-{time.monotonic_ns()}"), to=to)


def test_scores_are_written_once_however_often_they_are_made(
    server: MongoServer, shop: Any, tmp_path: Path, model: str
) -> None:
    shop.houses.insert_many([house(number) for number in range(60)])
    source, to = server.address("houses"), server.address("prices")
    summary = scored(model, tmp_path, source, to)
    assert summary["written"] == {"place": to, "documents": 60}
    assert summary["moment"]["snapshot"] is False
    first = list(shop.prices.find().sort("_id", 1))
    assert [document["_id"] for document in first] == [house(number)["_id"] for number in range(60)]
    assert set(first[0]) == {"_id", "value_predicted", "low_predicted", "high_predicted", "flags", "model", "digest"}
    assert first[0]["digest"] == summary["digest"]
    shop.houses.insert_one(house(60) | {"size": -1.0})
    scored(model, tmp_path, source, to)
    again = list(shop.prices.find().sort("_id", 1))
    assert again[:60] == first
    assert again[60]["flags"] == ["out_of_range:size"]


def test_rows_of_a_file_are_known_by_columns_that_are_named(
    server: MongoServer, shop: Any, tmp_path: Path, model: str
) -> None:
    file = tmp_path / "houses.csv"
    file.write_text("street,number,size,rooms\nA,1,50,2\nA,2,60,3\nB,1,70,4\n")
    scored(model, tmp_path, str(file), server.address("prices", key="street,number"))
    assert shop.prices.find_one({"_id": {"street": "A", "number": "2"}})["value_predicted"] > 0
    for key, said in (("street", "2 rows have street 'A'"), ("", "no column '_id'")):
        with pytest.raises(PlatformError, match=said) as caught:
            scored(model, tmp_path, str(file), server.address("other", **({"key": key} if key else {})))
        assert "key=" in caught.value.fix
    assert shop.other.count_documents({}) == 0


def test_labels_come_from_a_collection_of_annotations(server: MongoServer, shop: Any) -> None:
    shop.reviews.insert_many(
        [{"of": f"p{n}", "said": {"verdict": str(n % 2)}, "time": START + n * DAY} for n in range(3)]
    )
    (found,) = read_rows(server.address("reviews"), Columns(id="of", label="said.verdict"))
    assert found == [(f"p{n}", str(n % 2), (START + n * DAY).replace(tzinfo=UTC)) for n in range(3)]


def test_scores_do_not_replace_what_they_are_of(server: MongoServer, shop: Any, tmp_path: Path, model: str) -> None:
    shop.houses.insert_one(house(1))
    with pytest.raises(PlatformError, match="would replace the rows"):
        scored(model, tmp_path, server.address("houses", filter='{"size": 41}'), server.address("houses"))
    assert shop.houses.find_one() == house(1)


def test_a_server_that_goes_away_gets_all_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    server = MongoServer(tmp_path / "mongo")
    file = tmp_path / "houses.csv"
    file.write_text("id,size,rooms\n" + "".join(f"{number},{40 + number % 90},3\n" for number in range(2_500)))
    write, calls = mongodb.write, []

    def watched(*given: Any) -> None:
        calls.append(len(given[2]))
        if len(calls) == 2:
            server.stop(kill=True)
            threading.Timer(1.0, server.start).start()
        write(*given)

    monkeypatch.setattr(mongodb, "write", watched)
    scored(model, tmp_path, str(file), server.address("prices", key="id"))
    with server.database() as database:
        assert {document["_id"] for document in database.prices.find()} == {str(number) for number in range(2_500)}
    server.stop()
    assert calls == [1_000, 1_000, 500]
