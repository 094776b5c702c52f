"""What is known of a plan's views before anything is read: where each value lies in a row, and where it will go."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from contracts.errors import PlatformError
from feature_repo.stores.packed_rows import FIXED, Layout

_CODES = {"float64": "d", "int64": "q", "timestamp": "q", "float32": "f", "int32": "i", "bool": "B"}  # of struct
_FOREVER = 2**62  # microseconds; moments minus it still fit in 64 bits


class Block(NamedTuple):
    """The values of one type in the rows of a view; they go to rows `first` to `last` of the matrix of all numbers."""

    first: int
    last: int
    dtype: np.dtype[Any]
    width: int
    offset: int
    pick: list[int] | None
    """Which of them are used; None for all."""
    is_timestamp: bool


class View:
    """One view of the plan. `names` tells whether two views have the same join keys."""

    def __init__(self, view: Mapping[str, Any], first: int) -> None:
        self.document, self.name, self.join_keys = view, view["name"], view["join_keys"]
        self.names = tuple(f"{key['name']}:{key['dtype']}" for key in view["join_keys"])
        self.layout = Layout(view.get("fields") or view["features"])
        self.size = self.layout.dtype.itemsize
        self.features: list[str] = [feature["name"] for feature in view["features"]]
        self.ttl_micros = view["ttl_seconds"] * 1_000_000
        self.numbers: list[str] = []
        self.blocks = [self._block(group, names, first) for group, names in self.layout.filled]
        self.row = struct.Struct(
            "<24x" + "".join(f"{len(names)}{_CODES[group]}" for group, names in self.layout.filled)
        )
        self.plain = all(block.pick is None and not block.is_timestamp for block in self.blocks)
        self.texts = [name for name, _ in self.layout.variable if name in self.features]

    def _block(self, group: str, names: Sequence[str], first: int) -> Block:
        used = [at for at, name in enumerate(names) if name in self.features]
        start = first + len(self.numbers)
        self.numbers += [names[at] for at in used]
        pick = None if len(used) == len(names) else used
        offset, dtype = self.layout.dtype.fields[group][1], np.dtype(FIXED[group])  # type: ignore[index]
        return Block(start, start + len(used), dtype, len(names), offset, pick, group == "timestamp")


class Views:
    """All views of a plan.

    Attributes:
        numbers: names of the rows of the matrix of numbers.
        schemas, limits: (views, 1): schema hashes as in rows, times to live in microseconds.
        counts, widths: how many rows of the matrix of numbers, and how many features, each view has.
        values: each view's slice of the (n, all) matrix of statuses.
        number_bits, value_bits: where the nulls of either are among the bits of all null bitmaps, side by side.
        first_bits: where each view's begin.
        by_struct: whether the numbers of one entity are read faster one by one: where they are of many types.
    """

    def __init__(self, plan: Mapping[str, Any]) -> None:
        self.all: list[View] = []
        self.numbers: list[str] = []
        self.values: list[slice] = []
        self.first_bits: list[int] = []
        number_bits: list[int] = []
        value_bits: list[int] = []
        bits = values = 0
        for document in plan["views"]:
            view = View(document, len(self.numbers))
            self.all.append(view)
            self.numbers += view.numbers
            self.values.append(slice(values, values + len(view.features)))
            self.first_bits.append(bits)
            number_bits += [bits + view.layout.bit[name] for name in view.numbers]
            value_bits += [bits + view.layout.bit[name] for name in view.features]
            bits, values = bits + 8 * view.layout.null_bytes, self.values[-1].stop
        self.place = {view.name: at for at, view in enumerate(self.all)}
        blocks = sum(len(view.blocks) for view in self.all)
        self.by_struct = all(view.plain for view in self.all) and len(self.numbers) < 8 * blocks
        self.number_bits, self.value_bits = np.array(number_bits, np.intp), np.array(value_bits, np.intp)
        self.counts = np.array([len(view.numbers) for view in self.all])
        self.widths = np.array([len(view.features) for view in self.all])
        numbers = [int.from_bytes(view.layout.digest, "little", signed=True) for view in self.all]
        self.schemas = np.array(numbers, dtype=np.int64).reshape(-1, 1)
        self.limits = np.array([view.ttl_micros or _FOREVER for view in self.all], dtype=np.int64).reshape(-1, 1)

    def of(self, feature: str) -> int:
        """The place of the view that has a feature.

        Raises:
            PlatformError: none has.
        """
        for at, view in enumerate(self.all):
            if feature in view.features:
                return at
        known = ", ".join(name for view in self.all for name in view.features)
        raise PlatformError(f"feature {feature!r} was not read", detail=f"read: {known}")
