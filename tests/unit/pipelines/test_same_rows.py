"""A table is the same rows however it is written: encoding, delimiter, signs, form of moments, packing, format."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import itertools
import json
import os
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.errors import PlatformError
from pipelines.steps.ingest import ingest
from pipelines.steps.validate import validate

EXAMPLES = int(os.environ.get("FAIRLEAD_TEST_TABLES", "30"))
NAMES = ("parcel", "sent", "distance", "stops", "kind", "note", "late")
LETTERS = {
    "": "ab zÄé€今天;,|\t\"'\n",
    "utf-8-sig": "ab Äé今天\n",
    "utf-16": "ab Äé今天;\n",
    "gb18030": "ab é今天国家队在主场",
    "latin-1": "ab zäöüéèñß;,",
    "cp1252": "ab é€“”äöü",
    "shift_jis": "ab カタカナ今日",
}
TIMES: dict[str, Callable[[datetime], str]] = {
    "s": lambda t: str(int(t.timestamp())),
    "ms": lambda t: str(int(t.timestamp()) * 1000),
    "us": lambda t: str(int(t.timestamp()) * 1_000_000),
    "": lambda t: t.isoformat(),
    "dayfirst": lambda t: f"{t:%d.%m.%Y %H:%M:%S}",
    "monthfirst": lambda t: f"{t:%m/%d/%Y %H:%M:%S}",
    "%Y%m%d%H%M%S": lambda t: f"{t:%Y%m%d%H%M%S}",
}
PACKS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": lambda data: pa.compress(data, "zstd", asbytes=True),
    ".zip": lambda data: _zipped(data),
}
MOMENTS = st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1)).map(lambda t: t.replace(microsecond=0, tzinfo=UTC))


def _zipped(data: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("rows.csv", data)
    return stream.getvalue()


@st.composite
def tables(draw: st.DrawFn, letters: str) -> list[tuple[Any, ...]]:
    """Rows of the toy task: at least one of each label, ids that differ."""
    notes = draw(st.lists(st.text(letters, max_size=8), min_size=2, max_size=6))
    return [
        (
            f"P{at}",
            draw(MOMENTS),
            draw(st.floats(0, 1000).map(lambda x: round(x, 3))),
            draw(st.integers(0, 2**53)),
            draw(st.sampled_from(["box", "letter", "pallet"])),
            note,
            ("no", "yes")[at % 2],
        )
        for at, note in enumerate(notes)
    ]


@pytest.fixture
def clean(toy: Any, toy_config: Callable[..., str], tmp_path: Path) -> Callable[..., list[tuple[Any, ...]]]:
    """The rows that validate calls good, of a source that ingest reads by settings of ``data``."""
    number = itertools.count()

    def read(name: str, content: bytes, **data: Any) -> list[tuple[Any, ...]]:
        folder = tmp_path / str(next(number))
        folder.mkdir()
        (folder / name).write_bytes(content)
        kept = dict.fromkeys(NAMES, "keep")  # numbers at random may be those of phones
        config = toy_config(data={"allow_leakage": list(NAMES), "pii": kept, **data})
        ingest("toy", config, str(folder / name), str(folder / "data"), str(folder / "manifest.json"))
        report = validate("toy", config, str(folder / "manifest.json"), str(folder / "clean"))
        assert report["bad"] == 0, report
        frame = pd.concat(map(pd.read_parquet, sorted((folder / "clean").glob("part-*"))))[list(NAMES)]
        return [(row[0], row[1].to_pydatetime(), *row[2:]) for row in frame.itertuples(index=False)]

    return read


def written(rows: list[tuple[Any, ...]], delimiter: str, quoting: Any, signs: tuple[str, str], how: str) -> str:
    def number(value: float) -> str:
        shown = f"{value:,.3f}" if isinstance(value, float) else f"{value:,}"
        return shown.translate({ord(","): signs[1], ord("."): signs[0]})

    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, quoting=quoting)
    writer.writerow(NAMES)
    for parcel, sent, distance, stops, *rest in rows:
        writer.writerow([parcel, TIMES[how](sent), number(distance), number(stops), *rest])
    return out.getvalue()


FILES = {
    "delimiter": st.sampled_from([",", ";", "\t", "|"]),
    "signs": st.sampled_from([(".", ""), (",", ""), (",", "."), (".", ","), (".", " "), (",", "'")]),
    "how": st.sampled_from(list(TIMES)),
    "pack": st.sampled_from(list(PACKS)),
    "quoting": st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
}
SLOW = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@settings(max_examples=EXAMPLES, suppress_health_check=SLOW)
@given(encoding=st.sampled_from(list(LETTERS)), data=st.data(), **FILES)
def test_delimited_text_is_the_same_rows(
    clean: Any, encoding: str, data: Any, delimiter: str, signs: Any, how: str, pack: str, quoting: Any
) -> None:
    rows = data.draw(tables(LETTERS[encoding]))
    content = PACKS[pack](written(rows, delimiter, quoting, signs, how).encode(encoding or "utf-8"))
    reading = {
        "encoding": "" if encoding in ("utf-8-sig", "utf-16") else encoding,
        "delimiter": delimiter,
        "decimal": signs[0],
        "thousands": signs[1],
        "times": {"sent": how} if how else {},
    }
    assert clean(f"rows.csv{pack}", content, **reading) == rows


@settings(max_examples=EXAMPLES, suppress_health_check=SLOW)
@given(rows=tables(LETTERS[""]), pack=st.sampled_from(["", ".gz", ".zst"]))
def test_other_formats_are_the_same_rows(clean: Any, rows: list[tuple[Any, ...]], pack: str) -> None:
    documents = [dict(zip(NAMES, row, strict=True)) for row in rows]
    lines = "\n".join(json.dumps(each, ensure_ascii=False, default=datetime.isoformat) for each in documents)
    assert clean(f"rows.jsonl{pack}", PACKS[pack](lines.encode())) == rows
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(documents), stream)
    assert clean("rows.parquet", stream.getvalue()) == rows


@settings(max_examples=max(EXAMPLES // 4, 10), suppress_health_check=SLOW)
@given(rows=tables("abzÄé今天;,"))  # calamine does not keep cells of spaces
def test_a_workbook_is_the_same_rows(clean: Any, rows: list[tuple[Any, ...]]) -> None:
    workbook = openpyxl.Workbook()
    sheet = workbook.active
    sheet.append(NAMES)
    for parcel, sent, *rest in rows:
        sheet.append([parcel, sent.replace(tzinfo=None), *rest])
    stream = io.BytesIO()
    workbook.save(stream)
    assert clean("rows.xlsx", stream.getvalue()) == [
        row if row[3] < 10**15 else (*row[:3], pytest.approx(row[3], rel=1e-15), *row[4:]) for row in rows
    ]


@settings(max_examples=EXAMPLES, suppress_health_check=SLOW)
@given(rows=tables("ab é"), encoding=st.sampled_from(["", "utf-16", "latin-1"]), **FILES)
def test_what_is_not_told_is_the_same_rows_or_refused(
    clean: Any, rows: Any, encoding: str, delimiter: str, signs: Any, how: str, pack: str, quoting: Any
) -> None:
    """Read without a setting: never other rows. Thousands are left out: 1,234 is one number or two by its delimiter."""
    content = PACKS[pack](written(rows, delimiter, quoting, (signs[0], ""), how).encode(encoding or "utf-8"))
    try:
        found = clean(f"rows.csv{pack}", content)
    except (PlatformError, AssertionError):  # refused, or rows that are counted as bad
        return
    assert found == rows
