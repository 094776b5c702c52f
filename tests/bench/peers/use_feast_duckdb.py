"""A point-in-time join by Feast's own duckdb store: ``python use_feast_duckdb.py FOLDER``, in ``build/peers/feast``.

FOLDER has the history, ``v.parquet``, and the rows to join, ``entities.parquet``. Each line on standard input is a join
more: its result is ``joined.parquet``, and its seconds are printed.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float32, Int64


def open_store(folder: Path, names: list[str]) -> FeatureStore:
    """Feast's repository of one view, with its duckdb store."""
    config = RepoConfig(
        project="peer",
        provider="local",
        registry=str(folder / "peer-registry.db"),
        offline_store={"type": "duckdb"},
        online_store={"type": "sqlite", "path": str(folder / "peer.db")},
        entity_key_serialization_version=3,
        repo_path=folder,
    )
    store = FeatureStore(config=config)
    driver = Entity(name="driver", join_keys=["driver"], value_type=ValueType.INT64)
    source = FileSource(name="v", path=str(folder / "v.parquet"), timestamp_field="event")
    schema = [Field(name="driver", dtype=Int64), *(Field(name=name, dtype=Float32) for name in names)]
    store.apply([driver, FeatureView(name="v", entities=[driver], ttl=None, source=source, schema=schema)])
    return store


def main(folder: Path) -> None:
    names = [f"x{at}__f32" for at in range(10)]
    store, frame = open_store(folder, names), pd.read_parquet(folder / "entities.parquet")
    print("ready", flush=True)  # noqa: T201 - read by the benchmark
    for _ in sys.stdin:
        start = time.perf_counter()
        joined = store.get_historical_features(features=[f"v:{name}" for name in names], entity_df=frame).to_df()
        seconds = time.perf_counter() - start
        joined.to_parquet(folder / "joined.parquet")
        print("took", seconds, flush=True)  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]))
