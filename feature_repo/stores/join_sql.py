"""The SQL of the point-in-time join. It stands here once, for all rows on one machine and for parts of them on many."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from feature_repo.stores.parquet_sources import SQL_TYPES, SourceKeys, column, created, moment, quote


def keys_of(view: Mapping[str, Any]) -> list[str]:
    """The columns of keys in `asked` and `history`."""
    return [f"key{i}" for i in range(len(view["join_keys"]))]


def asked(view: Mapping[str, Any], entities: str) -> str:
    """The rows of `entities` (keys, moment, nr) with keys of the view's types."""
    types = [SQL_TYPES[key["dtype"]] for key in view["join_keys"]]
    keys = ", ".join(f"TRY_CAST(key{i} AS {kind}) AS key{i}" for i, kind in enumerate(types))
    return f"SELECT {keys}, moment, nr FROM {entities}"


def history(view: Mapping[str, Any], rows: str, source: SourceKeys) -> str:
    """Keys, moment, position and making of the rows that may be chosen.

    Rows that are older than the time to live for every row of the table `asked`, and those after all, are left out.
    """
    ttl = ttl_of(view)
    named = [source.column(rows, column(view, key["name"]), key["dtype"]) for key in view["join_keys"]]
    keys = ", ".join(f"{key} AS key{i}" for i, key in enumerate(named))
    since = f"AND {moment(view)} >= (SELECT min(moment) FROM asked) - {ttl}" if ttl else ""
    made = f"{created(view)} AS made" if view["created_field"] else "0 AS made"
    return f"""SELECT {keys}, {moment(view)} AS moment, pos, {made} FROM {rows}
        WHERE {moment(view)} <= (SELECT max(moment) FROM asked) {since}"""


def choose(view: Mapping[str, Any]) -> list[str]:
    """From tables `asked` and `history` to `chosen`: the position of the row that each row of `asked` gets.

    Of history rows that share key and moment, the last created is chosen, else the last written. Both sides are tables,
    not subqueries, because the planner needs their sizes: without them it joins by a loop.
    """
    ttl = ttl_of(view)
    both = " AND ".join(f"e.{key} = h.{key}" for key in keys_of(view))
    young = f"WHERE e.moment - h.moment <= {ttl}" if ttl else ""
    kept = ", ".join(f"e.{key}" for key in keys_of(view))
    return [
        f"""CREATE OR REPLACE TEMP TABLE matched AS SELECT e.nr, {kept}, h.moment
            FROM asked e ASOF JOIN history h ON {both} AND e.moment >= h.moment {young}""",
        f"""CREATE OR REPLACE TEMP TABLE chosen AS SELECT e.nr, arg_max(h.pos, (h.made, h.pos)) AS pos
            FROM matched e JOIN history h ON {both} AND e.moment = h.moment GROUP BY e.nr""",
    ]


def gather(view: Mapping[str, Any], rows: str) -> str:
    """The features of the rows at the positions of the table `chosen`: sorting wide rows takes fifty times as long."""
    wanted = ", ".join(f"h.{column(view, f['name'])} AS {quote(f['name'])}" for f in view["features"])
    return f"SELECT c.nr, {wanted} FROM {rows} h JOIN chosen c ON h.pos = c.pos"


def ttl_of(view: Mapping[str, Any]) -> int:
    """The time to live in microseconds; 0 is none."""
    return int(view["ttl_seconds"] * 1_000_000)
