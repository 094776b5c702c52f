"""Rows that are left out are told with number, reason and place, and with the classes that lose more than chance."""

from __future__ import annotations

from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.data import left_out


@given(st.data())
def test_the_tail_is_that_of_fishers_exact_test(data: st.DataObject) -> None:
    total = data.draw(st.integers(1, 60))
    marked, drawn = data.draw(st.integers(0, total)), data.draw(st.integers(0, total))
    hits = data.draw(st.integers(0, min(marked, drawn)))
    ways = sum(comb(marked, k) * comb(total - marked, drawn - k) for k in range(hits, min(marked, drawn) + 1))
    expected = ways / comb(total, drawn)
    if hits > marked * drawn / total:
        assert left_out.tail(total, marked, drawn, hits) == pytest.approx(expected, rel=1e-9)
    else:
        assert left_out.tail(total, marked, drawn, hits) == 1.0


def test_a_class_that_is_lost_is_named_and_noise_is_not() -> None:
    rows = {"zh": 100, "en": 100, "fr": 100}
    named = left_out.losers("validate", rows, {"zh": 90, "en": 2, "fr": 1})
    assert [(each["class"], each["left_out"], each["others_left_out"]) for each in named] == [("zh", 90, 3)]
    assert left_out.losers("validate", rows, {"zh": 5, "en": 4, "fr": 3}) == []
    assert left_out.losers("validate", rows, rows) == left_out.losers("validate", rows, {}) == []


def test_documents_of_two_steps_add_up_and_are_said_in_words() -> None:
    bad = {"step": "validate", "reason": "content: byte 0xe9 is not UTF-8", "rows": 4, "where": "/q.csv"}
    late = {"step": "build_dataset", "reason": "outside the days of the split", "rows": 16, "where": ""}
    first = left_out.document(200, [bad], left_out.losers("validate", {"a": 100, "b": 100}, {"a": 20, "b": 0}))
    both = left_out.joined(first, left_out.document(196, [late], []))
    assert (both["rows_read"], both["rows_left_out"]) == (200, 20)
    assert left_out.in_words(both, "validate") == [
        "4 of 200 rows left out: content: byte 0xe9 is not UTF-8 (4); see /q.csv",
        "class a loses more than its share: 20 of 100 rows (20.0%), the others 0 of 100 (0.0%)",
    ]
    assert left_out.in_words(both, "train") == []
    assert left_out.in_words(both)[0].startswith("20 of 200 rows left out: content")
    assert left_out.as_table(both)["data"][1] == ["build_dataset", "outside the days of the split", 16, ""]
    assert left_out.in_words(left_out.document(3, [], [])) == []
