"""Plain texts as rows: pieces are the text again, and what cannot be read is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import PlatformError
from pipelines.data.corpus import fingerprint, pieces, read_corpus, takes_corpus
from pipelines.tasks import get_task


@given(st.text(st.sampled_from("ab。\n 月"), max_size=6_000))
def test_pieces_are_the_text_when_they_are_joined(text: str) -> None:
    found = pieces(text)
    assert "".join(found) == text
    assert max(map(len, found)) <= 1_800


def test_files_become_pieces_with_a_beginning_and_empty_ones_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("One line.\r\n月光\r\n".encode() * 200)
    (tmp_path / "b.md").write_bytes(b" \n")
    known = fingerprint(str(tmp_path), "", lambda *_, **__: None)
    [chunk] = read_corpus(str(tmp_path), "", known)
    rows = chunk.table.to_pylist()
    assert [row["id"] for row in rows] == ["a.txt#000000", "a.txt#000001"]
    assert "".join(row["beginning"] + row["text"] for row in rows) == "One line.\n月光\n" * 200
    assert all(row["beginning"].endswith("\n") and len(row["beginning"]) <= 200 for row in rows)
    assert [(row.file, row.reason) for row in chunk.rejected] == [("b.md", "has no text")]
    assert known["rows"] == 3


def test_bytes_of_another_encoding_are_refused_with_their_place(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes("ab月光".encode("gb18030"))
    with pytest.raises(PlatformError, match=r"a\.txt is not in the encoding utf-8") as caught:
        next(read_corpus(str(file), "", {}))
    assert "position 2" in str(caught.value.detail)
    assert next(read_corpus(str(file), "gb18030", {})).table.num_rows == 1
    with pytest.raises(PlatformError, match="not in the encoding nonsense"):
        next(read_corpus(str(file), "nonsense", {}))


def test_tables_and_other_tasks_are_read_as_they_were(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text", encoding="utf-8")
    (tmp_path / "rows.csv").write_text("id,text\n1,a\n", encoding="utf-8")
    writing = get_task("writing")
    assert takes_corpus(writing, str(tmp_path / "a.txt"))
    assert not takes_corpus(writing, str(tmp_path / "rows.csv"))
    assert not takes_corpus(get_task("news"), str(tmp_path / "a.txt"))
    with pytest.raises(PlatformError, match=r"no plain texts: rows\.csv"):
        fingerprint(str(tmp_path), "", lambda *_, **__: None)
