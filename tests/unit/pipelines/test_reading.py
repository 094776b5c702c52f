"""Files as people have them: however a table is written, its rows are the same, or the error has the setting."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import shlex
import zipfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import PlatformError
from pipelines.data.decoding import guess_delimiter, guess_encoding
from pipelines.data.schema import cast_column
from pipelines.data.value_format import value_format
from pipelines.settings import apply, parse_setting
from pipelines.steps.ingest import ingest
from pipelines.steps.validate import validate
from pipelines.task import Column, DataConfig

NAMES = ("parcel", "sent", "distance", "stops", "kind", "note", "late")
WORDS = {
    "gb18030": "今天比赛结束，国家队在主场以二比零战胜对手",
    "big5": "今天天氣很好我們去公園散步經濟成長",
    "shift_jis": "今日は天気がいいですねカタカナとひらがな",
    "euc_kr": "오늘 날씨가 좋습니다 그래서 산책을 갑니다",
    "cp1251": "Сегодня в Москве прошел дождь и снег",
    "cp1252": "déjà vu, un café crème à la plage",
    "utf-16": "Größe 今天",
}


def rows_of(notes: list[str]) -> list[list[str]]:
    start = datetime(2024, 3, 5, 14, 30, tzinfo=UTC)
    return [
        [f"P{at}", (start + timedelta(hours=at)).isoformat(), f"{at + 0.25}", str(at % 5), ("box", "letter")[at % 2],
         note, ("yes", "no")[at % 3 == 0]]
        for at, note in enumerate(notes)
    ]  # fmt: skip


@pytest.fixture
def run(
    toy: Any, toy_config: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[pd.DataFrame, dict[str, Any]]]:
    """Ingest and validate a file by settings as ``--set`` takes them; gives the good rows and the report."""
    free = [replace(column, maximum=None) if column.name == "distance" else column for column in toy.columns]
    monkeypatch.setattr(type(toy), "columns", tuple(free), raising=False)

    def read(name: str, content: bytes, *overrides: str) -> tuple[pd.DataFrame, dict[str, Any]]:
        source = tmp_path / name
        source.write_bytes(content)
        document = json.loads(toy_config())
        for item in overrides:
            apply(document, *parse_setting(item))
        config = json.dumps(document)
        ingest("toy", config, str(source), str(tmp_path / "data"), str(tmp_path / "manifest.json"))
        report = validate("toy", config, str(tmp_path / "manifest.json"), str(tmp_path / "clean"))
        return pd.concat(map(pd.read_parquet, sorted((tmp_path / "clean").glob("part-*")))), report

    return read


def text_of(rows: list[list[str]], delimiter: str = ",", space: str = "") -> str:
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\n")
    writer.writerow([space + name for name in NAMES])
    writer.writerows(rows)
    return out.getvalue()


def cured(read: Callable[[list[str]], Any], steps: int = 4) -> tuple[Any, list[str]]:
    """What `read` gives once the settings that its errors propose are set, and these settings."""
    given: list[str] = []
    for _ in range(steps):
        try:
            return read(given), given
        except PlatformError as err:
            words = shlex.split(err.fix)
            found = [words[at + 1] for at, word in enumerate(words) if word == "--set"]
            if not found or any("max_bad_share" in item for item in found):
                raise
            given += found
    raise AssertionError(given)


@pytest.mark.parametrize("encoding", WORDS)
def test_an_encoding_is_recognised_and_its_setting_gives_every_row(run: Any, encoding: str) -> None:
    rows = rows_of([WORDS[encoding] if at % 2 else "plain" for at in range(20)])
    content = text_of(rows).encode(encoding)
    (frame, report), given = cured(lambda given: run("rows.csv", content, *given))
    assert given == ([] if encoding == "utf-16" else [f"data.encoding={encoding}"])
    assert (report["bad"], frame["note"].tolist()) == (0, [row[5] for row in rows])


def test_a_file_that_is_utf8_is_not_read_as_something_else(run: Any) -> None:
    content = text_of(rows_of(["今天比赛"] * 5)).encode()
    for encoding in ("gb18030", "latin-1", "utf-16"):
        with pytest.raises(PlatformError) as caught:
            run("rows.csv", content, f"data.encoding={encoding}")
        assert "data.encoding=utf-8" in caught.value.fix or encoding == "utf-16"


def test_a_few_rows_in_another_encoding_are_bad_rows(run: Any) -> None:
    rows = text_of(rows_of(["plain"] * 60)).encode().splitlines(keepends=True)
    rows[7] = rows[7].replace(b"plain", b"caf\xe9 noir")
    frame, report = run("rows.csv", b"".join(rows))
    assert (len(frame), report["bad"], report["reasons"][0]["column"]) == (59, 1, "note")


@pytest.mark.parametrize(
    ("decimal", "thousands", "delimiter", "wanted"),
    [
        (",", "", ";", ["data.delimiter=;", "data.decimal=,"]),
        (",", ".", "\t", ["data.delimiter=\t", "data.decimal=,", "data.thousands=."]),
        (".", ",", "|", ["data.delimiter=|", "data.thousands=,"]),
        (".", "'", ",", ["data.thousands='"]),
        (",", " ", ";", ["data.delimiter=;", "data.decimal=,", "data.thousands= "]),
    ],
)
def test_signs_in_numbers_are_recognised(run: Any, decimal: str, thousands: str, delimiter: str, wanted: Any) -> None:
    rows = rows_of(["x"] * 12)
    for at, row in enumerate(rows):
        number = f"{1234.5 + 10_000 * at:,.2f}" if thousands else f"{1234.5 + 10_000 * at:.2f}"
        row[2] = number.translate({ord(","): thousands, ord("."): decimal})
    content = text_of(rows, delimiter).encode()
    (frame, report), given = cured(lambda given: run("rows.csv", content, *given))
    assert (report["bad"], frame["distance"].tolist()) == (0, [1234.5 + 10_000 * at for at in range(12)])
    assert [parse_setting(item) for item in given] == [tuple(item.split("=", 1)) for item in wanted]


@pytest.mark.parametrize(
    ("write", "how"),
    [
        (lambda t: str(int(t.timestamp())), "s"),
        (lambda t: f"{t.timestamp():.3f}", "s"),
        (lambda t: str(int(t.timestamp() * 1_000)), "ms"),
        (lambda t: str(int(t.timestamp() * 1_000_000)), "us"),
        (lambda t: str(int(t.timestamp()) * 1_000_000_000), "ns"),
        (lambda t: f"{t:%d.%m.%Y %H:%M:%S}", "dayfirst"),
        (lambda t: f"{t:%d/%m/%Y %H:%M}", "dayfirst"),
        (lambda t: f"{t:%m/%d/%Y %H:%M:%S}", "monthfirst"),
        (lambda t: f"{t:%m/%d/%Y %I:%M %p}", "%m/%d/%Y %I:%M %p"),
        (lambda t: f"{t:%Y/%m/%d %H:%M:%S}", ""),
        (lambda t: f"{t:%Y年%m月%d日 %H:%M:%S}", "%Y年%m月%d日 %H:%M:%S"),
        (lambda t: f"{t:%a, %d %b %Y %H:%M:%S} +0000", "%a, %d %b %Y %H:%M:%S %z"),
        (lambda t: repr(25_569 + t.timestamp() / 86_400), "excel"),
        (lambda t: f"{t:%Y-%m-%d %H:%M:%S} UTC", ""),
        (lambda t: f"{t:%Y-%m-%dT%H:%M:%SZ}", ""),
    ],
)
def test_moments_are_recognised(run: Any, write: Callable[[datetime], str], how: str) -> None:
    times = [datetime(2024, 3, 1 + at, 14, at, tzinfo=UTC) for at in range(28)]
    rows = rows_of(["x"] * 28)
    for row, moment in zip(rows, times, strict=True):
        row[1] = write(moment)
    content = text_of(rows).encode()
    (frame, report), given = cured(lambda given: run("rows.csv", content, *given))
    assert (report["bad"], frame["sent"].tolist()) == (0, times)
    assert dict(map(parse_setting, given)) == ({"data.times.sent": how} if how else {})


def test_whole_numbers_in_parquet_are_moments_by_their_unit(run: Any) -> None:
    rows = pd.DataFrame(rows_of(["x"] * 12), columns=NAMES)
    rows["sent"] = [1_709_649_000_000 + 1000 * at for at in range(12)]
    stream = io.BytesIO()
    rows.to_parquet(stream)
    (frame, _), given = cured(lambda given: run("rows.parquet", stream.getvalue(), *given))
    assert given == ["data.times.sent=ms"]
    assert frame["sent"].iloc[1] == pd.Timestamp("2024-03-05T14:30:01Z")


@pytest.mark.parametrize(
    ("how", "text"), [("s", "1709649000000"), ("dayfirst", "12/25/2024"), ("%d.%m.%Y", "3.25.2024")]
)
def test_a_wrong_form_of_a_moment_is_no_moment(how: str, text: str) -> None:
    form = value_format(DataConfig(times={"t": how}))
    values, wrong = cast_column(pa.chunked_array([[text]]), Column(name="t", dtype="timestamp"), form)
    assert (values.to_pylist(), wrong.tolist()) == ([None], [True])


def test_a_zone_is_that_of_moments_without_one() -> None:
    texts = ["2024-07-01 12:00:00", "2024-07-01T12:00:00Z", "2024-07-01", "2024-03-31 02:30:00", "2024-10-27 02:30:00"]
    form = value_format(DataConfig(zone="Europe/Berlin"))
    values, wrong = cast_column(pa.chunked_array([texts]), Column(name="t", dtype="timestamp"), form)
    shown = [value and value.isoformat()[:16] for value in values.to_pylist()]
    assert shown == [
        "2024-07-01T10:00",
        "2024-07-01T12:00",
        "2024-06-30T22:00",
        None,
        None,
    ]  # the last two: summer time
    assert wrong.tolist() == [False, False, False, True, True]


@pytest.mark.parametrize("words", [("true", "false"), ("Yes", "NO"), ("ja", "nein"), ("是", "否"), ("t", "f")])
def test_words_for_true_and_false_are_one_and_zero(words: tuple[str, str]) -> None:
    texts = [words[0], words[1], "1", "0", "", "maybe"]
    column = Column(name="fraud", dtype="int64", minimum=0, maximum=1)
    values, wrong = cast_column(pa.chunked_array([texts]), column)
    assert values.to_pylist() == [1, 0, 1, 0, None, None]
    assert wrong.tolist() == [False] * 5 + [True]


def test_spaces_around_names_and_values_are_none_of_theirs(run: Any) -> None:
    rows = [[f" {value} " for value in row] for row in rows_of(["x"] * 6)]
    frame, report = run("rows.csv", text_of(rows, space=" ").encode())
    assert report["bad"] == 0
    assert frame["distance"].tolist() == [at + 0.25 for at in range(6)]


def test_a_name_that_is_like_no_column_is_not_proposed(run: Any) -> None:
    with pytest.raises(PlatformError) as caught:
        run("rows.csv", text_of(rows_of(["x"])).replace("distance", "weight").encode())
    assert caught.value.fix == "say which one it is: --set data.columns.distance=NAME"
    with pytest.raises(PlatformError) as caught:
        run("rows.csv", text_of(rows_of(["x"])).replace("distance", "Dis-Tance").encode())
    assert caught.value.fix.endswith("--set data.columns.distance=Dis-Tance")
    assert "missing" not in str(caught.value.detail)
    with pytest.raises(PlatformError, match="has no column 'distance'") as caught:
        run("rows.csv", text_of(rows_of(["x"])).replace("distance", "far").replace("kind", "sort").encode())
    assert str(caught.value.detail).endswith("; missing as well: kind")


def zipped(content: bytes, *names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("__MACOSX/._rows.csv", b"x")
        for name in names:
            archive.writestr(name, content)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("rows.csv.gz", gzip.compress),
        ("rows.csv.bz2", bz2.compress),
        ("rows.csv.zst", lambda data: pa.compress(data, "zstd", asbytes=True)),
        ("rows.zip", lambda data: zipped(data, "folder/rows.csv")),
        ("rows.csv", gzip.compress),  # what it is counts, not its name
    ],
)
def test_a_packed_file_is_unpacked(run: Any, name: str, pack: Callable[[bytes], bytes]) -> None:
    frame, _ = run(name, pack(text_of(rows_of(["x"] * 9)).encode()))
    assert len(frame) == 9


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.csv.gz", b"parcel,sent\n", "not gzip in spite of its name"),
        ("rows.csv.gz", gzip.compress(text_of(rows_of(["x"] * 900)).encode())[:-200], "damaged or cut off"),
        ("rows.zip", zipped(b"a,b\n1,2\n", "one.csv", "two.csv"), "has 2 data files"),
        ("rows.zip", zipped(b"", *()), "has no data files"),
        ("rows.xlsx", zipped(b"x", "rows.csv"), "not a readable workbook"),
        ("rows.csv", b'parcel, "sent"\nP1, "x"\n', "a space stands before the quote"),
        ("rows.jsonl", b"[1]\n", "no line of rows.jsonl is an object"),
    ],
)
def test_what_cannot_be_unpacked_is_named(run: Any, name: str, content: bytes, said: str) -> None:
    with pytest.raises(PlatformError, match=said) as caught:
        run(name, content)
    assert caught.value.fix


def test_a_bad_line_of_json_is_a_bad_row(run: Any) -> None:
    lines = [json.dumps(dict(zip(NAMES, row, strict=True))) for row in rows_of(["x"] * 40)]
    lines[3] = lines[3][:-5]
    frame, report = run("rows.jsonl", "\n".join(lines).encode())
    assert (len(frame), report["bad"]) == (39, 1)


def test_a_workbook_is_read_as_it_shows(run: Any) -> None:
    workbook = openpyxl.Workbook()
    sheet = workbook.active
    sheet.append(NAMES)
    for at, row in enumerate(rows_of(["x"] * 9)):
        sheet.append([row[0], datetime(2024, 3, 5, 14, 30 + at), float(row[2]), int(row[3]), *row[4:]])
    stream = io.BytesIO()
    workbook.save(stream)
    frame, report = run("rows.xlsx", stream.getvalue())
    assert report["bad"] == 0
    assert frame["stops"].tolist() == [at % 5 for at in range(9)]
    assert frame["sent"].iloc[2] == pd.Timestamp("2024-03-05T14:32:00Z")


@given(st.lists(st.lists(st.text("ab1. ", max_size=5), min_size=3, max_size=3), min_size=2, max_size=9))
def test_a_delimiter_is_only_proposed_when_it_is_another_one(rows: list[list[str]]) -> None:
    for sign in ";\t|,":
        text = "\n".join(sign.join(row) for row in [["a", "b", "c"], *rows]) + "\n"
        assert guess_delimiter(text, sign) == ""
        assert guess_delimiter(text, "~") == sign


def test_broken_utf8_looks_like_nothing() -> None:
    assert guess_encoding(b"a,b\n1,\xff\xff\n") == guess_encoding("名前".encode()[:-1] + b"\n") == ""
