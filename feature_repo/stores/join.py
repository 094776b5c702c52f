"""The point-in-time join: for each row, the features that were known at its moment, by one ASOF join per view.

The Feast plug-in (`offline.py`) and the training pipeline both call `point_in_time_join`. Every row of the entity frame
is kept, in order, duplicates too; integers stay integers when a value is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from feature_repo.stores import join_parts, join_sql
from feature_repo.stores.parquet_sources import SourceKeys, connect, scan, source_files
from feature_repo.stores.parts import Engine, count_rows

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def point_in_time_join(
    plan: Mapping[str, Any],
    folder: str | Path,
    entity_frame: pd.DataFrame,
    *,
    memory_limit: str = "",
    engine: Engine | None = None,
) -> pd.DataFrame:
    """Join the features of a plan to `entity_frame` as they were known at each row's moment.

    Args:
        plan: a compiled plan (`plan.py`).  folder: where the plan's Parquet sources are.
        entity_frame: has the join keys and the column ``plan["timestamp"]`` (aware, or naive and then UTC).
        memory_limit: of DuckDB, which spills to disk beyond; "" is a share of the memory that this process may have.
        engine: computes the join by parts, where it cuts so many rows.

    Returns:
        A new frame: the given columns and index, and one column per feature (nullable dtypes). A feature is missing
        when its entity is unknown or its row is older than the view's time to live.

    Raises:
        PlatformError: a key or the timestamp is missing in the frame, or a source is missing in the folder.
    """
    result = entity_frame.copy(deep=False)
    for view in plan["views"]:
        _refuse_double_names(view, entity_frame)
        for name, values in _join_view(view, plan["timestamp"], entity_frame, folder, memory_limit, engine).items():
            result[name] = values
    return result


def shown(feature: Mapping[str, str]) -> str:
    """The name of a feature's column in the result."""
    return feature.get("as") or feature["name"]


def _refuse_double_names(view: Mapping[str, Any], frame: pd.DataFrame) -> None:
    for feature in view["features"]:
        if shown(feature) in frame.columns:
            raise PlatformError(
                f"column {shown(feature)!r} is both in the data and in feature view {view['name']}",
                fix="drop the column of the data with data.drop, or rename it with data.columns",
                code="duplicate_column",
                column=shown(feature),
            )


def _join_view(
    view: Mapping[str, Any],
    timestamp: str,
    frame: pd.DataFrame,
    folder: str | Path,
    memory_limit: str,
    engine: Engine | None,
) -> dict[str, Any]:
    """The view's features, one array of len(frame) each."""
    import numpy as np
    import pyarrow as pa

    entities, files = _entities(view, timestamp, frame), source_files(view["source"], folder, view["name"])
    if engine is not None and len(frame) and engine.parts(len(frame) + count_rows(files)) > 1:
        table = join_parts.gathered(engine, view, files, entities)
    else:
        table = _gathered(view, files, entities, memory_limit)
    place = np.full(len(frame), -1, dtype=np.int64)
    place[table["nr"].to_numpy()] = np.arange(table.num_rows)
    taken = table.take(pa.array(place, mask=place < 0))
    return {shown(f): _as_pandas(taken[f["name"]], f["name"], f["dtype"]) for f in view["features"]}


def _gathered(view: Mapping[str, Any], files: list[str], entities: pa.Table, memory_limit: str) -> pa.Table:
    """The features of the rows that find some, with their number; of all rows at once."""
    with connect(memory_limit) as connection:
        source, rows = SourceKeys(connection), scan(connection, files)
        connection.register("entities", entities)
        connection.execute(f"CREATE TEMP TABLE asked AS {join_sql.asked(view, 'entities')}")
        connection.execute(f"CREATE TEMP TABLE history AS {join_sql.history(view, rows, source)}")
        for statement in join_sql.choose(view):
            connection.execute(statement)
        source.check(view["name"])
        return connection.execute(join_sql.gather(view, rows)).to_arrow_table()


def _as_pandas(values: pa.ChunkedArray, name: str, dtype: str) -> Any:
    import pandas as pd

    from feature_repo.stores.arrow_rows import cast_feature

    nullable: dict[str, Any] = {"int64": pd.Int64Dtype(), "int32": pd.Int32Dtype(), "bool": pd.BooleanDtype()}
    if dtype in nullable:
        return nullable[dtype].__from_arrow__(cast_feature(values, name, dtype))
    made = values.to_pandas()
    return made if dtype == "timestamp" else made.to_numpy()


def _entities(view: Mapping[str, Any], timestamp: str, frame: pd.DataFrame) -> pa.Table:
    import numpy as np
    import pyarrow as pa

    keys = [key.get("asked", key["name"]) for key in view["join_keys"]]
    if missing := [name for name in [*keys, timestamp] if name not in frame.columns]:
        raise PlatformError(
            f"column {missing[0]!r} is missing for feature view {view['name']}",
            detail=f"the frame has: {', '.join(map(str, frame.columns))}",
            fix="give the entity keys and the timestamp of the event",
            code="missing_column",
            column=missing[0],
        )
    columns = {"moment": _moments(frame[timestamp]), "nr": pa.array(np.arange(len(frame)))}
    return pa.table({**{f"key{i}": _asked(frame[name]) for i, name in enumerate(keys)}, **columns})


def _asked(values: pd.Series[Any]) -> pa.Array:
    """Keys in their canonical form; a missing one finds nothing."""
    import numpy as np
    import pyarrow as pa

    from feature_repo.stores.keys import bad_key, canonical_column, canonical_texts

    try:
        given = pa.Array.from_pandas(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):  # of several types
        known = values.notna().to_numpy()
        made = np.full(len(values), None, object)
        made[known] = canonical_texts(values[known].tolist(), str(values.name))
        return pa.array(made, pa.string())
    if pa.types.is_binary(given.type) or pa.types.is_large_binary(given.type):
        return given
    texts, refused = canonical_column(given)
    if refused.true_count:
        row = refused.index(True).as_py()
        raise bad_key(str(values.name), row, f"got {values.iloc[row]!r}")
    return texts


def _moments(values: pd.Series[Any]) -> pa.Array:
    """Microseconds since 1970, UTC; a naive timestamp is UTC."""
    import pandas as pd
    import pyarrow as pa

    aware = pd.to_datetime(values, utc=True).astype("datetime64[us, UTC]")
    return pa.Array.from_pandas(aware).cast(pa.int64())
