"""What is served beside what the history says: a sample of entities, view by view."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from contracts import metric_names as names

_BINS = 10
_HISTORY_ROWS = 200_000  # of the history that drift is measured against


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Some entities of a view as they are served at `moment`.

    Attributes:
        entities: how many the view has online.
        newest: seconds since the newest event of the sample, by the clock; NaN for none.
    """

    entities: int
    keys: dict[str, list[Any]]
    read: Any
    newest: float

    @property
    def size(self) -> int:
        return len(next(iter(self.keys.values()), []))

    def shown(self, name: str, count: int) -> list[Any]:
        """Some values of a feature."""
        return [None if value != value else value for value in self.read.columns[name][:count].tolist()]

    def missing(self, feature: Mapping[str, str]) -> float:
        """Share of values that are not served."""
        statuses = self.read.statuses(feature["name"])
        return float(sum(status != "PRESENT" for status in statuses) / max(1, len(statuses)))


def served_sample(plan: Mapping[str, Any], view: Mapping[str, Any], online: str, limit: int) -> Sample:
    """Read some entities of a view at the moment up to which the plan's history is known."""
    from feature_repo.stores.backend import open_backend
    from feature_repo.stores.keys import deserialise_key
    from feature_repo.stores.reader import OnlineReader

    backend = open_backend(online)
    found = [deserialise_key(key) for key, _ in backend.sample(plan["project"], view["name"], limit)]
    keys = {key["name"]: [row[key["name"]] for row in found] for key in view["join_keys"]}
    moment = datetime.fromisoformat(plan["known_until"])
    read = OnlineReader({**plan, "views": [view]}, online).read(keys, moment)
    ages = np.array(read.age_seconds[view["name"]], dtype=float)
    since = (datetime.now(UTC) - moment).total_seconds()
    newest = float(np.nanmin(ages)) + since if len(found) else float("nan")
    return Sample(entities=backend.count(plan["project"], view["name"]), keys=keys, read=read, newest=newest)


def compare(plan: Mapping[str, Any], view: Mapping[str, Any], folder: Path, online: str, limit: int) -> dict[str, Any]:
    """Parity, freshness, missing rate and drift of one view."""
    import pandas as pd

    from feature_repo.stores.join import point_in_time_join

    sample = served_sample(plan, view, online, limit)
    moment = datetime.fromisoformat(plan["known_until"])
    frame = pd.DataFrame(
        {**sample.keys, plan["timestamp"]: pd.Series([moment] * sample.size, dtype="datetime64[us, UTC]")}
    )
    joined = point_in_time_join({**plan, "views": [view]}, folder, frame)
    different = np.zeros(sample.size, dtype=bool)
    for feature in view["features"]:
        different |= ~_same(sample.read.columns[feature["name"]], joined[feature["name"]])
    drift, drifted = _drift(view, folder, sample)
    at = int(different.argmax()) if different.any() else -1
    return {
        "view": view["name"],
        "entities": sample.size,
        "different": int(different.sum()),
        "example": {name: values[at] for name, values in sample.keys.items()} if at >= 0 else None,
        "newest_seconds_ago": sample.newest,
        "missing": float(np.mean([sample.missing(feature) for feature in view["features"]])) if sample.size else 1.0,
        "drift": drift,
        "drifted": drifted,
    }


def _same(served: Any, joined: Any) -> Any:
    """Whether values are equal, missing ones included; arrays and text by what they are."""
    import pandas as pd

    if served.dtype.kind == "f":
        stamps = isinstance(joined.dtype, pd.DatetimeTZDtype)
        known = joined.astype("int64").where(joined.notna()) / 1e6 if stamps else joined
        right = known.to_numpy(dtype=np.float64, na_value=np.nan)
        return (served == right) | (np.isnan(served) & np.isnan(right))
    pairs = zip(served.tolist(), joined.tolist(), strict=True)
    return np.array([np.array_equal(a, b) if a is not None and b is not None else a is b for a, b in pairs], bool)


def _drift(view: Mapping[str, Any], folder: Path, sample: Sample) -> tuple[float, str]:
    """The largest population stability index of a number, and its name."""
    from feature_repo.stores.parquet_sources import column, connect, quote, scan, source_files

    numbers = [f["name"] for f in view["features"] if f["dtype"].startswith(("float", "int"))]
    if not numbers or not sample.size:
        return 0.0, ""
    with connect("500MB") as connection:
        rows = scan(connection, source_files(view["source"], folder, view["name"]))
        listed = ", ".join(f"{column(view, name)}::DOUBLE AS {quote(name)}" for name in numbers)
        query = f"SELECT {listed} FROM {rows} USING SAMPLE {_HISTORY_ROWS} ROWS (reservoir, 7)"
        history = connection.execute(query).fetchnumpy()
    found = {name: _index(np.ma.filled(history[name], np.nan), sample.read.columns[name]) for name in numbers}
    worst = max(found, key=found.__getitem__)
    return found[worst], worst


def _index(before: Any, now: Any) -> float:
    """Population stability index over the quantiles of `before`; missing values are a bin of their own."""
    known = before[~np.isnan(before)]
    if not len(known):
        return 0.0
    edges = np.unique(np.quantile(known, np.linspace(0, 1, _BINS + 1)[1:-1]))
    shares = []
    for values in (before, now):
        missing = np.isnan(values)
        places = np.where(missing, len(edges) + 1, np.searchsorted(edges, values, side="right"))
        counts = np.bincount(places, minlength=len(edges) + 2)
        shares.append(np.maximum(counts / max(1, len(values)), 1e-4))
    return float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())


def write_metrics(file: Path, task: str, reports: list[dict[str, Any]]) -> None:
    """Freshness and missing rates as a file of Prometheus' text format, there whole or not at all."""
    from prometheus_client import CollectorRegistry, Gauge, generate_latest

    registry = CollectorRegistry()
    freshness = Gauge(
        names.FEATURE_FRESHNESS,
        "Seconds since the newest event online.",
        names.STORE_LABELS[names.FEATURE_FRESHNESS],
        registry=registry,
    )
    missing = Gauge(
        names.FEATURE_MISSING,
        "Share of values that are not served.",
        names.STORE_LABELS[names.FEATURE_MISSING],
        registry=registry,
    )
    for report in reports:
        freshness.labels(task, report["view"]).set(report["newest_seconds_ago"])
        missing.labels(task, report["view"]).set(report["missing"])
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as made:
        made.write(generate_latest(registry))
    os.chmod(made.name, 0o644)
    os.replace(made.name, file)
