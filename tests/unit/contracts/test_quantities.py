"""Kubernetes quantities, read and written."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import quantities
from contracts.quantities import parse, shown


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("500m", "0.5"), ("2", "2"), (2, "2"), ("0.1", "0.1"), ("1.5Gi", "1610612736"), ("128974848", "128974848"),
        ("129e6", "129000000"), ("129M", "129000000"), ("128974848000m", "128974848"), ("123Mi", "128974848"),
        ("1E3", "1000"), ("1E", "1000000000000000000"), ("100n", "1E-7"), ("8Ki", "8192"),
        (" 1k ", "1000"), (".5", "0.5"),
    ],
)  # fmt: skip
def test_what_kubernetes_documents(text: object, amount: str) -> None:
    assert parse(text) == Decimal(amount)


@pytest.mark.parametrize(
    "text", ["", "Gi", "2gb", "2 Gi", "2GiB", "1K", "1,5", "nan", "inf", "0x10", "1e", "--1", None]
)
def test_what_is_none(text: object) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        parse(text)


@given(st.integers(0, 2**62))
def test_memory_is_never_written_smaller_and_less_than_a_mebibyte_larger(size: int) -> None:
    again = parse(quantities.memory(size))
    assert size <= again < size + 2**20


@given(st.decimals(0, 10_000, places=6))
def test_cores_are_never_written_smaller_and_less_than_a_thousandth_larger(cores: Decimal) -> None:
    again = parse(quantities.cpu(cores))
    assert cores <= again < cores + Decimal("0.001")


@given(st.integers(0, 10**6), st.sampled_from(["", "m", "k", "M", "G", "Ki", "Mi", "Gi", "Ti"]))
def test_a_unit_is_a_factor(number: int, unit: str) -> None:
    assert parse(f"{number}{unit}") == number * parse(f"1{unit}")


def test_amounts_for_people() -> None:
    assert [quantities.shown(s) for s in (8 * 2**30, int(7.6 * 2**30), 64 * 2**20)] == ["8Gi", "7.6Gi", "64Mi"]
    assert [quantities.shown(parse(c), "") for c in ("4", "1500m")] == ["4", "1.5"]


@pytest.mark.parametrize(("size", "said"), [(0, "0Gi"), (300_000, "293Ki"), (3 << 20, "3Mi"), (3 << 30, "3Gi")])
def test_bytes_are_shown_in_the_unit_that_fits(size: int, said: str) -> None:
    assert shown(size) == said
