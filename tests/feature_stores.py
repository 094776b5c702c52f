"""A Feast repository for tests of the stores: ours or Feast's own, in SQLite or Redis."""

from __future__ import annotations

import contextlib
import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.stores.fast_import import import_feast

import_feast()

from feast import Entity, FeatureService, FeatureView, Field, FileSource, RepoConfig, ValueType  # noqa: E402
from feast.types import (  # noqa: E402
    Array,
    Bool,
    Bytes,
    Float32,
    Float64,
    Int32,
    Int64,
    String,
    UnixTimestamp,
)

from feature_repo.stores.push import CheckedStore  # noqa: E402

START = datetime(2026, 1, 1, tzinfo=UTC)
OURS = {
    "offline_store": {"type": "feature_repo.stores.offline.DuckDBOfflineStore"},
    "batch_engine": {"type": "feature_repo.stores.engine.PackedEngine"},
}
TYPES: dict[str, Any] = {
    "f64": Float64,
    "f32": Float32,
    "i64": Int64,
    "i32": Int32,
    "flag": Bool,
    "at": UnixTimestamp,
    "name": String,
    "raw": Bytes,
    "vector": Array(Float32),
    "words": Array(String),
}
ARROW = {
    "f64": pa.float64(),
    "f32": pa.float32(),
    "i64": pa.int64(),
    "i32": pa.int32(),
    "flag": pa.bool_(),
    "at": pa.timestamp("us", "UTC"),
    "name": pa.string(),
    "raw": pa.binary(),
    "vector": pa.list_(pa.float32()),
    "words": pa.list_(pa.string()),
}


def second(number: float) -> datetime:
    """A moment, `number` seconds after the start."""
    return START + timedelta(seconds=number)


def write_history(folder: Path, view: str, rows: list[dict[str, Any]], types: dict[str, Any] | None = None) -> Path:
    """Rows of ``driver`` (or any keys), ``event`` and features as ``<view>.parquet``."""
    types = {**ARROW, **(types or {})}
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: pa.array([row.get(name) for row in rows], types.get(name)) for name in names}
    path = folder / f"{view}.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def view_of(
    name: str, features: list[str], *, ttl: timedelta | None = None, created: str = "", path: str = "", **keys: Any
) -> Any:
    """A feature view over ``<name>.parquet``; `keys` are join keys with their type (default: ``driver``, a string)."""
    kinds = {String: ValueType.STRING, Int64: ValueType.INT64}
    keys = keys or {"driver": String}
    entities = [Entity(name=key, join_keys=[key], value_type=kinds[kind]) for key, kind in keys.items()]
    source = FileSource(
        name=name, path=path or f"{name}.parquet", timestamp_field="event", created_timestamp_column=created
    )
    schema = [Field(name=key, dtype=kind) for key, kind in keys.items()]
    schema += [Field(name=feature, dtype=TYPES.get(feature.split("__")[-1], Float64)) for feature in features]
    return FeatureView(name=name, entities=entities, ttl=ttl, source=source, schema=schema), entities


def make_store(folder: Path, views: list[Any], *, online: Any = None, registry: Any = None, **config: Any) -> Any:
    """A store with `views` (of `view_of`) and the feature service ``all`` applied; ours unless `config` says else."""
    address = online or {"type": "feature_repo.stores.online.PackedOnlineStore", "address": str(folder / "online.db")}
    settings = {
        "project": "test",
        "provider": "feature_repo.stores.push.CheckedProvider",
        "registry": registry or {"registry_type": "file", "path": str(folder / "registry.db")},
        "online_store": address,
        "entity_key_serialization_version": 3,
        "materialization": {"pull_latest_features": True},
        "repo_path": folder,
        **OURS,
        **config,
    }
    store = CheckedStore(config=RepoConfig(**settings))
    entities = {entity.name: entity for _, mine in views for entity in mine}
    made = [view for view, _ in views]
    with contextlib.redirect_stdout(io.StringIO()):
        store.apply([*entities.values(), *made, FeatureService(name="all", features=made)])
    return store


def materialise(store: Any, until: datetime, since: datetime = datetime(1970, 1, 1, tzinfo=UTC)) -> None:
    """Bring the newest rows online, without Feast's chatter."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        store.materialize(since, until)


def engine(folder: Path, address: str = "") -> Any:
    """Our engine over both of our stores, without a registry."""
    from feature_repo.stores.engine import PackedEngine
    from feature_repo.stores.offline import DuckDBOfflineStore
    from feature_repo.stores.online import PackedOnlineStore

    online = {"type": "feature_repo.stores.online.PackedOnlineStore", "address": address or str(folder / "online.db")}
    config = RepoConfig(
        project="test",
        provider="feature_repo.stores.push.CheckedProvider",
        registry={"registry_type": "file", "path": str(folder / "registry.db")},
        online_store=online,
        entity_key_serialization_version=3,
        repo_path=folder,
        **OURS,
    )
    return PackedEngine(repo_config=config, offline_store=DuckDBOfflineStore(), online_store=PackedOnlineStore())


def materialise_view(engine: Any, view: Any, since: datetime, until: datetime) -> int:
    """Bring the newest rows of one view online; how many there were."""
    from feast.infra.common.materialization_job import MaterializationTask

    from feature_repo.stores.engine import materialise_view

    task = MaterializationTask(project="test", feature_view=view, start_time=since, end_time=until)
    return max(materialise_view(engine, task), default=0)


def reader(store: Any, address: str = "") -> Any:
    """The reader of the service ``all``."""
    from feature_repo.stores.plan import compile_plan
    from feature_repo.stores.reader import OnlineReader

    plan = compile_plan(store, "all", "event_timestamp")
    return OnlineReader(plan, address or store.config.online_store.address)


def frame(drivers: list[Any], moments: list[datetime], **columns: Any) -> pd.DataFrame:
    """Entity rows."""
    return pd.DataFrame({"driver": drivers, "event_timestamp": pd.to_datetime(moments, utc=True), **columns})


def same(left: Any, right: Any) -> bool:
    """Whether two columns have the same values, nulls included."""
    return bool(np.array_equal(np.array(left, object), np.array(right, object)))
