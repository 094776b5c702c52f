"""A table of the people: of what group each is, by the attributes that a recipe names and no other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from contracts.errors import PlatformError
from contracts.problems.ranking import OF_GROUP, SEPARATOR
from pipelines.settings import setting

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.recipes.recommend.settings import UsersConfig

BUILT_IN = "built-in"
_TAKEN = ("user", "attributes", "age")  # names that a request's context gives another meaning
_NAME = 256  # characters


def read_users(
    config: UsersConfig, frame: pd.DataFrame, built_in: Callable[[], pd.DataFrame | None], sensitive: Sequence[str] = ()
) -> pd.DataFrame | None:
    """The people that ``users.source`` names, without who is forgotten: columns user and those of ``users.groups``, as
    texts, empty where nothing is stated. None: there is no table.

    Args:
        frame: the interactions.  built_in: gives the table of the built-in data, None where `frame` is not theirs.
        sensitive: columns that the task declares as such; none of them may be a group.

    Raises:
        PlatformError: as ingest does; ``code="bad_config"``: no group is named, or none of that name can be;
            ``code="bad_users"``, naming the column and the person.
    """
    if not config.source:
        return None
    _check_groups(config, sensitive)
    made = _read(config, built_in)
    if made is None:
        return None
    found = checked(made, config.groups)
    if len(frame) and not frame["user"].astype(str).isin(set(found["user"])).any():
        raise PlatformError(
            "the table of users has none of the users of the interactions",
            detail=f"interactions have {frame['user'].iloc[0]!r}, the table "
            + (repr(found["user"].iloc[0]) if len(found) else "no row"),
            fix="name the column of the same names: --set users.data.columns.user=NAME",
            code="bad_source",
            column="user",
        )
    return found


def _read(config: UsersConfig, built_in: Callable[[], pd.DataFrame | None]) -> pd.DataFrame | None:
    import pyarrow as pa

    from pipelines.data import forgotten
    from pipelines.data.chunks import Chunk
    from pipelines.recipes.recommend.items import read_columns

    if config.source == BUILT_IN:
        rows = built_in()
        if rows is None:
            return None
        table = pa.Table.from_pandas(rows, preserve_index=False)
        table = forgotten.without(Chunk(table, table.num_rows)).table
    else:
        found = list(read_columns(config.source, config.data, ("user", *config.groups), "users"))
        table = pa.concat_tables(found, promote_options="permissive")
    people: pd.DataFrame = table.to_pandas()
    return people


def _check_groups(config: UsersConfig, sensitive: Sequence[str]) -> None:
    """Only what a setting names is used, and what is sensitive is not."""
    for name in config.groups:
        if name in sensitive:
            said, fix = "which the task declares sensitive", "take another attribute, or none"
        elif name in _TAKEN or not name.strip() or SEPARATOR in name or OF_GROUP in name:
            said = "which means something else in a request"
            fix = f"give it another name, as {setting('users.data.columns.age_group', 'age')} does"
        else:
            continue
        raise PlatformError(f"users.groups has {name!r}, {said}", fix=fix, code="bad_config", column=name)
    if not config.groups:
        raise PlatformError(
            "users.source says who people are, and users.groups names no attribute that may be used",
            fix=f"name it, or leave the table out: {setting('users.groups', ['country'])}",
            code="bad_config",
        )


def checked(frame: pd.DataFrame, groups: Sequence[str]) -> pd.DataFrame:
    """People with their groups as texts, in the order of their names; rows that say the same count once.

    Raises:
        PlatformError: ``code="bad_users"``: a person without a name, an attribute that is no name, or somebody who is
            of two groups of a kind.
    """
    made = frame[["user", *groups]].astype(object).reset_index(drop=True)
    for name in made.columns:
        made[name] = [_text(value) for value in made[name]]
    for name in made.columns:
        wrong = made[name].isna() | ((made[name] == "") if name == "user" else False)
        if wrong.any():
            row = frame.reset_index(drop=True)[wrong.to_numpy()].iloc[0]
            raise _bad(
                f"users: column {name!r} must be a name of 1 to {_NAME} characters without {SEPARATOR}",
                f"user {row['user']!r} has {row[name]!r}, one of {int(wrong.sum()):,}",
                "write it as a text; of a number, such as an age, write the group: 30 to 39",
                name,
            )
    made = made.drop_duplicates()
    if (again := made["user"].duplicated(keep=False)).any():
        two = made[again].sort_values("user", kind="stable").head(2)
        name = next(name for name in groups if two[name].iloc[0] != two[name].iloc[1])
        raise _bad(
            "users: somebody is in the table twice, with different attributes",
            f"user {two['user'].iloc[0]!r} has {name} {two[name].iloc[0]!r} and {two[name].iloc[1]!r}; "
            f"{made['user'][again].nunique():,} such people",
            "keep one row for each person",
            name,
        )
    return made.sort_values("user", kind="stable").reset_index(drop=True)


def _text(value: Any) -> str | None:
    """A name; "" where nothing is stated, None where it is none. Whole numbers and truth values have a name."""
    if value is None or type(value).__name__ in ("NaTType", "NAType"):
        return ""
    if isinstance(value, float | np.floating):
        if np.isnan(value):
            return ""
        value = int(value) if float(value).is_integer() else value
    if not isinstance(value, str | int | np.integer | np.bool_):
        return None
    text = str(value).strip()
    return None if len(text) > _NAME or SEPARATOR in text else text


def stated(table: pd.DataFrame, users: Any) -> list[str]:
    """The groups of people as the input `group` has them, such as ``region=north``; empty of who is not there."""
    names = [name for name in table.columns if name != "user"]
    rows = table.set_index("user").reindex(users).fillna("")
    return [
        SEPARATOR.join(f"{name}{OF_GROUP}{value}" for name, value in zip(names, row, strict=True) if value)
        for row in rows.itertuples(index=False)
    ]


def _bad(headline: str, detail: str, fix: str, column: str) -> PlatformError:
    return PlatformError(headline, detail=detail, fix=fix, code="bad_users", column=column)
