"""A key is one key, whatever wrote it and wherever it arrives; or it is refused by name."""

from __future__ import annotations

import logging
from collections.abc import Callable
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from contracts.errors import PlatformError
from feature_repo.stores.keys import RefusedKeyError, canonical_column, canonical_text, deserialise_key, serialise_keys
from pipelines.data.schema import cast_key
from pipelines.task import Column
from services.model.columns import Field

DRIVER = [{"name": "driver", "dtype": "string"}]
EXACT = 2**53


def enumerated(text: str) -> str:
    """A member of an enumeration of texts; `str` of it is its name."""
    make: Callable[..., Any] = Enum
    member: str = make("Named", {"KEY": text}, type=str).KEY
    return member


WRITERS: dict[str, Callable[[int], Any]] = {
    "text": str,
    "text with a point": lambda number: f"{number}.0",
    "text in scientific notation": lambda number: f"{number:.17e}",
    "text with white space": lambda number: f" \t{number} ",
    "no-break space": lambda number: f"\u00a0{number}",
    "int": int,
    "float": float,
    "numpy int": np.int64,
    "numpy float": np.float64,
    "numpy text": lambda number: np.str_(number),
    "text of an enumeration": lambda number: enumerated(str(number)),
    "Decimal": lambda number: Decimal(f"{number}.00"),
    "Arrow int": pa.scalar,
    "Arrow float": lambda number: pa.scalar(float(number)),
}
_TEXTS = st.text(max_size=12) | st.from_regex(r"\A[ ]?[+-]?[0-9]{0,4}[.]?[0-9]{0,3}([eE][+-]?[0-9]{1,3})?\Z")
ARROW = [pa.int64(), pa.float64(), pa.string(), pa.large_string(), pa.string_view(), pa.decimal128(30, 2)]


def json_key(value: Any) -> Any:
    """What a service makes of a value of a request, or its error."""
    flags: Any = [[]]
    errors: Any = []
    made = Field(name="driver", kind="entity").column([value], flags, errors)
    return errors or made[0]


@given(number=st.integers(-EXACT, EXACT))
def test_a_whole_number_is_one_key_whatever_wrote_it(number: int) -> None:
    expected = serialise_keys(DRIVER, {"driver": [str(number)]})
    assert deserialise_key(expected[0]) == {"driver": str(number)}
    whole = serialise_keys([{"name": "driver", "dtype": "int64"}], {"driver": [number]})
    for writer, write in WRITERS.items():
        assert serialise_keys(DRIVER, {"driver": [write(number)]}) == expected, writer
        assert serialise_keys([{"name": "driver", "dtype": "int64"}], {"driver": [write(number)]}) == whole, writer
    for kind in ARROW:
        source = Decimal(number) if pa.types.is_decimal(kind) else str(number) if "string" in str(kind) else number
        column = pa.chunked_array([pa.array([source, None], kind)])
        texts, refused = cast_key(column, Column(name="driver", dtype="string"))
        assert (texts.to_pylist(), refused.any()) == ([str(number), None], False), kind
        texts, refused = cast_key(column.dictionary_encode(), Column(name="driver", dtype="string"))
        assert (texts.to_pylist(), refused.any()) == ([str(number), None], False), kind
    for value in (number, float(number), str(number), f" {number}.0"):
        assert json_key(value) == str(number)


@given(text=_TEXTS)
def test_all_ways_agree_on_every_text(text: str) -> None:
    try:
        expected = canonical_text(text)
    except RefusedKeyError:
        with pytest.raises(PlatformError, match="row 1: entity key 'driver'"):
            serialise_keys(DRIVER, {"driver": ["a", text]})
        assert canonical_column(pa.array([text]))[1].to_pylist() == [True]
        assert isinstance(json_key(text), list)
        return
    assert canonical_text(expected) == expected
    assert serialise_keys(DRIVER, {"driver": [text, "a"]})[0] == serialise_keys(DRIVER, {"driver": [expected]})[0]
    assert canonical_column(pa.array([text]))[0].to_pylist() == [expected]
    assert json_key(text) == expected or not expected


@given(texts=st.lists(_TEXTS | st.uuids().map(str) | st.from_regex(r"\A[0-9eE.+\n-]{0,6}\Z"), min_size=1))
@example(texts=["a\nb", "", "c"])
@example(texts=["7e2d5", "12\n1.0", "3.0"])
def test_many_keys_are_what_each_of_them_is(texts: list[str]) -> None:
    try:
        alone = [serialise_keys(DRIVER, {"driver": [text]})[0] for text in texts]
    except PlatformError:
        with pytest.raises(PlatformError, match="entity key 'driver'"):
            serialise_keys(DRIVER, {"driver": texts})
        return
    assert serialise_keys(DRIVER, {"driver": texts}) == alone
    assert [deserialise_key(key)["driver"] for key in alone] == list(map(canonical_text, texts))


@pytest.mark.parametrize("text", ["007", "C000001", "1.5", "12345e67", "1.2.3", "+5", "nan", "a b", "客户", "1_000"])
def test_other_text_stays_as_it_is(text: str) -> None:
    assert canonical_text(text) == text


@pytest.mark.parametrize(
    "value",
    [
        None,
        float("nan"),
        pd.NA,
        pd.NaT,
        1.5,
        Decimal("1.5"),
        float("inf"),
        True,
        np.True_,
        pa.scalar(True),
        2.0**54,
        "1.2000000000001048e+16",
        "9007199254740993.0",
        np.float32(2**25),
        pa.scalar(2.0**25, pa.float32()),
        b"a",
        ["a"],
    ],
)
def test_what_is_no_key_is_refused_by_name_and_row(value: Any) -> None:
    with pytest.raises(PlatformError) as caught:
        serialise_keys(DRIVER, {"driver": ["a", value]})
    assert caught.value.code == "bad_key"
    assert caught.value.headline.startswith("row 1: entity key 'driver'")


@pytest.mark.parametrize("value", [1.5, "1.5", "x", 2**63, "1_000"])
def test_what_is_no_whole_number_is_no_key_of_that_type(value: Any) -> None:
    with pytest.raises(PlatformError, match="entity key 'driver'"):
        serialise_keys([{"name": "driver", "dtype": "int64"}], {"driver": [value]})


@pytest.mark.parametrize("kind", [*ARROW, pa.int32(), pa.dictionary(pa.int32(), pa.string())])
@pytest.mark.parametrize("dtype", ["String", "Int64"])
def test_a_source_of_any_type_is_found_by_every_writing_of_the_key(
    repos: Any, make_repo: Callable[..., Any], tmp_path: Path, kind: Any, dtype: str
) -> None:
    write = str if "string" in str(kind) else int
    rows = [{"driver": write(key), "event": repos.second(0), "f64": float(key)} for key in (700593, 12)]
    repos.write_history(tmp_path, "v", rows, {"driver": kind})
    store = make_repo(views=[repos.view_of("v", ["f64"], driver=getattr(repos, dtype))])
    repos.materialise(store, repos.second(1))
    for _, writer in WRITERS.items():
        read = repos.reader(store).read({"driver": [writer(700593), writer(12)]}, repos.second(1))
        assert read.columns["f64"].tolist() == [700593.0, 12.0]
    for values in ([700593, 12], [700593.0, 12.0], ["7.00593e5", " 12"], [Decimal(700593), Decimal(12)]):
        frame = repos.frame(values, [repos.second(1)] * 2)
        joined = store.get_historical_features(frame, features=["v:f64"]).to_df()
        assert joined["f64"].tolist() == [700593.0, 12.0]


@pytest.mark.parametrize("written", [["700593.0", " 12 "], ["7.00593e5", "1.2e1"], [700593.0, 12.0]])
def test_a_source_written_as_floats_is_found_by_the_digits(
    repos: Any, make_repo: Callable[..., Any], tmp_path: Path, written: list[Any]
) -> None:
    kind = pa.string() if isinstance(written[0], str) else pa.float64()
    rows = [{"driver": key, "event": repos.second(0), "f64": float(at)} for at, key in enumerate(written)]
    rows.append(
        {**rows[0], "driver": "700593" if kind == pa.string() else 700593, "event": repos.second(1), "f64": 7.0}
    )
    repos.write_history(tmp_path, "v", rows, {"driver": kind})
    store = make_repo(views=[repos.view_of("v", ["f64"])])
    repos.materialise(store, repos.second(1))
    read = repos.reader(store).read({"driver": ["700593", "12"]}, repos.second(1))
    assert read.columns["f64"].tolist() == [7.0, 1.0]
    rows_of = [{"driver": "700593.0"}, {"driver": "12"}]
    assert store.get_online_features(features=["v:f64"], entity_rows=rows_of).to_dict()["f64"] == [7.0, 1.0]


def test_a_join_refuses_a_key_of_the_frame_by_row_and_of_the_source_by_view(
    repos: Any, make_repo: Callable[..., Any], tmp_path: Path
) -> None:
    repos.write_history(
        tmp_path, "v", [{"driver": 1.2e17, "event": repos.second(0), "f64": 0.0}], {"driver": pa.float64()}
    )
    store = make_repo(views=[repos.view_of("v", ["f64"])])
    with pytest.raises(PlatformError, match="row 1: entity key 'driver'"):
        store.get_historical_features(repos.frame([1.0, 2.0**60], [repos.second(1)] * 2), features=["v:f64"]).to_df()
    with pytest.raises(PlatformError, match="feature view v has a value that is no key"):
        store.get_historical_features(repos.frame(["a"], [repos.second(1)]), features=["v:f64"]).to_df()


def test_rows_without_key_or_moment_are_left_out_and_counted_and_the_others_go_online(
    repos: Any, make_repo: Callable[..., Any], tmp_path: Path, caplog: Any
) -> None:
    keys = ["a", "b", None, "c", "1.2000000000001048e+16", None, "d", "e"]
    moments = ["2026-01-01 00:00:00"] * 6 + ["soon", "2999-01-01 00:00:00"]
    rows = [{"driver": key, "event": moment, "f64": 1.0} for key, moment in zip(keys, moments, strict=True)]
    repos.write_history(tmp_path, "odd", rows, {"driver": pa.string(), "event": pa.string()})
    store = make_repo(views=[repos.view_of("odd", ["f64"])])
    with caplog.at_level(logging.WARNING):
        repos.materialise(store, pd.Timestamp("3000-01-01", tz="UTC").to_pydatetime())
    read = repos.reader(store).read({"driver": list("abcde")}, repos.second(1))
    assert read.status["odd"] == ["PRESENT"] * 3 + ["NOT_FOUND"] * 2
    told = "\n".join(caplog.messages)
    assert "2 rows are left out, entity key 'driver' is null; the first is row 3 of odd.parquet" in told
    assert "1 row is left out, 'event' is no moment; the first is row 7" in told
    assert "1 row is left out, entity key 'driver' is no key" in told
    assert "1 row is left out, 'event' lies in the future; the first is row 8" in told


def test_a_source_of_which_nothing_can_go_online_is_an_error(
    repos: Any, make_repo: Callable[..., Any], tmp_path: Path
) -> None:
    repos.write_history(
        tmp_path, "v", [{"driver": None, "event": repos.second(0), "f64": 0.0}], {"driver": pa.string()}
    )
    store = make_repo(views=[repos.view_of("v", ["f64"])])
    with pytest.raises(PlatformError, match="entity key 'driver' is null"):
        repos.materialise(store, repos.second(1))
