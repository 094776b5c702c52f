"""The point-in-time join: for each row, the features that were known at its moment, by one ASOF join per view.

The Feast plug-in (`offline.py`) and the training pipeline both call `point_in_time_join`. Every row of the entity frame
is kept, in order, duplicates too; integers stay integers when a value is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from feature_repo.stores.parquet_sources import (
    SQL_TYPES,
    SourceKeys,
    column,
    connect,
    created,
    moment,
    quote,
    scan,
    source_files,
)

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import pyarrow as pa


def point_in_time_join(
    plan: Mapping[str, Any], folder: str | Path, entity_frame: pd.DataFrame, *, memory_limit: str = "1200MB"
) -> pd.DataFrame:
    """Join the features of a plan to `entity_frame` as they were known at each row's moment.

    Args:
        plan: a compiled plan (`plan.py`).  folder: where the plan's Parquet sources are.
        entity_frame: has the join keys and the column ``plan["timestamp"]`` (aware, or naive and then UTC).
        memory_limit: of DuckDB, which spills to disk beyond.

    Returns:
        A new frame: the given columns and index, and one column per feature (nullable dtypes). A feature is missing
        when its entity is unknown or its row is older than the view's time to live.

    Raises:
        PlatformError: a key or the timestamp is missing in the frame, or a source is missing in the folder.
    """
    result = entity_frame.copy(deep=False)
    with connect(memory_limit) as connection:
        source = SourceKeys(connection)
        for view in plan["views"]:
            _refuse_double_names(view, entity_frame)
            for name, values in _join_view(
                connection, source, view, plan["timestamp"], entity_frame, Path(folder)
            ).items():
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
    connection: duckdb.DuckDBPyConnection,
    source: SourceKeys,
    view: Mapping[str, Any],
    timestamp: str,
    frame: pd.DataFrame,
    folder: Path,
) -> dict[str, Any]:
    """The view's features, one array of len(frame) each.

    The ASOF join sees keys and moments only, and values are gathered afterwards by their position: sorting wide rows
    takes fifty times as long. All sides are tables, not subqueries, because the planner needs their sizes.
    """
    import numpy as np
    import pyarrow as pa

    connection.register("entities", _entities(view, timestamp, frame))
    rows = scan(connection, source_files(view["source"], folder, view["name"]))
    for statement in _queries(view, rows, source):
        connection.execute(statement)
    source.check(view["name"])
    wanted = ", ".join(f"h.{column(view, f['name'])} AS {quote(f['name'])}" for f in view["features"])
    gathered = connection.execute(f"SELECT c.nr, {wanted} FROM {rows} h JOIN chosen c ON h.pos = c.pos")
    table = gathered.to_arrow_table()
    place = np.full(len(frame), -1, dtype=np.int64)
    place[table["nr"].to_numpy()] = np.arange(table.num_rows)
    taken = table.take(pa.array(place, mask=place < 0))
    return {shown(f): _as_pandas(taken[f["name"]], f["name"], f["dtype"]) for f in view["features"]}


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


def _queries(view: Mapping[str, Any], rows: str, source: SourceKeys) -> list[str]:
    """From `asked` and `history` to `chosen`: the position of the row that each entity row gets.

    Of history rows that share key and moment, the last created is chosen, else the last written. Rows that are older
    than the time to live for every entity row are not looked at.
    """
    ttl = view["ttl_seconds"] * 1_000_000
    types = [SQL_TYPES[key["dtype"]] for key in view["join_keys"]]
    asked = ", ".join(f"TRY_CAST(key{i} AS {kind}) AS key{i}" for i, kind in enumerate(types))
    named = [source.column(rows, column(view, key["name"]), key["dtype"]) for key in view["join_keys"]]
    keys = ", ".join(f"{key} AS key{i}" for i, key in enumerate(named))
    both = " AND ".join(f"e.key{i} = h.key{i}" for i in range(len(types)))
    since = f"AND {moment(view)} >= (SELECT min(moment) FROM asked) - {ttl}" if ttl else ""
    young = f"WHERE e.moment - h.moment <= {ttl}" if ttl else ""
    kept = ", ".join(f"e.key{i}" for i in range(len(types)))
    made = f"{created(view)} AS made" if view["created_field"] else "0 AS made"
    return [
        f"CREATE OR REPLACE TEMP TABLE asked AS SELECT {asked}, moment, nr FROM entities",
        f"""CREATE OR REPLACE TEMP TABLE history AS SELECT {keys}, {moment(view)} AS moment, pos, {made} FROM {rows}
            WHERE {moment(view)} <= (SELECT max(moment) FROM asked) {since}""",
        f"""CREATE OR REPLACE TEMP TABLE matched AS SELECT e.nr, {kept}, h.moment
            FROM asked e ASOF JOIN history h ON {both} AND e.moment >= h.moment {young}""",
        f"""CREATE OR REPLACE TEMP TABLE chosen AS SELECT e.nr, arg_max(h.pos, (h.made, h.pos)) AS pos
            FROM matched e JOIN history h ON {both} AND e.moment = h.moment GROUP BY e.nr""",
    ]
