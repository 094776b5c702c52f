"""Documents as rows: no value is lost, whatever the documents are like and however they arrive."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bson
import pyarrow as pa
import pytest
from bson import Binary, Decimal128, Int64, ObjectId
from bson.datetime_ms import DatetimeMS
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from contracts import mongodb
from contracts.errors import PlatformError
from pipelines.data import document_file
from pipelines.data.document_file import DocumentFile, merged
from pipelines.data.documents import Kinds, Rows, as_text, conformed
from pipelines.data.sources import read_chunks

ID = ObjectId("65f000000000000000000001")
MOMENT = datetime(2024, 3, 5, 14, 30, 0, 250_000)


def table_of(*documents: dict[str, Any]) -> pa.Table:
    rows, kinds = Rows(), Kinds()
    rows.add(documents)
    return rows.table(kinds)


def test_nested_fields_have_dotted_names_and_missing_ones_are_null() -> None:
    table = table_of({"_id": 1, "a": {"b": {"c": 5}}, "x": "y"}, {"_id": 2, "a": {"d": None}}, {"_id": 3, "a": {}})
    assert table.column_names == ["_id", "a.b.c", "x"]
    assert table.to_pylist()[1:] == [{"_id": n, "a.b.c": None, "x": None} for n in (2, 3)]


@pytest.mark.parametrize(
    ("value", "kind", "read"),
    [
        (True, pa.bool_(), True),
        (Int64(2**40), pa.int64(), 2**40),
        (2.5, pa.float64(), 2.5),
        (ID, pa.string(), "65f000000000000000000001"),
        (Decimal128("1234567890123456789.10"), pa.string(), "1234567890123456789.10"),
        (MOMENT, pa.timestamp("ms", "UTC"), MOMENT.replace(tzinfo=UTC)),
        (Binary(b"\x00\xff"), pa.binary(), b"\x00\xff"),
        (["a", {"b": ID, "at": MOMENT}], pa.string(), f'["a", {{"b": "{ID}", "at": "2024-03-05T14:30:00.250Z"}}]'),
    ],
)
def test_each_type_of_bson_has_its_column(value: Any, kind: Any, read: Any) -> None:
    column = table_of({"v": value}, {"v": None}).column("v")
    assert column.type == kind
    assert column.to_pylist() == [read, None]


def test_a_moment_that_python_does_not_hold_is_kept() -> None:
    far = DatetimeMS(253_402_300_800_000)
    assert table_of({"v": far}).column("v").cast(pa.int64()).to_pylist() == [253_402_300_800_000]
    assert as_text(far) == "10000-01-01T00:00:00.000Z"


def test_documents_that_disagree_are_text_and_numbers_stay_numbers() -> None:
    assert table_of({"v": 5}, {"v": "five"}, {"v": 5.0}).column("v").to_pylist() == ["5", "five", "5"]
    assert table_of({"v": 5}, {"v": 2.5}).column("v").type == pa.float64()
    assert table_of({"v": 2**60 + 1}, {"v": 2.5}).column("v").to_pylist() == [str(2**60 + 1), "2.5"]
    both = table_of({"v": {"w": 1}}, {"v": "none"})
    assert both.to_pylist() == [{"v": None, "v.w": 1}, {"v": "none", "v.w": None}]


def test_a_dot_in_a_key_is_no_level() -> None:
    assert table_of({"a.b": 1, "a": {"b": 2}, "c\\": {"d": 3}, "": 4}).column_names == ['""', "a.b", "a\\.b", "c\\\\.d"]


def test_keys_that_are_values_are_refused_with_their_place() -> None:
    with pytest.raises(PlatformError, match="field 'scores' has 2,001 different keys") as caught:
        table_of({"scores": {f"u{n}": n for n in range(2_001)}})
    assert "fields=" in caught.value.fix


leaves: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)).map(
        lambda at: at.replace(microsecond=at.microsecond // 1000 * 1000)
    ),
    st.sampled_from([ID, Decimal128("1.10"), [1, "a"]]),
)
keys = st.sampled_from(["a", "b", "c.d", "e"])
documents = st.lists(st.dictionaries(keys, leaves | st.dictionaries(keys, leaves, max_size=3), max_size=4), max_size=12)


def written(folder: Path, found: list[dict[str, Any]], size: int) -> pa.Table:
    """The documents with numbers as _id, in batches of `size`, each a piece of its own."""
    kinds: Kinds = {}
    writer = DocumentFile(folder / "documents.parquet", kinds)
    numbered = [{"_id": number, **document} for number, document in enumerate(found)]
    for start in range(0, len(numbered), size):
        writer.add(numbered[start : start + size], 1 << 30)
    return parquet.read_table(writer.close())


@settings(max_examples=150, deadline=None)
@given(found=documents.filter(len), size=st.integers(1, 12))
def test_what_a_file_holds_does_not_depend_on_how_documents_arrive(
    tmp_path_factory: Any, found: list[dict[str, Any]], size: int
) -> None:
    folder = tmp_path_factory.mktemp("made")
    whole = written(folder, found, len(found))
    first = (folder / "documents.parquet").read_bytes()
    assert written(folder, found, size).equals(whole)
    assert (folder / "documents.parquet").read_bytes() == first
    flat = [
        {
            **{k.replace(".", "\\."): v for k, v in document.items() if not isinstance(v, dict)},
            **{
                f"{k}.{deep}".replace("c.d", "c\\.d"): v
                for k, below in document.items()
                if isinstance(below, dict)
                for deep, v in below.items()
            },
        }
        for document in found
    ]
    for row, document in zip(whole.to_pylist(), flat, strict=True):
        for name, value in row.items():
            if name == "_id":
                continue
            given_value = document.get(name)
            assert (value is None) == (given_value is None)
            if isinstance(value, str) and given_value is not None:
                assert value == as_text(given_value)
            elif isinstance(value, datetime):
                assert value.replace(tzinfo=None) == given_value
            else:
                assert value == given_value


def test_row_groups_and_chunks_are_bounded_where_documents_are_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document_file, "_BYTES", 1 << 20)
    monkeypatch.setattr("pipelines.data.sources._BYTES", 1 << 20)
    found = [{"text": str(number) * 100_000} for number in range(40)]
    table = written(tmp_path, found, 7)
    file = tmp_path / "documents.parquet"
    assert table.num_rows == 40
    groups = parquet.ParquetFile(file).metadata
    assert max(groups.row_group(at).num_rows for at in range(groups.num_row_groups)) <= 11
    assert max(chunk.table.nbytes for chunk in read_chunks(file, ["_id", "text"], None)) < 2 << 20  # type: ignore[arg-type]


def test_rows_that_changed_are_replaced_by_their_id(tmp_path: Path) -> None:
    kinds: Kinds = {}
    files: list[Path] = []
    for name, found in (("known", [(1, "a"), (2, "b"), (3, "c")]), ("newer", [(3, "c"), (2, "B"), (4, "d")])):
        writer = DocumentFile(tmp_path / name, kinds)
        writer.add([{"_id": number, "v": value} for number, value in found], 1)
        files.append(writer.close())
    assert merged(tmp_path / "both", files[0], files[1], kinds) == 4
    rows = parquet.read_table(tmp_path / "both").to_pylist()
    assert [(row["_id"], row["v"]) for row in rows] == [(1, "a"), (3, "c"), (2, "B"), (4, "d")]


def test_a_table_of_fewer_columns_gets_the_others() -> None:
    table = conformed(table_of({"a": 1}), {"a": {"int"}, "b": {"text"}, "c": set()})
    assert table.schema == pa.schema([("a", pa.int64()), ("b", pa.string())])


def test_an_address_says_what_is_read() -> None:
    query = 'filter={"at": {"$gte": {"$date": "2024-01-01T00:00:00Z"}}}&fields=amount, customer.id&grows=at&tls=true'
    found = mongodb.parse(f"mongodb://ann@one:27017,two:27017/shop/pay/ments?{query}")
    assert (found.user, found.hosts, found.database, found.collection) == (
        "ann",
        "one:27017,two:27017",
        "shop",
        "pay/ments",
    )
    assert (found.fields, found.grows, found.options) == (("amount", "customer.id"), "at", (("tls", "true"),))
    assert found.filter["at"]["$gte"].year == 2024


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("mongodb://ann:s3cret@host/shop/payments", "holds a password"),
        ("mongodb://host/shop", "names no collection"),
        ("mongodb://host/shop/", "names no collection"),
        ("mongodb:///shop/payments", "names no collection"),
        ("mongodb://host/shop/payments?filter={s3cret", "filter that is not JSON"),
        ("mongodb://host/shop/payments?filter=[1]", "filter that is no object"),
        ("mongodb://host/shop/payments?tlsCertificateKeyFilePassword=s3cret", "may be a secret"),
    ],
)
def test_an_address_that_is_refused_is_not_repeated(address: str, said: str) -> None:
    with pytest.raises(PlatformError, match=said) as caught:
        mongodb.parse(address)
    assert caught.value.fix
    assert "s3cret" not in json.dumps(caught.value.as_dict())


def test_a_filter_comes_back_from_json_as_the_driver_knows_it() -> None:
    found = mongodb.parse('mongodb://h/d/c?filter={"_id": {"$oid": "65f000000000000000000001"}}')
    assert found.filter == {"_id": ID}
    assert bson.encode(found.filter)
