"""Packed rows: what is written is what is read, and bytes are never read by another schema."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import PlatformError
from feature_repo.stores.keys import serialise_keys
from feature_repo.stores.packed_rows import FIXED, Layout, split_by_schema, to_bytes
from feature_repo.stores.schema_evolution import translate

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "float64": st.floats(),
    "float32": st.floats(width=32),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "bool": st.booleans(),
    "timestamp": st.integers(-(2**60), 2**60),
    "string": st.text(),
    "bytes": st.binary(),
    "array<float32>": st.lists(st.floats(width=32)),
    "array<int64>": st.lists(st.integers(-(2**63), 2**63 - 1)),
    "array<string>": st.lists(st.text()),
}


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[dict[str, str]], list[dict[str, Any]]]:
    types = draw(st.lists(st.sampled_from(sorted(VALUES)), max_size=12))
    fields = [{"name": f"f{at}", "dtype": dtype} for at, dtype in enumerate(types)]
    row = st.fixed_dictionaries({f["name"]: st.none() | VALUES[f["dtype"]] for f in fields})
    return fields, draw(st.lists(row, min_size=1, max_size=5))


def encode(layout: Layout, rows: list[dict[str, Any]], event: int = 7) -> list[bytes]:
    values: dict[str, Any] = {}
    nulls: dict[str, Any] = {}
    for name, dtype in layout.fields:
        column = [row[name] for row in rows]
        nulls[name] = np.array([value is None for value in column])
        if dtype in FIXED:
            values[name] = np.array([0 if v is None else v for v in column], dtype=FIXED[dtype])
        else:
            values[name] = [to_bytes(v, dtype) for v in column]
    return layout.encode(values, nulls, np.full(len(rows), event), np.full(len(rows), 9))


def equal(left: Any, right: Any) -> bool:
    if isinstance(left, list | np.ndarray):
        return len(left) == len(right) and all(equal(a, b) for a, b in zip(left, right, strict=True))
    if isinstance(left, float) and math.isnan(left):
        return math.isnan(right)
    return bool(left == right)


@settings(max_examples=150, deadline=None)
@given(tables())
def test_every_value_comes_back(table: tuple[list[dict[str, str]], list[dict[str, Any]]]) -> None:
    fields, rows = table
    layout = Layout(fields)
    raw: list[bytes | None] = [None, *encode(layout, rows), b""]
    decoded = layout.decode(raw)
    assert decoded is not None
    assert decoded.found.tolist() == [False, *[True] * len(rows), False]
    assert decoded.records["event"].tolist() == [0, *[7] * len(rows), 0]
    nulls = layout.nulls(decoded)[1:-1]
    for name, dtype in layout.fields:
        values = layout.values(decoded, name)[1:-1]
        if dtype == "timestamp":
            values = values.astype(np.int64)
        for row, value, null in zip(rows, values.tolist(), nulls[:, layout.bit[name]], strict=True):
            assert null == (row[name] is None)
            assert null or equal(row[name], value)


def test_nan_is_a_value_and_null_is_none() -> None:
    layout = Layout([{"name": "x", "dtype": "float64"}])
    decoded = layout.decode(encode(layout, [{"x": float("nan")}, {"x": None}, {"x": 0.0}]))
    assert decoded is not None
    assert layout.nulls(decoded)[:, 0].tolist() == [False, True, False]


@pytest.mark.parametrize("dtype", ["float64", "string", "array<float32>"])
def test_a_truncated_row_is_an_error_that_names_it(dtype: str) -> None:
    layout = Layout([{"name": "x", "dtype": dtype}, {"name": "y", "dtype": "int32"}])
    value = {"float64": 1.0, "string": "abc", "array<float32>": [1.0, 2.0]}[dtype]
    good, other = encode(layout, [{"x": value, "y": 1}, {"x": value, "y": 2}])
    for damaged in (other[:-1], other + b"x", other[:20], other[:9]):
        with pytest.raises(PlatformError, match="row 1 of the online store is damaged"):
            layout.decode([good, damaged])
    with pytest.raises(PlatformError, match=r"row 0 .* damaged"):
        split_by_schema([b"123"])


def test_two_damaged_rows_that_make_up_for_each_other_are_found() -> None:
    layout = Layout([{"name": "x", "dtype": "float64"}])
    one, two = encode(layout, [{"x": 1.0}, {"x": 2.0}])
    with pytest.raises(PlatformError, match=r"row 0 .* damaged"):
        layout.decode([one + b"xyz", two[3:]])


class View:
    def __init__(self, fields: list[dict[str, str]], features: list[str]) -> None:
        self.name, self.layout, self.features = "v", Layout(fields), features


def fields(**types: str) -> list[dict[str, str]]:
    return [{"name": name, "dtype": dtype} for name, dtype in types.items()]


def test_a_row_of_an_earlier_schema_is_read_by_that_schema() -> None:
    before = Layout(fields(a="float64", gone="string", b="int64"))
    view = View(fields(a="float64", b="int64", new="float32"), ["a", "b", "new"])
    old = encode(before, [{"a": 1.5, "gone": "x", "b": 2**62}])
    new = encode(view.layout, [{"a": 2.5, "b": None, "new": 4.0}])
    raw = [*old, None, *new]
    assert view.layout.decode(raw) is None
    known = {before.digest: before.document}
    decoded = view.layout.decode(translate(raw, view, known.get))
    assert decoded is not None
    assert view.layout.values(decoded, "a").tolist() == [1.5, 0, 2.5]
    assert view.layout.values(decoded, "b")[0] == 2**62
    assert view.layout.nulls(decoded).tolist()[0] == [False, False, True]
    assert view.layout.nulls(decoded).tolist()[2] == [False, True, False]


def test_a_schema_that_cannot_serve_the_plan_is_a_clear_error() -> None:
    before = Layout(fields(a="int64"))
    view = View(fields(a="float64"), ["a"])
    rows = encode(before, [{"a": 1}])
    with pytest.raises(PlatformError, match="has changed since") as caught:
        translate(rows, view, {before.digest: before.document}.get)
    assert "a was int64 and is float64" in caught.value.detail
    with pytest.raises(PlatformError, match="has changed since"):
        translate(rows, view, lambda digest: None)


keys = st.text() | st.sampled_from(["a|b", "a", "b", "a:b", "{a}", "\0", "é", "", ";", "driver"])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(keys, keys, st.integers(-(2**63), 2**63 - 1)), unique=True, min_size=2, max_size=6))
def test_different_keys_never_collide(pairs: list[tuple[str, str, int]]) -> None:
    join = [{"name": "one", "dtype": "string"}, {"name": "two", "dtype": "string"}, {"name": "n", "dtype": "int64"}]
    made = serialise_keys(join, {name: [p[at] for p in pairs] for at, name in enumerate(("one", "two", "n"))})
    assert len(set(made)) == len(pairs)


def test_keys_are_those_of_feast() -> None:
    from feature_repo.stores.fast_import import import_feast

    import_feast()
    from feast.infra.key_encoding_utils import serialize_entity_key
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    values = [Value(string_val="x|é"), Value(int64_val=-5), Value(int32_val=7)]
    theirs = serialize_entity_key(EntityKey(join_keys=["b", "a", "c"], entity_values=values), 3)
    join = [{"name": "b", "dtype": "string"}, {"name": "a", "dtype": "int64"}, {"name": "c", "dtype": "int32"}]
    assert serialise_keys(join, {"b": ["x|é"], "a": [-5], "c": [7]}) == [theirs]


@pytest.mark.parametrize(
    ("dtype", "value"), [("int64", 2**63), ("int32", 2**31), ("int64", "x"), ("string", None), ("string", float("nan"))]
)
def test_a_key_that_does_not_fit_is_named(dtype: str, value: Any) -> None:
    with pytest.raises(PlatformError, match="entity key 'k' has a value that is no"):
        serialise_keys([{"name": "k", "dtype": dtype}], {"k": [value]})


def test_a_missing_key_and_uneven_keys_are_named() -> None:
    join = [{"name": "a", "dtype": "string"}, {"name": "b", "dtype": "string"}]
    with pytest.raises(PlatformError, match="entity key 'b' is missing"):
        serialise_keys(join, {"a": ["1"]})
    with pytest.raises(PlatformError, match="different lengths"):
        serialise_keys(join, {"a": ["1"], "b": ["1", "2"]})
