"""Which fields a request may carry: derived from the bundle's signature once, when the model is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from contracts.bundle import Signature
from services.errors import invalid
from services.model.columns import Column, Errors, Field, Flags

VALUE = "instances[{row}].{name}"


@dataclass(kw_only=True, slots=True)  # not frozen: that costs 2 us each
class Batch:
    """The checked rows of one request.

    Attributes:
        form: ``raw`` (entity keys and request fields, features are looked up) or ``direct`` (all inputs given).
        columns: one array per field of the form, `rows` values each.
        flags: per row, what is odd about it.
        where: names a value of the request in an error, of its row and field.
    """

    form: Literal["raw", "direct"]
    rows: int
    columns: dict[str, Column]
    flags: Flags
    where: str = VALUE


def copied(batch: Batch) -> Batch:
    """The same columns, with flags of its own."""
    return Batch(form=batch.form, rows=batch.rows, columns=batch.columns, flags=[list(words) for words in batch.flags])


def part(batch: Batch, start: int, end: int) -> Batch:
    """The rows from `start` to `end`, of the same memory."""
    columns = {name: values[start:end] for name, values in batch.columns.items()}
    return Batch(form=batch.form, rows=end - start, columns=columns, flags=batch.flags[start:end])


def merge(batches: Sequence[Batch]) -> Batch:
    """One batch of the rows of several of the same form, in their order; its flags are copies."""
    columns = {name: np.concatenate([one.columns[name] for one in batches]) for name in batches[0].columns}
    flags = [list(words) for one in batches for words in one.flags]
    return Batch(form=batches[0].form, rows=len(flags), columns=columns, flags=flags)


@dataclass(frozen=True)
class Form:
    """One way to ask for predictions: these fields, of which `optional` may be left out."""

    name: Literal["raw", "direct"]
    fields: tuple[Field, ...]
    optional: frozenset[str] = frozenset()
    names: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", frozenset(item.name for item in self.fields))

    def rows(self, instances: Sequence[Any]) -> Batch:
        """Check JSON objects, one per row.

        Raises:
            Problem: 422, naming every unknown, missing and wrong field by row.
        """
        errors: list[tuple[str, str]] = []
        for row, instance in enumerate(instances):
            if type(instance) is not dict:
                errors.append((f"instances[{row}]", "expected an object with one value per field"))
            elif instance.keys() != self.names:
                errors.extend(self._wrong_keys(row, instance))
        if errors:
            raise invalid(errors)
        return self.batch({item.name: [one.get(item.name) for one in instances] for item in self.fields})

    def batch(self, values: Mapping[str, Sequence[Any]], where: str = VALUE) -> Batch:
        """Check values by column, all of the same length; `where` names a value in the error."""
        rows = len(next(iter(values.values())))
        flags: Flags = [[] for _ in range(rows)]
        columns: dict[str, Column] = {}
        errors: list[tuple[str, str]] = []
        found: Errors = []
        for item in self.fields:
            columns[item.name] = item.column(values[item.name], flags, found)
            if found:
                errors.extend((where.format(row=row, name=item.name), text) for row, text in found)
                found.clear()
        if errors:
            raise invalid(errors)
        return Batch(form=self.name, rows=rows, columns=columns, flags=flags, where=where)

    def _wrong_keys(self, row: int, instance: Mapping[str, Any]) -> list[tuple[str, str]]:
        accepted = ", ".join(item.name for item in self.fields)
        unknown = [
            (f"instances[{row}].{name[:64]}", f"unknown field; accepted: {accepted}")
            for name in instance
            if name not in self.names
        ]
        missing = [
            (f"instances[{row}].{item.name}", "missing; send null when the value is not known")
            for item in self.fields
            if item.name not in instance and item.name not in self.optional
        ]
        return unknown + missing


@dataclass(frozen=True, kw_only=True)
class Forms:
    """The forms of one model; `raw` is None for a model whose inputs all come directly."""

    raw: Form | None
    direct: Form

    @classmethod
    def of(cls, signature: Signature, *, max_chars: int, lookup: bool) -> Forms:
        """Derive the forms; without `lookup` (no online store) only ``direct`` is accepted."""
        direct = Form("direct", tuple(Field.of(item, max_chars) for item in signature.inputs))
        if not lookup or not (signature.entities or signature.request):
            return cls(raw=None, direct=direct)
        given = {item.name: item for item in signature.inputs if item.source == "request"}
        given.update({item.name: item for item in signature.request})
        fields = [Field(name=name, kind="entity") for name in signature.entities]
        fields += [Field.of(item, max_chars) for item in given.values() if item.name != signature.timestamp]
        optional: frozenset[str] = frozenset()
        if signature.timestamp:
            fields.append(Field(name=signature.timestamp, kind="timestamp", description="default: now"))
            optional = frozenset({signature.timestamp})
        return cls(raw=Form("raw", tuple(fields), optional), direct=direct)

    @property
    def main(self) -> Form:
        """The form that clients are told first."""
        return self.raw or self.direct

    def choose(self, names: Sequence[str]) -> Form:
        """The form that a request with fields `names` means; the first one when in doubt."""
        if self.raw is None or self.raw.names.issuperset(names):
            return self.main
        if not (self.raw.names - self.direct.names).isdisjoint(names):
            return self.raw
        return self.direct if not (self.direct.names - self.raw.names).isdisjoint(names) else self.raw
