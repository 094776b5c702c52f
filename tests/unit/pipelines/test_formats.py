"""Files that are no table of text are named as what they are; JSON lines keep what is nested."""

from __future__ import annotations

import gzip
import io
import json
import shlex
import subprocess
import zipfile
from pathlib import Path

import openpyxl
import pyarrow as pa
import pytest
from pyarrow import parquet

from contracts.errors import PlatformError
from pipelines.data.chunks import TextFormat
from pipelines.data.formats import read_json_lines
from pipelines.data.sources import column_names

LINES = b'{"id": "P1", "amount": 5}\n{"id": "P2", "amount": 6}\n'
CSV = b"id,amount\nP1,5\n"


def zipped(name: str, content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, content)
    return stream.getvalue()


def parquet_file() -> bytes:
    stream = io.BytesIO()
    parquet.write_table(pa.table({"id": ["P1"], "amount": [5]}), stream)
    return stream.getvalue()


def workbook() -> bytes:
    stream, book = io.BytesIO(), openpyxl.Workbook()
    book.active.append(["id", "amount"])
    book.save(stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "a workbook of Excel 97"),
        ("rows.csv", b"SQLite format 3\0" + bytes(600), "a database of SQLite"),
        ("rows.zip", zipped("rows.csv.gz", gzip.compress(CSV)), "packed twice, the second time as gzip"),
        ("rows.zip", zipped("rows.jsonl", LINES), "JSON lines, packed"),
        ("rows.zip", zipped("rows.parquet", parquet_file()), "a Parquet file, packed"),
        ("rows.json", json.dumps([{"id": "P1"}]).encode(), "a list in JSON"),
    ],
)
def test_what_is_no_text_is_named_and_its_encoding_is_not_blamed(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PlatformError, match=said) as caught:
        column_names(tmp_path / name, TextFormat())
    assert caught.value.code == "bad_source"
    assert "encoding" not in caught.value.fix


@pytest.mark.parametrize("content", [workbook(), parquet_file(), LINES], ids=["excel", "parquet", "json"])
def test_a_file_with_another_ending_is_read_after_the_fix(tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "my rows.csv"
    source.write_bytes(content)
    with pytest.raises(PlatformError) as caught:
        column_names(source, TextFormat())
    subprocess.run(shlex.split(caught.value.fix.partition(": ")[2]), check=True)
    (made,) = tmp_path.iterdir()
    assert column_names(made, TextFormat()) == ["id", "amount"]


@pytest.mark.parametrize("start", [b"{id},amount\nP1,5\n", b'"{",amount\nP1,5\n', b"[id],amount\nP1,5\n"])
def test_a_bracket_in_a_header_is_no_json(tmp_path: Path, start: bytes) -> None:
    (tmp_path / "rows.csv").write_bytes(start)
    assert column_names(tmp_path / "rows.csv", TextFormat())[1] == "amount"


def test_what_is_nested_in_json_lines_stays_as_it_is_written(tmp_path: Path) -> None:
    nested = '{"a": [1, 2.50, "3", null, true], "b": {}}'
    (tmp_path / "rows.jsonl").write_text(f'{{"id": 7, "more": {nested}}}')
    assert list(read_json_lines(tmp_path / "rows.jsonl")) == [(1, {"id": "7", "more": nested}, "")]
