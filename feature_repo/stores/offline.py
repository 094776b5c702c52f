"""A Feast offline store on DuckDB: ``offline_store: {type: feature_repo.stores.offline.DuckDBOfflineStore}``.

It joins with `join.py`, as training does, so `get_historical_features` and the pipeline cannot disagree. Sources are
Parquet files, relative to the repository's folder.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
from feast import FeatureView, FileSource, OnDemandFeatureView, RepoConfig
from feast.data_source import DataSource
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import FeastConfigBaseModel
from feast.saved_dataset import SavedDatasetStorage

from contracts.errors import PlatformError
from feature_repo.stores.join import point_in_time_join, quote, source_file
from feature_repo.stores.plan import compile_view

_EVENT = "event_timestamp"


class DuckDBOfflineStoreConfig(FeastConfigBaseModel):
    """`memory_limit` is DuckDB's; it spills to disk beyond."""

    type: Literal["feature_repo.stores.offline.DuckDBOfflineStore"] = "feature_repo.stores.offline.DuckDBOfflineStore"
    memory_limit: str = "1200MB"


class LazyJob(RetrievalJob):
    """A result that is computed when it is asked for."""

    def __init__(
        self,
        compute: Callable[[], pa.Table],
        full_feature_names: bool = False,
        views: list[OnDemandFeatureView] | None = None,
        metadata: RetrievalMetadata | None = None,
    ) -> None:
        self._compute, self._full, self._views, self._metadata = compute, full_feature_names, views or [], metadata

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self._compute()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self._compute().to_pandas(integer_object_nulls=False)

    @property
    def full_feature_names(self) -> bool:
        return self._full

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        return self._views

    @property
    def metadata(self) -> RetrievalMetadata | None:
        return self._metadata

    def persist(self, storage: SavedDatasetStorage, allow_overwrite: bool = False, timeout: int | None = None) -> None:
        raise PlatformError("this store keeps no saved data sets", fix="write the job's to_arrow() to a file")


class DuckDBOfflineStore(OfflineStore):
    """See the module's docstring."""

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        **kwargs: Any,
    ) -> RetrievalJob:
        """The entity frame, all of its rows in order, with the features known at each row's ``event_timestamp``."""
        if not isinstance(entity_df, pd.DataFrame):
            raise PlatformError("entity_df must be a pandas DataFrame", detail=f"got {type(entity_df).__name__}")
        frame = entity_df
        plan = {"timestamp": _EVENT, "views": [_picked(view, feature_refs) for view in feature_views]}
        limit, folder = config.offline_store.memory_limit, _folder(config)

        def compute() -> pa.Table:
            joined = point_in_time_join(plan, folder, frame, memory_limit=limit)
            if full_feature_names:
                joined = joined.rename(
                    columns={f["name"]: f"{v['name']}__{f['name']}" for v in plan["views"] for f in v["features"]}
                )
            return pa.Table.from_pandas(joined, preserve_index=False)

        views = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        keys = [name for name in frame.columns if name != _EVENT]
        moments = pd.to_datetime(frame[_EVENT], utc=True)
        metadata = RetrievalMetadata(feature_refs, keys, moments.min(), moments.max())
        return LazyJob(compute, full_feature_names, views, metadata)

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """The last row of each entity in [start_date, end_date]; at one moment the last created, then written."""
        names = [*join_key_columns, *feature_name_columns, timestamp_field, created_timestamp_column or ""]
        columns = ", ".join(quote(name) for name in dict.fromkeys(names) if name)
        created = f"{quote(created_timestamp_column)} DESC NULLS LAST, " if created_timestamp_column else ""
        query = f"""
            SELECT {columns} FROM {_scan(config, data_source)} WHERE {_between(timestamp_field)}
            QUALIFY row_number() OVER (PARTITION BY {", ".join(quote(name) for name in join_key_columns)}
                ORDER BY {quote(timestamp_field)} DESC, {created}file_row_number DESC) = 1"""
        return LazyJob(lambda: _run(config, query, start_date, end_date))

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """Every row in [start_date, end_date]; an open end is no limit."""
        names = [*join_key_columns, *feature_name_columns, timestamp_field, created_timestamp_column or ""]
        columns = ", ".join(quote(name) for name in dict.fromkeys(names) if name)
        low = start_date or datetime(1, 1, 1, tzinfo=UTC)
        high = end_date or datetime(9999, 1, 1, tzinfo=UTC)
        query = f"SELECT {columns} FROM {_scan(config, data_source)} WHERE {_between(timestamp_field)}"
        return LazyJob(lambda: _run(config, query, low, high))


def _picked(view: FeatureView, refs: list[str]) -> dict[str, Any]:
    wanted = {ref.split(":", 1)[1] for ref in refs if ref.split(":", 1)[0] == view.projection.name_to_use()}
    return compile_view(view, [field for field in view.features if field.name in wanted])


def _folder(config: RepoConfig) -> Path:
    return Path(config.repo_path or ".")


def _scan(config: RepoConfig, source: DataSource) -> str:
    if not isinstance(source, FileSource):
        raise PlatformError(f"source {source.name} is no Parquet file", fix="use a FileSource", code="bad_source")
    path = source_file({"source": source.path, "name": source.name}, _folder(config)).replace("'", "''")
    return f"read_parquet('{path}', file_row_number=true)"


def _between(timestamp_field: str) -> str:
    return f"{quote(timestamp_field)} BETWEEN ?::TIMESTAMPTZ AND ?::TIMESTAMPTZ"


def _run(config: RepoConfig, query: str, low: datetime, high: datetime) -> pa.Table:
    import duckdb

    bounds = [moment.replace(tzinfo=moment.tzinfo or UTC).isoformat() for moment in (low, high)]
    with duckdb.connect() as connection:
        connection.execute(f"SET TimeZone='UTC'; SET memory_limit='{config.offline_store.memory_limit}'")
        return connection.execute(query, bounds).to_arrow_table()
