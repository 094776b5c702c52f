"""Who takes part in the benchmark of reading features, all on one Redis with the same values."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import redis
import yaml

from tests.integration import redis_servers as servers

ENTITIES, NOW = 20_000, int(time.time() * 1e6) - 60_000_000
FEAST_ENTITIES = 500  # of these, Feast's own stores get so many: writing is slow there, and reading costs the same
MIXED = ["int64", "float32", "float32", "string", "bool", "float32", "float64", "int64", "float32", "string"]


@dataclass(frozen=True)
class Case:
    """`views` feature views of `types`, read together."""

    name: str
    label: str
    views: int
    types: tuple[str, ...]

    def view(self, at: int) -> str:
        return f"{self.name}{at}"

    def fields(self, at: int) -> list[dict[str, str]]:
        return [{"name": f"{self.view(at)}_f{i}", "dtype": dtype} for i, dtype in enumerate(self.types)]

    def plan(self) -> dict[str, Any]:
        keys = [{"name": "driver", "dtype": "string"}]
        views = [
            {"name": self.view(at), "join_keys": keys, "features": self.fields(at), "ttl_seconds": 86_400}
            for at in range(self.views)
        ]
        return {"project": "bench", "views": views}


CASES = [
    Case("a", "1 view x 10 float32", 1, ("float32",) * 10),
    Case("b", "5 views x 10 mixed", 5, tuple(MIXED)),
    Case("c", "5 views x 50 float32", 5, ("float32",) * 50),
]


def names(n: int) -> list[str]:
    return [f"D{at:06d}" for at in range(n)]


def values(dtype: str, n: int, seed: int) -> Any:
    """n values of a type."""
    r = np.random.default_rng(seed)
    if dtype == "string":
        return [f"word-{number}" for number in r.integers(0, 10_000, n)]
    return {"bool": r.random(n) < 0.5, "int64": r.integers(-(2**40), 2**40, n)}.get(dtype, r.random(n))


def fill(address: str, case: Case, entities: int = ENTITIES) -> None:
    """All rows of a case in the packed store."""
    from feature_repo.stores.backend_redis import RedisBackend
    from feature_repo.stores.keys import serialise_keys
    from feature_repo.stores.packed_rows import Layout, to_bytes

    backend = RedisBackend(address, writing=True)
    keys = serialise_keys(case.plan()["views"][0]["join_keys"], {"driver": names(entities)})
    for at in range(case.views):
        layout, given = Layout(case.fields(at)), {}
        for i, (name, dtype) in enumerate(layout.fields):
            column = values(dtype, entities, at * 100 + i)
            given[name] = [to_bytes(value, dtype) for value in column] if dtype == "string" else column
        rows = layout.encode(given, {}, np.full(entities, NOW), np.full(entities, 0))
        backend.store("bench", case.view(at), layout, keys, rows, 86_400)


def floor(address: str, case: Case, port: int) -> Callable[[list[str]], Any]:
    """A raw MGET of the packed bytes by redis-py, with the names of the rows known beforehand."""
    from feature_repo.stores.backend_redis import redis_keys
    from feature_repo.stores.keys import serialise_keys

    client = redis.Redis(port=port, protocol=2)
    join_keys = case.plan()["views"][0]["join_keys"]
    asked: dict[tuple[str, ...], list[bytes]] = {}

    def prepare(drivers: list[str]) -> list[bytes]:
        if tuple(drivers) not in asked:
            keys = serialise_keys(join_keys, {"driver": drivers})
            asked[tuple(drivers)] = [
                row for at in range(case.views) for row in redis_keys("bench", case.view(at), keys)
            ]
        return asked[tuple(drivers)]

    def read(drivers: list[str]) -> Any:
        return client.mget(prepare(drivers))

    read.prepare = prepare  # type: ignore[attr-defined]
    return read


def ours(address: str, case: Case) -> Callable[[list[str]], Any]:
    """Every column as models take it, and the status of every value."""
    from feature_repo.stores.reader import OnlineReader

    reader = OnlineReader(case.plan(), address + "?deadline=5&on_failure=refuse")

    def read(drivers: list[str]) -> Any:
        found = reader.read({"driver": drivers})
        return found.columns, found.value_status

    return read


def feast_store(folder: Path, port: int) -> Any:
    """Feast on its own Redis store, with all cases materialised."""
    from feast import FeatureService, FeatureStore, Field

    from tests import feature_stores as stores

    kinds = {"float32": stores.Float32, "float64": stores.Float64, "int64": stores.Int64, "bool": stores.Bool}
    config = {
        "project": "peers",
        "provider": "local",
        "registry": {"registry_type": "file", "path": str(folder / "registry.db")},
        "online_store": {"type": "redis", "connection_string": f"127.0.0.1:{port}"},
        "entity_key_serialization_version": 3,
    }
    (folder / "feature_store.yaml").write_text(yaml.safe_dump(config))
    store = FeatureStore(repo_path=str(folder))
    views, services, owners = [], [], []
    for case in CASES:
        mine = []
        for at in range(case.views):
            view, owners = stores.view_of(case.view(at), ["x"], ttl=stores.timedelta(days=1))
            fields = [Field(name=f["name"], dtype=kinds.get(f["dtype"], stores.String)) for f in case.fields(at)]
            schema = [Field(name="driver", dtype=stores.String), *fields]
            kind = type(view)
            mine.append(kind(name=view.name, entities=owners, ttl=view.ttl, source=view.batch_source, schema=schema))
            frame = frame_of(case, at)
            frame.to_parquet(folder / f"{case.view(at)}.parquet")
        views += mine
        services.append(FeatureService(name=case.name, features=mine))
        services.append(FeatureService(name=f"{case.name}_pre", features=mine, precompute_online=True))
    with quiet():
        store.apply([*owners, *views, *services])
        for case in CASES:
            for at in range(case.views):
                store.write_to_online_store(case.view(at), df=frame_of(case, at))
            store.precompute_feature_service(f"{case.name}_pre")
    return store


def frame_of(case: Case, at: int) -> pd.DataFrame:
    fields = {
        f["name"]: values(f["dtype"], ENTITIES, at * 100 + i)[:FEAST_ENTITIES] for i, f in enumerate(case.fields(at))
    }
    event = pd.to_datetime([NOW] * FEAST_ENTITIES, unit="us", utc=True)
    return pd.DataFrame({"driver": names(FEAST_ENTITIES), "event": event, **fields})


def feast_readers(store: Any, case: Case) -> dict[str, Callable[[list[str]], Any]]:
    """Feast's SDK as protobuf and as a dictionary, and its precomputed service."""
    service, ready = store.get_feature_service(case.name), store.get_feature_service(f"{case.name}_pre")

    def ask(drivers: list[str], features: Any, full: bool = False) -> Any:
        rows = {"driver": drivers}
        return store.get_online_features(features=features, entity_rows=rows, full_feature_names=full)

    return {
        "feast SDK .proto": lambda drivers: ask(drivers, service).proto,
        "feast SDK .to_dict()": lambda drivers: ask(drivers, service).to_dict(),
        "feast precomputed .proto": lambda drivers: ask(drivers, ready, True).proto,
    }


@contextlib.contextmanager
def feast_server(folder: Path) -> Iterator[Callable[[Case], Callable[[list[str]], Any]]]:
    """Feast's HTTP server with one worker."""
    port = servers.free_port()
    feast = str(Path(sys.executable).with_name("feast"))
    command = [feast, "-c", str(folder), "serve", "--port", str(port), "--workers", "1", "--no-access-log"]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "FEAST_USAGE": "False"}
    )
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
    try:
        for _ in range(300):
            with contextlib.suppress(httpx.HTTPError):
                if client.get("/health").status_code == 200:
                    break
            time.sleep(0.2)

        def reader(case: Case) -> Callable[[list[str]], Any]:
            def read(drivers: list[str]) -> Any:
                body = {"feature_service": case.name, "entities": {"driver": drivers}}
                answer = client.post("/get-online-features", json=body)
                answer.raise_for_status()
                return answer.json()

            return read

        yield reader
    finally:
        client.close()
        process.terminate()
        process.wait(20)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without Feast's chatter."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield
