"""The point-in-time join: for each row, the features that were known at its moment, by one ASOF join per view.

The Feast plug-in (`offline.py`) and the training pipeline both call `point_in_time_join`. Every row of the entity frame
is kept, in order, duplicates too; integers stay integers when a value is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import pyarrow as pa

# What a plan's dtypes are in DuckDB.
SQL_TYPES = {
    "string": "VARCHAR",
    "int64": "BIGINT",
    "int32": "INTEGER",
    "float64": "DOUBLE",
    "float32": "FLOAT",
    "bool": "BOOLEAN",
    "timestamp": "TIMESTAMPTZ",
}


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
    import duckdb

    result = entity_frame.copy(deep=False)
    with duckdb.connect() as connection:
        connection.execute(f"SET TimeZone='UTC'; SET memory_limit='{memory_limit}'")
        for view in plan["views"]:
            _refuse_double_names(view, entity_frame)
            for name, values in _join_view(connection, view, plan["timestamp"], entity_frame, Path(folder)).items():
                result[name] = values
    return result


def _refuse_double_names(view: Mapping[str, Any], frame: pd.DataFrame) -> None:
    for feature in view["features"]:
        if feature["name"] in frame.columns:
            raise PlatformError(
                f"column {feature['name']!r} is both in the data and in feature view {view['name']}",
                fix="drop the column of the data with data.drop, or rename it with data.columns",
                code="duplicate_column",
                column=feature["name"],
            )


def _join_view(
    connection: duckdb.DuckDBPyConnection, view: Mapping[str, Any], timestamp: str, frame: pd.DataFrame, folder: Path
) -> dict[str, Any]:
    """The view's features, one array of len(frame) each.

    The ASOF join finds row numbers only and values are gathered afterwards: sorting wide rows took fifty times as long.
    Both sides are tables, not subqueries, because the planner needs their sizes.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [feature["name"] for feature in view["features"]]
    file = source_file(view, folder)
    connection.register("entities", _entities(view, timestamp, frame))
    for statement in _queries(view, file):
        connection.execute(statement)
    matched = connection.execute("SELECT e.nr, h.pos, h.moment FROM asked e " + _on(view)).to_arrow_table()
    pos, stamp = (np.full(len(frame), -1, dtype=np.int64) for _ in range(2))
    row = matched["nr"].to_numpy()
    pos[row] = matched["pos"].fill_null(-1).to_numpy()
    stamp[row] = matched["moment"].fill_null(0).to_numpy()
    if age := view["ttl_seconds"] * 1_000_000:
        moment = _moments(frame[timestamp]).to_numpy()
        # The online store keeps whole seconds, so the age counts from the whole second here as well.
        pos[(pos >= 0) & (moment - stamp // 1_000_000 * 1_000_000 > age)] = -1
    history = pq.read_table(file, columns=names)
    taken = history.take(pa.array(pos, mask=pos < 0))
    return {feature["name"]: _as_pandas(taken[feature["name"]], feature["dtype"]) for feature in view["features"]}


def _as_pandas(column: pa.ChunkedArray, dtype: str) -> Any:
    import pandas as pd

    nullable = {"int64": pd.Int64Dtype(), "int32": pd.Int32Dtype(), "bool": pd.BooleanDtype()}
    if dtype in nullable:
        return nullable[dtype].__from_arrow__(column)
    return column.to_pandas().to_numpy()


def _entities(view: Mapping[str, Any], timestamp: str, frame: pd.DataFrame) -> pa.Table:
    import numpy as np
    import pyarrow as pa

    keys = [key["name"] for key in view["join_keys"]]
    if missing := [name for name in [*keys, timestamp] if name not in frame.columns]:
        raise PlatformError(
            f"column {missing[0]!r} is missing for feature view {view['name']}",
            detail=f"the frame has: {', '.join(map(str, frame.columns))}",
            fix="give the entity keys and the timestamp of the event",
            code="missing_column",
            column=missing[0],
        )
    columns = {"moment": _moments(frame[timestamp]), "nr": pa.array(np.arange(len(frame)))}
    return pa.table({**{name: pa.Array.from_pandas(frame[name]) for name in keys}, **columns})


def _moments(column: pd.Series[Any]) -> pa.Array:
    """Microseconds since 1970, UTC; a naive timestamp is UTC."""
    import pandas as pd
    import pyarrow as pa

    aware = pd.to_datetime(column, utc=True).astype("datetime64[us, UTC]")
    return pa.Array.from_pandas(aware).cast(pa.int64())


def _queries(view: Mapping[str, Any], file: str) -> list[str]:
    """Tables `asked` and `history` with keys and moments. Of history rows that share both, the last created stays, else
    the last written."""
    keys = [
        f"CAST({quote(key['name'])} AS {SQL_TYPES[key['dtype']]}) AS key{i}" for i, key in enumerate(view["join_keys"])
    ]
    moment = f"epoch_us({quote(view['timestamp_field'])})"
    by = f"({quote(view['created_field'])}, file_row_number)" if view["created_field"] else "file_row_number"
    return [
        f"CREATE OR REPLACE TEMP TABLE asked AS SELECT {', '.join(keys)}, moment, nr FROM entities",
        f"""CREATE OR REPLACE TEMP TABLE history AS
            SELECT {", ".join(keys)}, {moment} AS moment, arg_max(file_row_number, {by}) AS pos
            FROM read_parquet('{file.replace("'", "''")}', file_row_number=true)
            WHERE {moment} <= (SELECT max(moment) FROM asked) GROUP BY ALL""",
    ]


def _on(view: Mapping[str, Any]) -> str:
    same = " AND ".join(f"e.key{i} = h.key{i}" for i in range(len(view["join_keys"])))
    return f"ASOF LEFT JOIN history h ON {same} AND e.moment >= h.moment"


def source_file(view: Mapping[str, Any], folder: Path) -> str:
    """The Parquet file of a view.

    Raises:
        PlatformError: the file is missing.
    """
    path = Path(folder) / view["source"]
    if not path.exists():
        raise PlatformError(
            f"feature history is missing: {path}",
            detail=f"feature view {view['name']} reads it",
            fix="run the materialise step for this dataset version",
            code="missing_history",
            file=str(path),
        )
    return str(path)


def quote(name: str) -> str:
    """A name as a SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
