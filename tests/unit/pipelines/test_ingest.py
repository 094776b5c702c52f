"""Ingestion: every value as written, every bad file named, nothing half-written visible."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from contracts.errors import PlatformError
from pipelines.data import versions
from pipelines.data.chunks import ROW, TextFormat
from pipelines.data.sources import column_names, read_chunks
from pipelines.steps import ingest as step
from pipelines.steps import ingest_files

HEADER = b"parcel,sent,distance,stops,kind,note,late\n"
GOOD = b"P1,2026-01-01,5,1,box,hello,no\n"


@pytest.fixture
def read(toy: Any, toy_config: Callable[..., str], tmp_path: Path) -> Callable[..., tuple[dict[str, Any], pa.Table]]:
    """Ingest bytes (or a path) with data settings; gives the manifest and all rows."""

    def run(content: bytes | Path, name: str = "data.csv", **data: Any) -> tuple[dict[str, Any], pa.Table]:
        source = content if isinstance(content, Path) else tmp_path / name
        if isinstance(content, bytes):
            source.write_bytes(content)
        out = tmp_path / "manifest.json"
        step.ingest("toy", toy_config(data=data), str(source), str(tmp_path / "data"), str(out))
        manifest = json.loads(out.read_text())
        tables = [parquet.read_table(Path(manifest["path"]) / part["name"]) for part in manifest["parts"]]
        return manifest, pa.concat_tables(tables)

    return run


def rejected(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    lines = (Path(manifest["path"]) / "rejected.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_values_arrive_exactly_as_written(read: Any) -> None:
    manifest, table = read(HEADER + b' P1 ,2026-01-01,05.0,1,box,"say ""hi"",\nbye",no\nP2,x,NaN,,box,NULL,yes\n')
    assert table.column("parcel").to_pylist() == [" P1 ", "P2"]
    assert table.column("distance").to_pylist() == ["05.0", "NaN"]
    assert table.column("note").to_pylist() == ['say "hi",\nbye', "NULL"]
    assert table.column(ROW).to_pylist() == [1, 2]
    assert manifest["rows"] == 2
    assert len(manifest["version"]) == 16


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_line_ends_and_byte_order_mark_do_not_matter(read: Any, end: bytes, mark: bytes) -> None:
    _, table = read(mark + (HEADER + GOOD).replace(b"\n", end))
    assert table.column_names[0] == "parcel"
    assert table.column("late").to_pylist() == ["no"]


def test_tsv_is_read_by_its_name(read: Any) -> None:
    _, table = read((HEADER + GOOD).replace(b",", b"\t"), "data.tsv")
    assert table.column("kind").to_pylist() == ["box"]


def test_source_without_header_uses_positions_and_row_numbers(read: Any) -> None:
    columns = {"parcel": "#row", "sent": "1", "distance": "2", "stops": "3", "kind": "4", "late": "6"}
    _, table = read(GOOD + GOOD, header=False, columns=columns, drop=["5"])
    assert table.column("parcel").to_pylist() == ["1", "2"]
    assert sorted(table.column_names) == sorted([*columns, "0", ROW])


def test_quotes_can_be_ordinary_characters(read: Any) -> None:
    _, table = read(HEADER + b'P1,2026-01-01,5,1,box,"open,no\nP2,2026-01-01,5,1,box,x,no\n', quoted=False)
    assert table.column("note").to_pylist() == ['"open', "x"]


def test_parquet_keeps_its_types_and_a_folder_is_one_source(
    read: Any, toy_frame: Callable[..., Any], tmp_path: Path
) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    frame = toy_frame(10)
    for number, half in enumerate((frame[:6], frame[6:])):
        half.to_parquet(folder / f"{number}.parquet", index=False)
    (folder / "_SUCCESS").write_text("")
    manifest, table = read(folder)
    assert table.column("distance").type == pa.float64()
    assert table.column(ROW).to_pylist() == list(range(1, 11))
    assert [f["rows"] for f in manifest["files"]] == [6, 4]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"\n\n", "empty"),
        (HEADER, "empty"),
        (HEADER.replace(b"kind", b"sort") + GOOD, "no column 'kind'"),
        (HEADER.replace(b"kind", b"stops") + GOOD, "repeats column 'stops'"),
        ((HEADER + GOOD).decode().encode("utf-16-le"), "not UTF-8; it looks like UTF-16-LE"),
        (b"PAR1" + GOOD, "Parquet"),
        (HEADER.replace(b"kind", b"k\xff") + GOOD, "not UTF-8"),
        (HEADER + b"P1,2026\n", "no row of"),
    ],
)
def test_a_bad_file_is_an_error_with_a_cure(read: Any, content: bytes, said: str) -> None:
    with pytest.raises(PlatformError, match=said) as caught:
        read(content)
    assert caught.value.fix


def test_missing_column_names_what_there_is(read: Any) -> None:
    with pytest.raises(PlatformError) as caught:
        read(HEADER.replace(b"kind", b"KIND") + GOOD)
    assert caught.value.context["column"] == "kind"
    assert "KIND" in caught.value.detail
    assert caught.value.fix == "if it is that one: --set data.columns.kind=KIND"


def test_broken_utf8_and_short_rows_are_rejected_by_number_and_the_rest_is_kept(read: Any) -> None:
    bad = b"P2,2026-01-01,5,1,box,caf\xe9,no\n"
    manifest, table = read(HEADER + GOOD + bad + b"P3,2026\n\n" + GOOD.replace(b"P1", b"P4"))
    assert table.column("parcel").to_pylist() == ["P1", "P4"]
    assert table.column(ROW).to_pylist() == [1, 4]
    first, second = rejected(manifest)
    assert (first["row"], first["column"]) == (2, "note")
    assert "0xe9 at position 3" in first["reason"]
    assert (second["row"], second["reason"]) == (3, "2 values, expected 7")


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (b"P1,2026\n", "more than 20 rows cannot be read"),
        (GOOD.replace(b"hello", "caf\xe9 cr\xe8me".encode("latin-1")), "not UTF-8; it looks like CP1252"),
    ],
)
def test_a_file_of_bad_rows_stops_early(read: Any, monkeypatch: pytest.MonkeyPatch, bad: bytes, said: str) -> None:
    monkeypatch.setattr("pipelines.data.delimited.MOST_REJECTED", 20)
    with pytest.raises(PlatformError, match=said) as caught:
        read(HEADER + GOOD + bad * 30)
    assert "for example row" in caught.value.detail


def test_an_open_quote_is_found_without_reading_on_forever(read: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.data.delimited.BLOCK", 4096)
    with pytest.raises(PlatformError, match="does not end within") as caught:
        read(HEADER + GOOD * 20 + b'P9,"' + GOOD * 500)
    assert "data.quoted=false" in caught.value.fix


def test_damaged_parquet_is_an_error(read: Any, tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="not a readable Parquet file"):
        read(b"nonsense", "data.parquet")


def test_files_with_other_columns_are_refused(read: Any, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    (folder / "a.csv").write_bytes(HEADER + GOOD)
    (folder / "b.csv").write_bytes(HEADER.replace(b"note", b"remark") + GOOD)
    with pytest.raises(PlatformError, match=r"b\.csv has other columns than a\.csv") as caught:
        read(folder)
    assert "note, remark" in caught.value.detail


def test_unknown_source_and_unknown_mapping_are_errors(read: Any, tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="source not found"):
        read(tmp_path / "absent")
    with pytest.raises(PlatformError, match="names 'colour'"):
        read(HEADER + GOOD, columns={"colour": "kind"})


def test_same_content_is_the_same_version_and_is_read_once(read: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = read(HEADER + GOOD)
    monkeypatch.setattr(ingest_files, "read_chunks", lambda *_: pytest.fail("read again"))
    again, _ = read(HEADER + GOOD)
    assert again == first


def test_other_content_is_another_version(read: Any) -> None:
    first, _ = read(HEADER + GOOD)
    second, _ = read(HEADER + GOOD.replace(b"box", b"letter"))
    assert first["version"] != second["version"]


def test_a_damaged_version_is_made_again(read: Any) -> None:
    manifest, _ = read(HEADER + GOOD)
    part = Path(manifest["path"]) / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    again, table = read(HEADER + GOOD)
    assert again == manifest
    assert table.num_rows == 1


def test_built_in_data_is_versioned_like_a_file(toy: Any, toy_config: Callable[..., str], tmp_path: Path) -> None:
    out, root = tmp_path / "m.json", str(tmp_path / "data")
    first = step.ingest("toy", toy_config(), "", root, str(out))
    assert step.ingest("toy", toy_config(), "", root, str(out)) == first
    manifest = json.loads(out.read_text())
    assert (manifest["source"], manifest["rows"]) == ("built-in", 400)


def _many(rows: int) -> bytes:
    return HEADER + b"".join(GOOD.replace(b"P1", f"P{i}".encode()) for i in range(rows))


def test_a_killed_run_goes_on_and_gives_the_same_version(
    read: Any, toy_config: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(step, "PART_ROWS", 10)
    whole, _ = read(_many(35))
    written = versions.Staging.add

    def killed(self: Any, *arguments: Any) -> None:
        if len(self.parts) == 2:
            raise KeyboardInterrupt
        written(self, *arguments)

    monkeypatch.setattr(versions.Staging, "add", killed)
    other = tmp_path / "other"
    with pytest.raises(KeyboardInterrupt):
        step.ingest("toy", toy_config(), str(tmp_path / "data.csv"), str(other), str(tmp_path / "x.json"))
    visible = [p for p in (other / "toy").iterdir() if not p.name.startswith(".")]
    assert visible == []
    again: list[int] = []
    monkeypatch.setattr(versions.Staging, "add", lambda self, *a: (again.append(a[1]), written(self, *a)))
    version = step.ingest("toy", toy_config(), str(tmp_path / "data.csv"), str(other), str(tmp_path / "x.json"))
    assert version == whole["version"]
    assert again == [30, 35]  # only the parts that were not there


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_a_clear_error_and_leaves_nothing_visible(
    read: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(parquet, "write_table", full)
        with pytest.raises(PlatformError, match="no space left") as caught:
            read(HEADER + GOOD)
    assert caught.value.code == "disk_full"
    assert [p.name for p in (tmp_path / "data" / "toy").iterdir() if not p.name.startswith(".")] == []
    assert not (tmp_path / "manifest.json").exists()
    manifest, _ = read(HEADER + GOOD)
    assert manifest["rows"] == 1


def test_two_runs_at_once_give_one_sound_version(
    toy: Any, toy_config: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "PART_ROWS", 500)
    source = tmp_path / "data.csv"
    source.write_bytes(_many(5000))
    found: list[str] = []
    threads = [
        threading.Thread(
            target=lambda n=n: found.append(
                step.ingest("toy", toy_config(), str(source), str(tmp_path / "data"), str(tmp_path / f"{n}.json"))
            )
        )
        for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert len(set(found)) == 1
    assert versions.intact(tmp_path / "data" / "toy" / found[0])


def test_parts_do_not_hold_the_whole_file_in_memory(tmp_path: Path) -> None:
    """Blocks bound what is held: 60 MB of rows never give a chunk of more than two blocks."""
    source = tmp_path / "big.csv"
    with source.open("wb") as stream:
        stream.write(b"a,b\n")
        for _ in range(60):
            stream.write((b"1," + b"x" * 97 + b"\n") * 10_000)
    largest = max(chunk.table.nbytes for chunk in read_chunks(source, ["a", "b"], TextFormat()))
    assert largest < 40e6


FIELD = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(
        st.text("abcdef é\"',", min_size=1, max_size=6).map(str.strip).filter(bool), min_size=1, max_size=4, unique=True
    ),
    data=st.data(),
    end=st.sampled_from(["\n", "\r\n"]),
    delimiter=st.sampled_from([",", "\t", ";"]),
)
def test_any_table_of_strings_survives_csv(
    tmp_path: Path, names: list[str], data: st.DataObject, end: str, delimiter: str
) -> None:
    rows = data.draw(st.lists(st.lists(FIELD, min_size=len(names), max_size=len(names)), min_size=1, max_size=8))
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([names, *rows])
    file = tmp_path / "any.csv"
    file.write_bytes(buffer.getvalue().encode())
    form = TextFormat(delimiter=delimiter)
    assert column_names(file, form) == names
    tables = [chunk.table for chunk in read_chunks(file, names, form)]
    table = pa.concat_tables(tables)
    assert [list(row) for row in zip(*(table.column(n).to_pylist() for n in names), strict=True)] == rows
    assert table.column(ROW).to_pylist() == list(range(1, len(rows) + 1))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kinds=st.lists(st.sampled_from(["good", "short", "long", "broken", "blank"]), min_size=1, max_size=30))
def test_row_numbers_count_every_row_good_or_bad(tmp_path: Path, kinds: list[str]) -> None:
    lines = {"good": b"1,2\n", "short": b"1\n", "long": b"1,2,3\n", "broken": b"1,\xff\n", "blank": b"\n"}
    file = tmp_path / "rows.csv"
    file.write_bytes(b"a,b\n" + b"".join(lines[kind] for kind in kinds))
    expected = {"good": [], "bad": []}
    number = 0
    for kind in kinds:
        if kind != "blank":  # an empty line is not a row
            number += 1
            expected["good" if kind == "good" else "bad"].append(number)
    chunks = list(read_chunks(file, ["a", "b"], TextFormat()))
    assert [row for chunk in chunks for row in chunk.table.column(ROW).to_pylist()] == expected["good"]
    assert [bad.row for chunk in chunks for bad in chunk.rejected] == expected["bad"]
