"""Impressions: what was shown and what of it was taken, a row for each place of a list.

Columns: ``list`` (names the list), ``user``, ``item``, ``place`` (from 1), ``clicked`` (0 or 1), ``time`` (RFC 3339, or
seconds since 1970), and, where the order was left to chance, ``propensity``: the chance that the item would be there.
``fairlead predictions judge MODEL --write FILE`` writes them of a served model's log.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from contracts.errors import PlatformError

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.recipes.recommend.settings import RecommendConfig

BUILT_IN = "built-in"
COLUMNS = ("list", "user", "item", "place", "clicked", "time")
OPTIONAL = ("propensity",)
_CLICKED = {"1": True, "true": True, "1.0": True, "0": False, "false": False, "0.0": False, "": False}


def split_impressions(
    config: RecommendConfig, cuts: pd.DataFrame, built_in: Callable[[], pd.DataFrame]
) -> pd.DataFrame:
    """The impressions with the column ``part``, by their moment: nothing is learned from the future.

    Args:
        cuts: of `pipelines.recipes.recommend.split.moments`: columns user, valid and test.
        built_in: gives those of the built-in data.

    Raises:
        PlatformError: see `read_impressions`; or none of the people are those of the interactions.
    """
    rows = read_impressions(config, built_in)
    known = rows[["user"]].merge(cuts, on="user", how="left")
    for name in ("valid", "test"):
        known[name] = known[name].fillna(cuts[name].min() if config.split.by == "time" else np.inf)
    if not rows["user"].isin(cuts["user"]).any():
        raise PlatformError(
            "no user of the impressions is one of the interactions",
            detail=f"such as {rows['user'].iloc[0]!r}",
            fix=f"give impressions.source the lists of the same people, or leave it empty; {BUILT_IN} are the built-in",
            code="bad_source",
        )
    late, latest = rows["time"].to_numpy() >= known["valid"], rows["time"].to_numpy() >= known["test"]
    return rows.assign(part=np.where(latest, "test", np.where(late, "valid", "train")))


def read_impressions(config: RecommendConfig, built_in: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """The table that ``impressions.source`` names, without the rows of who is forgotten.

    Raises:
        PlatformError: as ingest does; and see `checked`.
    """
    import pyarrow as pa

    from pipelines.data import forgotten
    from pipelines.data.chunks import Chunk
    from pipelines.recipes.recommend.items import read_columns

    settings = config.impressions
    if settings.source == BUILT_IN:
        table = pa.Table.from_pandas(built_in(), preserve_index=False)
        return checked(forgotten.without(Chunk(table, table.num_rows)).table.to_pandas())
    found = read_columns(settings.source, settings.data, COLUMNS, "impressions", OPTIONAL)
    return checked(pa.concat_tables(list(found), promote_options="permissive").to_pandas())


def fingerprint(config: RecommendConfig, built_in: Callable[[], pd.DataFrame]) -> dict[str, Any]:
    """Changes when the impressions do."""
    import pandas as pd

    if not config.impressions.source:
        return {"impressions": 0}
    rows = read_impressions(config, built_in)
    return {"impressions": int(pd.util.hash_pandas_object(rows, index=False).sum() % 2**63), "rows": len(rows)}


def checked(frame: pd.DataFrame) -> pd.DataFrame:
    """Impressions with their types, sorted by list and place; ``time`` becomes seconds since 1970.

    Raises:
        PlatformError: ``code="bad_impressions"``, naming the column, the list and the place.
    """
    if not len(frame):
        raise _bad("there are no impressions", "the table is empty", "give a table with rows, or leave it out")
    made = frame[[name for name in (*COLUMNS, *OPTIONAL) if name in frame]].reset_index(drop=True).copy()
    for name in ("list", "user", "item"):
        if made[name].isna().any() or (made[name].astype(str) == "").any():
            raise _wrong(made, made[name].isna() | (made[name].astype(str) == ""), name, "a name")
        made[name] = made[name].astype(str)
    made["place"] = _numbers(made, "place", "a whole number from 1", lambda at: (at >= 1) & (at % 1 == 0))
    made["place"] = made["place"].astype(np.int64)
    clicked = made["clicked"].map(lambda one: _CLICKED.get(str(one).strip().lower()) if one is not None else False)
    if clicked.isna().any():
        raise _wrong(made, clicked.isna(), "clicked", "0 or 1")
    made["clicked"] = clicked.astype(bool)
    made["time"] = _seconds(made)
    if "propensity" not in made:
        made["propensity"] = 1.0
    made["propensity"] = _numbers(made, "propensity", "a chance above 0 and up to 1", lambda at: (at > 0) & (at <= 1))
    again = made.duplicated(["list", "place"]) | made.duplicated(["list", "item"])
    if again.any():
        raise _wrong(made, again, "place", "each place and each item once in a list")
    made["time"] = made.groupby("list")["time"].transform("min")
    return made.sort_values(["time", "list", "place"], kind="stable").reset_index(drop=True)


def _numbers(frame: pd.DataFrame, name: str, accepted: str, fits: Callable[[Any], Any]) -> Any:
    import pandas as pd

    found = pd.to_numeric(frame[name], errors="coerce")
    if (wrong := ~fits(found.fillna(-1))).any():
        raise _wrong(frame, wrong, name, accepted)
    return found.astype(float)


def _seconds(frame: pd.DataFrame) -> Any:
    import pandas as pd

    given = frame["time"]
    numbers = pd.to_numeric(given, errors="coerce") if not pd.api.types.is_datetime64_any_dtype(given) else None
    if numbers is not None and numbers.notna().all():
        return numbers.astype(float)
    moments = pd.to_datetime(given, utc=True, errors="coerce", format=None if numbers is None else "ISO8601")
    if moments.isna().any():
        raise _wrong(frame, moments.isna(), "time", "RFC 3339, or seconds since 1970")
    return moments.to_numpy(dtype="datetime64[us]").astype(np.int64) / 1e6


def _wrong(frame: pd.DataFrame, wrong: Any, name: str, accepted: str) -> PlatformError:
    row = frame[np.asarray(wrong, dtype=bool)].iloc[0]
    got = f"list {row['list']!r}, place {row['place']}, item {row['item']!r} has {row[name]!r}"
    count = int(np.sum(wrong))
    return _bad(
        f"impressions: column {name!r} must be {accepted}", f"{got}; one of {count:,} rows", "correct the table", name
    )


def _bad(headline: str, detail: str, fix: str, column: str = "") -> PlatformError:
    return PlatformError(
        headline, detail=detail, fix=fix, code="bad_impressions", **({"column": column} if column else {})
    )
