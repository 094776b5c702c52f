"""``fairlead data anonymity``: k and l of a file, by hand and on random rows."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.anonymity import measure
from pipelines.task import DataConfig

ROWS = "age,town,illness\n40,Bonn,flu\n40,Bonn,cold\n40,Bonn,flu\n50,Bonn,flu\n50,Bonn,flu\n60,,cold\n"


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "a.csv").write_text(ROWS)
    return str(tmp_path / "a.csv")


def test_a_file_by_hand(fairlead: Callable[..., Any], file: str) -> None:
    said = fairlead("data", "anonymity", file, "--by", "age", "--by", "town", "--secret", "illness", "--json")
    assert json.loads(said.out) == {"rows": 6, "groups": 3, "k": 1, "alone": 1, "few": 6, "l": 1, "same": 3}
    told = fairlead("data", "anonymity", file, "--by", "town").out
    assert "k = 1: the smallest of 2 groups of 6 rows" in told
    assert "Bonn" not in told


def test_what_cannot_be_measured(fairlead: Callable[..., Any], file: str, tmp_path: Path) -> None:
    assert "has no column 'zip'" in fairlead("data", "anonymity", file, "--by", "zip").err
    assert "has no column 'x'" in fairlead("data", "anonymity", file, "--by", "age", "--secret", "x").err
    (tmp_path / "b.csv").write_text("age\n")
    assert "is empty" in fairlead("data", "anonymity", str(tmp_path / "b.csv"), "--by", "age").err


@settings(max_examples=20)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.sampled_from("12")), min_size=1))
def test_it_is_as_counting_says(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]]) -> None:
    file = tmp_path_factory.mktemp("rows") / "rows.csv"
    file.write_text("p,q,s\n" + "".join(",".join(row) + "\n" for row in rows))
    found = measure(str(file), ["p", "q"], "s", DataConfig())
    sizes, kinds = Counter(row[:2] for row in rows), defaultdict(set)
    for row in rows:
        kinds[row[:2]].add(row[2])
    assert found["k"] == min(sizes.values())
    assert found["l"] == min(map(len, kinds.values()))
    assert found["alone"] == sum(size == 1 for size in sizes.values())
    assert found["same"] == sum(sizes[group] for group, of in kinds.items() if len(of) == 1)
