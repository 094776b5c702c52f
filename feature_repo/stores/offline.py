"""A Feast offline store on DuckDB: ``offline_store: {type: feature_repo.stores.offline.DuckDBOfflineStore}``.

It joins with `join.py`, as training does, so `get_historical_features` and the pipeline cannot disagree. Sources are
Parquet files or folders of them, relative to the repository's folder, or in S3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
from feast import FeatureView, FileSource, OnDemandFeatureView, RepoConfig
from feast.data_source import DataSource
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.infra.offline_stores.offline_utils import infer_event_timestamp_from_entity_df
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import FeastConfigBaseModel
from feast.saved_dataset import SavedDatasetStorage

from contracts.errors import PlatformError
from feature_repo.stores import parquet_append
from feature_repo.stores.join import point_in_time_join
from feature_repo.stores.keys import EXPECTED
from feature_repo.stores.packed_rows import to_micros
from feature_repo.stores.parquet_sources import (
    PART,
    SourceKeys,
    column,
    connect,
    created,
    moment,
    quote,
    scan,
    schema_of,
    source_files,
)
from feature_repo.stores.plan import compile_view
from feature_repo.stores.pushed_rows import checked_rows


class DuckDBOfflineStoreConfig(FeastConfigBaseModel):
    """`memory_limit` is DuckDB's; it spills to disk beyond. "" is a share of the memory that the process may have."""

    type: Literal["feature_repo.stores.offline.DuckDBOfflineStore"] = "feature_repo.stores.offline.DuckDBOfflineStore"
    memory_limit: str = ""


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
        frame: pd.DataFrame = self._compute().to_pandas(types_mapper=_NULLABLE.get)
        return frame

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
        """Write the result as one Parquet file.

        Raises:
            PlatformError: the storage is no file, or the file is there already.
        """
        if not isinstance(storage, SavedDatasetFileStorage):
            raise PlatformError("saved data sets are Parquet files", fix="use a SavedDatasetFileStorage")
        path = Path(storage.file_options.uri)
        if path.exists() and not allow_overwrite:
            raise PlatformError(f"{path} exists already", fix="give another path, or allow_overwrite=True")
        parquet_append.write_file(path, self.to_arrow())


# Integers and booleans with nulls stay what they are in pandas; without them Feast's users expect numpy's types.
_NULLABLE = {pa.int64(): pd.Int64Dtype(), pa.int32(): pd.Int32Dtype(), pa.bool_(): pd.BooleanDtype()}


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
        """The entity frame, all of its rows in order, with the features known at each row's moment.

        Args:
            entity_df: a frame, or a query of DuckDB that gives one (``SELECT ... FROM 'file.parquet'``).
        """
        frame = _frame(entity_df, config)
        event = infer_event_timestamp_from_entity_df(dict(zip(frame.columns, frame.dtypes, strict=True)))
        plan = {
            "timestamp": event,
            "views": [_picked(view, feature_refs, full_feature_names) for view in feature_views],
        }
        limit, folder = config.offline_store.memory_limit, _folder(config)

        def compute() -> pa.Table:
            joined = point_in_time_join(plan, folder, frame, memory_limit=limit)
            return pa.Table.from_pandas(joined, preserve_index=False)

        views = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        keys = [name for name in frame.columns if name != event]
        moments = pd.to_datetime(frame[event], utc=True)
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
        view = _source_view(data_source, timestamp_field, created_timestamp_column)
        names = [*join_key_columns, *feature_name_columns, timestamp_field, created_timestamp_column or ""]
        columns = ", ".join(f"h.{quote(name)}" for name in dict.fromkeys(names) if name)

        def compute() -> pa.Table:
            with connect(config.offline_store.memory_limit) as connection:
                rows = scan(connection, source_files(view["source"], _folder(config), view["name"]))
                source = SourceKeys(connection)
                keys = [source.column(rows, quote(name), "string") for name in join_key_columns]
                within = f"{moment(view)} BETWEEN {to_micros(start_date)} AND {to_micros(end_date)}"
                _last(connection, view, rows, keys, within)
                query = f"SELECT {columns} FROM {rows} h JOIN last ON h.pos = last.pos"
                return connection.execute(query).to_arrow_table()

        return LazyJob(compute)

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
        view = _source_view(data_source, timestamp_field, created_timestamp_column)
        names = [*join_key_columns, *feature_name_columns, timestamp_field, created_timestamp_column or ""]
        columns = ", ".join(quote(name) for name in dict.fromkeys(names) if name)
        bounds = [f"{moment(view)} >= {to_micros(start_date)}"] if start_date else []
        bounds += [f"{moment(view)} <= {to_micros(end_date)}"] if end_date else []

        def compute() -> pa.Table:
            with connect(config.offline_store.memory_limit) as connection:
                rows = scan(connection, source_files(view["source"], _folder(config), view["name"]))
                where = " AND ".join(bounds) or "true"
                return connection.execute(f"SELECT {columns} FROM {rows} WHERE {where} ORDER BY pos").to_arrow_table()

        return LazyJob(compute)

    def get_table_column_names_and_types_from_data_source(
        self, config: RepoConfig, data_source: DataSource
    ) -> list[tuple[str, str]]:
        """The columns of the source's last part; Feast's own way knows no S3 but Amazon's."""
        source = _source_view(data_source, data_source.timestamp_field, None)
        fields = schema_of(source_files(source["source"], _folder(config), source["name"])[-1])
        return [(field.name, str(field.type)) for field in fields]

    @staticmethod
    def appendable(config: RepoConfig, view: FeatureView) -> pa.Schema | None:
        """The columns of a view's source, to which rows can be appended; None where there is no file yet.

        Raises:
            PlatformError: it cannot be appended to.
        """
        source = _file_of(view)
        if source.path.startswith("s3://"):
            parquet_append.check_remote(source.path)
        try:
            return schema_of(source_files(source.path, _folder(config), view.name)[-1])
        except PlatformError as err:
            if err.code != "missing_history":
                raise
            return None

    @staticmethod
    def offline_write_batch(
        config: RepoConfig, feature_view: FeatureView, table: pa.Table, progress: Callable[[int], Any] | None
    ) -> None:
        """Append rows to the view's source (what a push to the offline store does): a new part in a folder, here or in
        S3; a local file is written anew beside the old one and renamed."""
        DuckDBOfflineStore.appendable(config, feature_view)
        table = checked_rows(config, feature_view, table.to_pandas(integer_object_nulls=True))
        source = _file_of(feature_view)
        if source.path.startswith("s3://"):
            parquet_append.append_remote(source.path, table)
        else:
            parquet_append.append_rows(_folder(config) / source.path, table)
        if progress:
            progress(table.num_rows)


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Rows of a source that cannot go online. `row` is the first of them: its number in `file`, from 1."""

    view: str
    reason: str
    rows: int
    row: int
    file: str

    def __str__(self) -> str:
        some = "1 row is" if self.rows == 1 else f"{self.rows} rows are"
        return f"feature view {self.view}: {some} left out, {self.reason}; the first is row {self.row} of {self.file}"


def latest_rows(
    config: RepoConfig,
    view: Mapping[str, Any],
    start: datetime,
    end: datetime,
    *,
    after_start: bool,
    rows: int,
    not_after: datetime,
    left_out: list[LeftOut],
) -> Iterator[pa.RecordBatch]:
    """The last row of each entity of a compiled view, in batches: keys, fields and the moments (`arrow_rows.py`).

    Args:
        after_start: leave out what happened exactly at `start`, because the interval before ended there.
        not_after: events behind it are of a wrong clock.
        left_out: gets what was left out of the interval; rows without a moment are of every interval.

    Raises:
        PlatformError: rows were left out, and no row is left.
    """
    from feature_repo.stores.arrow_rows import CREATED, EVENT

    with connect(config.offline_store.memory_limit) as connection:
        files = source_files(view["source"], _folder(config), view["name"])
        relation = scan(connection, files)
        source = SourceKeys(connection)
        given = {key["name"]: column(view, key["name"]) for key in view["join_keys"]}
        keys = {key["name"]: source.column(relation, given[key["name"]], key["dtype"]) for key in view["join_keys"]}
        begin = f"{moment(view)} {'>' if after_start else '>='} {to_micros(start)}"
        within = f"{begin} AND {moment(view)} <= {to_micros(end)}"
        reasons = [(f"{moment(view)} IS NULL", f"{view['timestamp_field']!r} is no moment")]
        reasons += [(f"{given[name]} IS NULL", f"entity key {name!r} is null") for name in keys]
        reasons += [(f"{keys[name]} IS NULL", f"entity key {name!r} is no key: {EXPECTED}") for name in keys]
        reasons += [(f"{moment(view)} > {to_micros(not_after)}", f"{view['timestamp_field']!r} lies in the future")]
        left_out += (found := _left_out(connection, view, relation, within, reasons, files))
        good = " AND ".join([within, *(f"NOT coalesce({condition}, false)" for condition, _ in reasons[1:])])
        _last(connection, view, relation, list(keys.values()), good)
        if found and connection.execute("SELECT max(pos) FROM last").fetchone() == (None,):
            raise PlatformError(str(found[0]), fix="correct the source", code="bad_source", view=view["name"])
        names = [field["name"] for field in view["fields"] if field["name"] not in keys]
        columns = ", ".join(
            [f"{key} AS {quote(name)}" for name, key in keys.items()]
            + [f"h.{column(view, name)} AS {quote(name)}" for name in names]
        )
        query = f"""SELECT {columns}, {moment(view)} AS {EVENT}, {created(view)} AS {CREATED}
            FROM {relation} h JOIN last ON h.pos = last.pos"""
        for batch in connection.execute(query).to_arrow_reader(rows):
            if batch.num_rows:
                yield batch


def _left_out(
    connection: Any,
    view: Mapping[str, Any],
    relation: str,
    within: str,
    reasons: list[tuple[str, str]],
    files: list[str],
) -> list[LeftOut]:
    """How many rows each of `reasons`, (SQL, words), holds for; a row counts for the first one."""
    cases = " ".join(f"WHEN {condition} THEN {at}" for at, (condition, _) in enumerate(reasons))
    query = f"""SELECT reason, count(*), min(pos) FROM
        (SELECT CASE {cases} END AS reason, pos FROM {relation} WHERE {moment(view)} IS NULL OR ({within}))
        WHERE reason IS NOT NULL GROUP BY reason ORDER BY reason"""
    return [
        LeftOut(
            view=view["name"], reason=reasons[at][1], rows=rows, row=pos % PART + 1, file=Path(files[pos // PART]).name
        )
        for at, rows, pos in connection.execute(query).fetchall()
    ]


def _last(connection: Any, view: Mapping[str, Any], rows: str, keys: list[str], within: str) -> None:
    """Table `last`: the positions of the last rows per key (SQL of each part of it)."""
    selected = "".join(f"{key} AS key{at}, " for at, key in enumerate(keys))
    grouped = ", ".join(f"key{at}" for at in range(len(keys))) or "()"
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE last AS SELECT max_by(pos, (moment, made, pos)) AS pos FROM
            (SELECT {selected}{moment(view)} AS moment, {created(view)} AS made, pos FROM {rows} WHERE {within})
            GROUP BY {grouped}"""
    )


def _picked(view: FeatureView, refs: list[str], full: bool) -> dict[str, Any]:
    """The view with the features that are asked for, and the names of keys and columns in the frame."""
    projection: Any = view.projection
    name = projection.name_to_use()
    wanted = {ref.split(":", 1)[1] for ref in refs if ref.split(":", 1)[0] == name}
    compiled = compile_view(view, [field for field in view.features if field.name in wanted])
    for feature in compiled["features"]:
        feature["as"] = f"{name}__{feature['name']}" if full else feature["name"]
    for key in compiled["join_keys"]:
        key["asked"] = projection.join_key_map.get(key["name"], key["name"])
    return compiled


def _frame(given: pd.DataFrame | str | None, config: RepoConfig) -> pd.DataFrame:
    if isinstance(given, str):
        with connect(config.offline_store.memory_limit) as connection:
            frame: pd.DataFrame = connection.execute(given).to_arrow_table().to_pandas()
            return frame
    if not isinstance(given, pd.DataFrame):
        raise PlatformError("entity_df must be a pandas DataFrame or a query", detail=f"got {type(given).__name__}")
    return given


def _folder(config: RepoConfig) -> Path:
    return Path(config.repo_path or ".")


def _file_of(view: FeatureView) -> FileSource:
    if not isinstance(view.batch_source, FileSource):
        raise PlatformError(
            f"rows cannot be appended to the source of feature view {view.name}",
            fix="use a FileSource",
            code="bad_source",
        )
    return view.batch_source


def _source_view(source: DataSource, timestamp_field: str, created_field: str | None) -> dict[str, Any]:
    if not isinstance(source, FileSource):
        raise PlatformError(f"source {source.name} is no Parquet file", fix="use a FileSource", code="bad_source")
    named = {"timestamp_field": timestamp_field, "created_field": created_field or ""}
    return {"name": source.name, "source": source.path, **named}
