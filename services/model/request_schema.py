"""Which fields a request may carry: derived from the bundle's signature once, when the model is loaded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

import numpy as np

from contracts.bundle import Signature
from contracts.decoding import Sampling
from services.errors import invalid
from services.model.columns import Column, Errors, Field, Flags

VALUE = "instances[{row}].{name}"
T = TypeVar("T")


@dataclass(kw_only=True, slots=True)  # not frozen: that costs 2 us each
class Batch:
    """The checked rows of one request.

    Attributes:
        schema: ``by_entity`` (entity keys and request fields, features are looked up) or ``by_features`` (all inputs).
        columns: one array per field of the schema, `rows` values each.
        flags: per row, what is odd about it.
        where: names a value of the request in an error, of its row and field.
        prepared: each row as the engine takes it, such as its token ids; empty when it takes the columns.
        lengths: of the prepared rows, where rows of similar length should share a call.
        sampling: how the answers are drawn by chance; None: they are not. Prepared rows carry it.
    """

    schema: Literal["by_entity", "by_features"]
    rows: int
    columns: dict[str, Column]
    flags: Flags
    where: str = VALUE
    prepared: Sequence[Any] = ()
    lengths: Sequence[int] = ()
    sampling: Sampling | None = None


def copied(batch: Batch) -> Batch:
    """The same columns, with flags of its own."""
    return replace(batch, flags=[list(words) for words in batch.flags])


def part(batch: Batch, start: int, end: int) -> Batch:
    """The rows from `start` to `end`, of the same memory."""
    columns = {name: values[start:end] for name, values in batch.columns.items()}
    return Batch(
        schema=batch.schema,
        rows=end - start,
        columns=columns,
        flags=batch.flags[start:end],
        prepared=batch.prepared[start:end],
        lengths=batch.lengths[start:end],
    )


def merge(batches: Sequence[Batch]) -> Batch:
    """One batch of the rows of several of the same schema, in their order; its flags are copies."""
    columns = {name: np.concatenate([one.columns[name] for one in batches]) for name in batches[0].columns}
    flags = [list(words) for one in batches for words in one.flags]
    return Batch(
        schema=batches[0].schema,
        rows=len(flags),
        columns=columns,
        flags=flags,
        prepared=[row for one in batches for row in one.prepared],
        lengths=[length for one in batches for length in one.lengths],
    )


@dataclass(frozen=True)
class RequestSchema:
    """One way to ask for predictions: these fields, of which `optional` may be left out.

    clean: by field with personal data, what makes a value what the model has learned in its place.
    """

    name: Literal["by_entity", "by_features"]
    fields: tuple[Field, ...]
    optional: frozenset[str] = frozenset()
    clean: Mapping[str, Callable[[str], str]] = field(default_factory=dict)
    names: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", frozenset(item.name for item in self.fields))

    @property
    def absent(self) -> dict[str, Any]:
        """What a field that is left out stands for."""
        return {item.name: item.default for item in self.fields if item.name in self.optional}

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
        absent = self.absent
        return self.batch({
            item.name: [one.get(item.name, absent.get(item.name)) for one in instances] for item in self.fields
        })  # fmt: skip

    def batch(self, values: Mapping[str, Sequence[Any]], where: str = VALUE, *, learned: bool = False) -> Batch:
        """Check values by column, all of the same length; `where` names a value in the error.

        learned: the values are of the data set, in which nothing is left to `clean`.
        """
        rows = len(next(iter(values.values())))
        flags: Flags = [[] for _ in range(rows)]
        columns: dict[str, Column] = {}
        errors: list[tuple[str, str]] = []
        found: Errors = []
        for item in self.fields:
            given = values[item.name]
            if item.name in self.clean and not learned:
                given = self._cleaned(item, given)
            columns[item.name] = item.column(given, flags, found)
            if found:
                errors.extend((where.format(row=row, name=item.name), text) for row, text in found)
                found.clear()
        if errors:
            raise invalid(errors)
        return Batch(schema=self.name, rows=rows, columns=columns, flags=flags, where=where)

    def _cleaned(self, item: Field, values: Sequence[Any]) -> list[Any]:
        """Texts without personal data; what is refused anyway stays as it is."""
        clean = self.clean[item.name]
        return [clean(one) if type(one) is str and len(one) <= item.max_chars else one for one in values]

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
class RequestSchemas:
    """The schemas of one model; `by_entity` is None for a model whose inputs all come with the request."""

    by_entity: RequestSchema | None
    by_features: RequestSchema

    @classmethod
    def of(
        cls,
        signature: Signature,
        *,
        max_chars: int,
        lookup: bool,
        clean: Mapping[str, Callable[[str], str]],
        whose: str = "",
    ) -> RequestSchemas:
        """Derive the schemas; without `lookup` (no online store) only ``by_features`` is accepted.

        whose: the field that names an adapter; where the model does not ask for it, every row may have it beside.
        """
        may_lack = frozenset(item.name for item in signature.inputs if item.optional)
        given_all = tuple(Field.of(item, max_chars) for item in signature.inputs)
        beside = Field(name=whose, kind="input", default="", max_chars=256, description="whose adapter is wanted")
        if whose and whose not in {item.name for item in given_all}:
            given_all, may_lack = (*given_all, beside), may_lack | {whose}
        by_features = RequestSchema("by_features", given_all, may_lack, clean)
        if not lookup or not (signature.entities or signature.request):
            return cls(by_entity=None, by_features=by_features)
        given = {item.name: item for item in signature.inputs if item.source == "request"}
        given.update({item.name: item for item in signature.request})
        fields = [Field(name=name, kind="entity") for name in signature.entities]
        fields += [Field.of(item, max_chars) for item in given.values() if item.name != signature.timestamp]
        optional: frozenset[str] = frozenset()
        if signature.timestamp:
            fields.append(Field(name=signature.timestamp, kind="timestamp", description="default: now"))
            optional = frozenset({signature.timestamp})
        if whose and whose not in {item.name for item in fields}:
            fields, optional = [*fields, beside], optional | {whose}
        return cls(by_entity=RequestSchema("by_entity", tuple(fields), optional, clean), by_features=by_features)

    async def checked(self, check: Callable[[], T]) -> T:
        """What `check` makes of a request; on another thread where texts are cleaned, which takes a while."""
        return await asyncio.to_thread(check) if self.by_features.clean else check()

    @property
    def main(self) -> RequestSchema:
        """The schema that clients are told first."""
        return self.by_entity or self.by_features

    def choose(self, names: Sequence[str]) -> RequestSchema:
        """The schema that a request with fields `names` means; the first one when in doubt."""
        if self.by_entity is None or self.by_entity.names.issuperset(names):
            return self.main
        if not (self.by_entity.names - self.by_features.names).isdisjoint(names):
            return self.by_entity
        return (
            self.by_features
            if not (self.by_features.names - self.by_entity.names).isdisjoint(names)
            else self.by_entity
        )
