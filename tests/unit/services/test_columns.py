"""Values of one field to a checked column."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from services.model.columns import Errors, Field, Flags


def column(values: list[Any], **field: Any) -> tuple[Any, Flags, Errors]:
    flags: Flags = [[] for _ in values]
    errors: Errors = []
    result = Field(**{"name": "x", "kind": "input", **field}).column(values, flags, errors)
    return result, flags, errors


def test_integers_stay_integers_unless_one_is_missing() -> None:
    whole, flags, errors = column([1, 2.0, 2**62], dtype="int64")
    assert (whole.dtype, whole.tolist(), errors) == (np.int64, [1, 2, 2**62], [])
    holed, flags, _ = column([1, None], dtype="int64")
    assert np.isnan(holed[1])
    assert flags == [[], ["missing:x"]]


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("int64", 1.5),
        ("int64", 2**70),
        ("int64", "1"),
        ("int64", False),
        ("bool", 1),
        ("bool", "true"),
        ("float64", 10**400),
        ("float64", float("inf")),
        ("float64", float("nan")),
        ("string", ["a"]),
    ],
)
def test_wrong_values_are_errors_of_their_row(dtype: str, value: Any) -> None:
    _, _, errors = column([None, value], dtype=dtype)
    assert [row for row, _ in errors] == [1]


def test_defaults_replace_what_is_missing() -> None:
    assert column([None], dtype="float64", default=2.5)[0].tolist() == [2.5]
    assert column([None], dtype="int64", default=2)[0].tolist() == [2]
    assert column([None], dtype="bool", default=1)[0].tolist() == [True]
    assert column([None], dtype="string", default="AT")[0].tolist() == ["AT"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-02-01T10:00:00Z", "2026-02-01T10:00:00"),
        ("2026-02-01T10:00:00", "2026-02-01T10:00:00"),
        ("2026-02-01T12:00:00.5+02:00", "2026-02-01T10:00:00.500000"),
        ("2026-02-01", "2026-02-01T00:00:00"),
    ],
)
def test_times_become_utc(text: str, expected: str) -> None:
    moments, _, errors = column([text], kind="timestamp")
    assert errors == []
    assert moments[0] == np.datetime64(expected, "us")


def test_a_missing_time_is_now() -> None:
    moment = column([None], kind="timestamp")[0].tolist()[0].replace(tzinfo=UTC)
    assert abs(datetime.now(UTC) - moment) < timedelta(seconds=5)


@pytest.mark.parametrize("value", ["yesterday", 1735689600, True, "2026-13-01", "0001-01-01T00:00:00+23:00"])
def test_other_times_are_refused(value: Any) -> None:
    assert column([value], kind="timestamp")[2][0][0] == 0


@pytest.mark.parametrize("value", [None, "", " ", 1.5, True, "x" * 257, 2**64, 2.0**60, "1.2000000000001048e+16", [1]])
def test_an_entity_key_is_a_whole_number_or_a_short_string(value: Any) -> None:
    assert column(["C1", 7, 700593.0, " 7.00593e5"], kind="entity")[0].tolist() == ["C1", "7", "700593", "700593"]
    assert [row for row, _ in column(["C1", value], kind="entity")[2]] == [1]
