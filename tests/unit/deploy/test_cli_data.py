"""``fairlead data inspect``: what a file holds, and the command that trains on it."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

PAYMENTS = "transaction_id;event_time;Customer ID;terminal_id;amount;fraud\n" + "".join(
    f"T{at};{1_709_510_422 + at};7005{at:02}.0;M{at % 3};{at},5;{at % 2}\n" for at in range(30)
)


@pytest.fixture
def look(call: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    def look(name: str, content: bytes, *arguments: str) -> Any:
        (tmp_path / name).write_bytes(content)
        return call("data", "inspect", str(tmp_path / name), *arguments)

    return look


def test_all_that_a_file_needs_is_found_at_once(look: Any, tmp_path: Path) -> None:
    said = look("payments.csv", PAYMENTS.encode(), "--task", "fraud", "--json").json
    assert said["settings"] == {
        "data.delimiter": ";",
        "data.decimal": ",",
        "data.times.event_time": "s",
        "data.columns.customer_id": "Customer ID",
    }
    columns = {column["name"]: column for column in said["columns"]}
    assert (columns["amount"]["kind"], columns["amount"]["low"], columns["amount"]["high"]) == (
        "float64",
        "0.5",
        "29.5",
    )
    assert columns["event_time"]["low"].startswith("2024-03-04 00:00:22")
    assert "read without it" in columns["Customer ID"]["remarks"][0]
    words = shlex.split(said["run"])
    assert words[:5] == ["fairlead", "run", "fraud", "--source", str(tmp_path / "payments.csv")]
    assert "data.columns.customer_id=Customer ID" in words


def test_the_table_names_what_is_suspicious(look: Any) -> None:
    rows = [f"{at},{'same'},{at if at % 3 else 'x'},{1_709_510_422_000 + at},\n" for at in range(40)]
    said = look("rows.csv", ("id,fixed,mixed,when,gone\n" + "".join(rows)).encode())
    assert said.code == 0
    for remark in ("fixed: always the same", "mixed: numbers and text mixed (65% numbers)", "gone: no value",
                   "when: may be a moment: --set data.times.when=ms"):  # fmt: skip
        assert remark in said.out
    assert "Guessed" not in said.out


def test_columns_that_a_task_lacks_are_listed(look: Any) -> None:
    content = "编号,类别,正文\n" + "".join(f"n{at},体育,今天比赛结束了\n" for at in range(9))
    said = look("articles.csv", content.encode("gb18030"), "--task", "news", "--json").json
    assert said["settings"] == {"data.encoding": "gb18030"}
    assert said["lacking"] == ["id", "category", "content"]
    assert "--set data.columns.content=NAME" in said["run"]


def test_parquet_and_known_settings_are_taken_as_they_are(look: Any, tmp_path: Path) -> None:
    pd.DataFrame({"x": [1.5, None, 2.5], "y": ["1,5", "2,5", "3,5"]}).to_parquet(tmp_path / "t.parquet")
    said = look("u.parquet", (tmp_path / "t.parquet").read_bytes(), "--set", "data.decimal=,", "--json").json
    assert [(column["kind"], round(column["missing"], 2)) for column in said["columns"]] == [
        ("float64", 0.33), ("float64", 0.0)]  # fmt: skip
    assert said["settings"] == {}


def test_a_file_that_cannot_be_read_is_an_error(look: Any) -> None:
    said = look("rows.csv", b"", "--json")
    assert (said.code, said.json["error"]["code"]) == (1, "empty_source")
