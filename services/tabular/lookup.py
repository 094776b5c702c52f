"""Online features for the tabular service: entity keys to the model's inputs, by the plan in the bundle."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

import numpy as np

from contracts.bundle import Bundle, Signature
from contracts.errors import PlatformError
from services.errors import Problem, invalid
from services.metrics.service_metrics import STATUSES, ServiceMetrics
from services.model.columns import Column
from services.model.request_schema import Batch
from services.settings import ServiceSettings

Transform = Callable[[Mapping[str, Any], dict[str, Column]], Mapping[str, Column]]


class Reader(Protocol):
    """What is needed of `feature_repo.stores.reader.OnlineReader`."""

    def read(self, keys: dict[str, list[Any]], moment: datetime | None) -> Any:
        """An object with `columns`, `status` per view and `age_seconds` per view."""
        ...


def open_lookup(bundle: Bundle, settings: ServiceSettings) -> FeatureLookup | None:
    """The lookup of a bundle; None when it needs no features, or when there is no online store to read from.

    Raises:
        PlatformError: the store cannot be read, or the plan does not give every input of the model.
    """
    signature = bundle.document.signature
    plan = bundle.read_json("features.json")
    if not signature.entities and not signature.request:
        return None
    if not plan:
        raise PlatformError(
            f"{bundle.document.name} takes entity keys but has no features.json",
            fix="publish the model again",
            code="bad_bundle",
        )
    if signature.entities and not settings.online:
        return None
    from feature_repo.stores.reader import OnlineReader, apply_transforms

    lookup = FeatureLookup(plan, signature, OnlineReader(plan, settings.online), apply_transforms)
    lookup.prove()
    return lookup


class FeatureLookup:
    """Reads online features and derives the on-demand ones.

    Args:
        plan: the bundle's ``features.json``.
        reader: of the online store.
        transform: computes the on-demand features of the plan from request fields and online features.
    """

    def __init__(self, plan: Mapping[str, Any], signature: Signature, reader: Reader, transform: Transform) -> None:
        self._plan, self._signature, self._reader, self._transform = plan, signature, reader, transform
        self.views = tuple(view["name"] for view in plan["views"])
        keys = [key for view in plan["views"] for key in view["join_keys"]]
        self._whole = {key["name"]: int(key["dtype"][3:]) for key in keys if key["dtype"].startswith("int")}
        found = [item for item in signature.inputs if item.source != "request"]
        self._defaults = {item.name: item.default for item in found if item.default is not None}

    def prove(self) -> None:
        """Look an entity up that does not exist, to be warm and to be sure that the plan gives every input.

        Raises:
            PlatformError: the store cannot be read, or an input is missing.
        """
        nobody = {name: np.array([0 if name in self._whole else "?"], object) for name in self._signature.entities}
        columns: dict[str, Column] = dict(nobody)
        for item in self._signature.request:
            columns[item.name] = np.array([""], object) if item.dtype == "string" else np.zeros(1)
        if self._signature.timestamp:
            columns[self._signature.timestamp] = np.array([datetime.now(UTC).replace(tzinfo=None)], "M8[us]")
        try:
            given = self._complete(Batch(schema="by_entity", rows=1, columns=columns, flags=[[]]), None)
        except (sqlite3.Error, OSError) as err:
            raise PlatformError(
                "the online store cannot be read",
                detail=str(err),
                fix="materialise the features, and check FAIRLEAD_SERVICE_ONLINE",
                code="features_unavailable",
            ) from err
        needed = [item.name for item in self._signature.inputs if item.source != "request"]
        if missing := [name for name in needed if name not in given]:
            raise PlatformError(
                f"the feature plan does not give input {missing[0]!r}",
                detail=f"it gives: {', '.join(sorted(given))}",
                fix="publish the model again",
                code="bad_bundle",
            )

    def join(self, batch: Batch, metrics: ServiceMetrics) -> dict[str, Column]:
        """The columns of `batch`, the online and the on-demand features; flags rows with nothing or old values.

        Raises:
            Problem: 422 for a key of the wrong type, 503 when the store cannot be read.
        """
        try:
            return self._complete(batch, metrics)
        except (PlatformError, sqlite3.Error, OSError) as err:
            raise Problem(
                503,
                "features-unavailable",
                "the online features cannot be read",
                type(err).__name__,
                fix="try again, or send all inputs of the model",
                headers={"retry-after": "1"},
            ) from err

    def _complete(self, batch: Batch, metrics: ServiceMetrics | None) -> dict[str, Column]:
        columns = dict(batch.columns)
        if self._signature.entities:
            keys = {name: self._keys(name, columns[name]) for name in self._signature.entities}
            stamp = self._signature.timestamp
            groups = _same_moment(columns[stamp]) if stamp else [(datetime.now(UTC), list(range(batch.rows)))]
            parts = [self._read(keys, moment, rows, batch, metrics) for moment, rows in groups]
            order = np.argsort(np.concatenate([rows for _, rows in groups]), kind="stable")
            for name in parts[0]:
                joined = parts[0][name] if len(parts) == 1 else np.concatenate([part[name] for part in parts])[order]
                columns[name] = joined
        columns.update(self._transform(self._plan, columns))
        for name, default in self._defaults.items():
            columns[name] = _filled(columns[name], default)
        return columns

    def _read(
        self,
        keys: Mapping[str, list[Any]],
        moment: datetime,
        rows: list[int],
        batch: Batch,
        metrics: ServiceMetrics | None,
    ) -> Mapping[str, Column]:
        whole = len(rows) == batch.rows
        read = self._reader.read(
            {name: values if whole else [values[row] for row in rows] for name, values in keys.items()}, moment
        )
        for view, statuses in read.status.items():
            for row, status in zip(rows, statuses, strict=True):
                if status != "PRESENT":
                    batch.flags[row].append(f"{status.lower()}:{view}")
                if metrics is not None and status in STATUSES:
                    metrics.status[view][status].inc()
        if metrics is not None:
            for view, ages in read.age_seconds.items():
                for age in ages:
                    if age == age and age is not None:
                        metrics.age[view].observe(max(0.0, float(age)))
        columns: Mapping[str, Column] = read.columns
        return columns

    def _keys(self, name: str, values: Column) -> list[Any]:
        if name not in self._whole:
            return [str(value) for value in values]
        bits = self._whole[name]
        keys, errors = [], []
        for row, value in enumerate(values):
            try:
                keys.append(int(value))
                fits = -(2 ** (bits - 1)) <= keys[-1] < 2 ** (bits - 1)
            except ValueError:
                fits = False
            if not fits:
                errors.append((f"instances[{row}].{name}", f"expected an integer of {bits} bits"))
        if errors:
            raise invalid(errors)
        return keys


def _same_moment(moments: Column) -> list[tuple[datetime, list[int]]]:
    """Rows by moment; requests nearly always have one."""
    groups: dict[datetime, list[int]] = {}
    for row, moment in enumerate(moments.tolist()):
        groups.setdefault(moment.replace(tzinfo=UTC), []).append(row)
    return list(groups.items())


def _filled(values: Column, default: float | int | str) -> Column:
    missing = np.isnan(values) if values.dtype.kind == "f" else values == None  # noqa: E711 - elementwise
    return np.where(missing, default, values) if np.any(missing) else values
