"""The point-in-time join of one view by parts: the statements of `join_sql.py`, each on the rows of a part.

Rows that ask and rows of the history are cut by the key, each part chooses positions of the history, and the values at
them are gathered where the history is read. Workers pass files to each other, see `parts.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from contracts import storage
from feature_repo.stores import join_sql, parts
from feature_repo.stores.parquet_sources import PART, SourceKeys, connect, quote, scan, text

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_HERE = __name__
_ASKED = 250_000  # rows of a file of those that ask


def gathered(engine: parts.Engine, view: Mapping[str, Any], files: Sequence[str], entities: pa.Table) -> pa.Table:
    """`nr` and the features of the rows of `entities` (keys, moment, nr) that find some; in any order.

    files: of the view's source, as `source_files` gives them.
    """
    import pyarrow as pa
    from pyarrow import compute, parquet

    rows = parts.count_rows(files)
    count = engine.parts(rows + entities.num_rows)
    bounds = compute.min_max(entities["moment"]).as_py()
    about = {"view": view, "schema": _schema(engine, files), "bounds": [bounds["min"], bounds["max"]]}
    with engine.place() as place:
        shares = [{**about, **share} for share in parts.shares(engine, files, place)]
        keys = join_sql.keys_of(view)
        asking = _written(entities, place)
        asked = parts.cut(
            engine,
            f"{_HERE}:cut_asked",
            [{"view": view, "keys": keys, "files": [file]} for file in asking],
            count,
            storage.join(place, "asked"),
        )
        history = parts.cut(
            engine, f"{_HERE}:cut_history", [{**share, "keys": keys} for share in shares], count,
            storage.join(place, "history"),
        )  # fmt: skip
        if rows:
            parts.name_skew(engine, history, keys)
        pairs = [(at, a, h) for at, (a, h) in enumerate(zip(asked, history, strict=True)) if a.rows and h.rows]
        chosen = [storage.join(place, "chosen", f"{at:05d}.parquet") for at, _, _ in pairs]
        limit = {"limit": engine.memory_limit}
        engine.map(
            f"{_HERE}:choose_in_part",
            [
                {**limit, "view": view, "asked": a.files, "history": h.files, "out": out}
                for out, (_, a, h) in zip(chosen, pairs, strict=True)
            ],
        )
        found = [storage.join(place, "found", f"{at:05d}.parquet") for at in range(len(shares))]
        engine.map(
            f"{_HERE}:gather_in_share",
            [{**limit, **share, "chosen": chosen, "out": out} for share, out in zip(shares, found, strict=True)],
        )
        with parts.scratch(storage.join(place, "here", "x")) as folder, parts.files_here(found, folder) as here:
            return pa.concat_tables([parquet.read_table(file) for file in here])


def _schema(engine: parts.Engine, files: Sequence[str]) -> list[list[str]]:
    """Names and types of the whole source's columns: files that were written later may have more."""
    with connect(engine.memory_limit) as connection:
        return _described(connection, scan(connection, files))


def _described(connection: duckdb.DuckDBPyConnection, rows: str) -> list[list[str]]:
    found = connection.execute(f"DESCRIBE SELECT * FROM {rows}").fetchall()
    return [[str(name), str(kind)] for name, kind, *_ in found]


def _written(entities: pa.Table, place: str) -> list[str]:
    """The rows that ask, in files that all workers see."""
    from pyarrow import parquet

    made = []
    for at, start in enumerate(range(0, entities.num_rows, _ASKED)):
        made.append(storage.join(place, "entities", f"{at:05d}.parquet"))
        with parts.scratch(made[-1]) as folder:
            parquet.write_table(entities.slice(start, _ASKED), folder / "made", compression="lz4")
            parts.publish(folder / "made", made[-1])
    return made


def _share(connection: duckdb.DuckDBPyConnection, item: Mapping[str, Any]) -> str:
    """A relation of a share of the history's files, with the columns of the whole source."""
    rows = scan(connection, item["files"], item["first"])
    here = dict(_described(connection, rows))
    if all(here.get(name) == kind for name, kind in item["schema"]):
        return rows
    listed = [
        f"CAST({quote(name) if name in here else 'NULL'} AS {kind}) AS {quote(name)}" for name, kind in item["schema"]
    ]
    return f"(SELECT {', '.join(listed)} FROM {rows})"


def cut_asked(item: Mapping[str, Any]) -> list[Any]:
    """Work: a file of rows that ask, cut by the key."""
    with (
        connect(item["limit"], threads=1) as connection,
        parts.scratch(item["out"]) as folder,
        parts.files_here(item["files"], folder) as files,
    ):
        return parts.write_parts(connection, join_sql.asked(item["view"], _parquet(files)), item)


def cut_history(item: Mapping[str, Any]) -> list[Any]:
    """Work: what of a share of the history may be chosen, cut by the key."""
    with connect(item["limit"], threads=1) as connection:
        low, high = item["bounds"]
        connection.execute(f"CREATE TEMP TABLE asked AS SELECT unnest([{low}, {high}]) AS moment")
        source = SourceKeys(connection)
        written = parts.write_parts(connection, join_sql.history(item["view"], _share(connection, item), source), item)
        source.check(item["view"]["name"])
        return written


def choose_in_part(item: Mapping[str, Any]) -> None:
    """Work: the position that each row of a part gets."""
    with connect(item["limit"], threads=1) as connection, parts.scratch(item["out"]) as folder:
        for name in ("asked", "history"):
            with parts.files_here(item[name], folder / name) as files:
                connection.execute(f"CREATE TEMP TABLE {name} AS SELECT * FROM {_parquet(files)}")
        for statement in join_sql.choose(item["view"]):
            connection.execute(statement)
        made = folder / "made.parquet"
        connection.execute(f"COPY chosen TO {text(str(made))} (FORMAT parquet, COMPRESSION lz4_raw)")
        parts.publish(made, item["out"])


def gather_in_share(item: Mapping[str, Any]) -> None:
    """Work: the values of the chosen rows that are in a share of the history."""
    with connect(item["limit"], threads=1) as connection, parts.scratch(item["out"]) as folder:
        with parts.files_here(item["chosen"], folder / "chosen") as files:
            first, end = item["first"] * PART, (item["first"] + len(item["files"])) * PART
            there = f"SELECT * FROM {_parquet(files)} WHERE pos >= {first} AND pos < {end}" if files else _NONE
            connection.execute(f"CREATE TEMP TABLE chosen AS {there}")
        made = folder / "made.parquet"
        query = join_sql.gather(item["view"], _share(connection, item))
        connection.execute(f"COPY ({query}) TO {text(str(made))} (FORMAT parquet, COMPRESSION lz4_raw)")
        parts.publish(made, item["out"])


_NONE = "SELECT 0::BIGINT AS nr, 0::BIGINT AS pos WHERE false"


def _parquet(files: Sequence[str]) -> str:
    return f"read_parquet([{', '.join(map(text, files))}])"
