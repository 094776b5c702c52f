"""Interactions to what is learned from, what chooses, and what is measured: of the last, a row for each person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from contracts.errors import PlatformError
from contracts.problems.ranking import SEPARATOR
from pipelines.settings import setting

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from pipelines.recipes.recommend.settings import RecommendConfig, SplitConfig

ITEMS = "items"
KINDS = ("click", "sale")  # of an interaction; none is a click
TRAIN, VALID, TEST, FUTURE, AGAIN, RARE = "train", "valid", "test", "future", "again", "rare"
_REASONS = {
    FUTURE: "the interaction is in the future",
    AGAIN: "the person took the item before",
    RARE: "fewer than split.min_people took the item",
}
_YEAR = 365 * 86_400.0
_BANDS = ((0, "none"), (5, "1 to 5"), (20, "6 to 20"), (100, "21 to 100"))


def split_interactions(frame: pd.DataFrame, config: RecommendConfig) -> dict[str, pd.DataFrame]:
    """``train`` and ``valid`` have a row for each interaction, ``test`` one for each person who took something, and
    ``items`` one for each item that there is, with its attributes and its text.

    Raises:
        PlatformError: names with the sign that separates them, or that differ by spaces alone, moments that are missing
            or all of 1970, parts that are not named or that nothing is left for, a table of other items.
    """
    table = _table(config)
    rows = _checked(frame, config, table)
    rows["fate"] = _fates(rows, config.split)
    made = {name: _interactions(rows[rows["fate"] == name]) for name in (TRAIN, VALID)} | {TEST: _people(rows)}
    if empty := [name for name in (TRAIN, TEST) if not len(made[name])]:
        raise _nothing_left(empty[0], rows, config.split)
    return {**made, ITEMS: _items(rows, table)}


def _nothing_left(name: str, rows: pd.DataFrame, split: SplitConfig) -> PlatformError:
    """What is most likely the reason, and what helps."""
    counts, most = rows["fate"].value_counts(), len(rows) / 2
    fix = f"give more interactions, or split them otherwise: {setting('split.by', 'drawn')}"
    if counts.get(FUTURE, 0) > most:
        fix = "correct the moments, or say how they are written: --set data.times.time=s"
    elif counts.get(RARE, 0) > most:
        fix = f"let rarer items in: {setting('split.min_people', 1)}"
    elif name == TEST and not rows["liked"].any():
        fix = f"no rating is as high, lower it: {setting('split.likes_from', 1)}"
    said = {**dict.fromkeys((TRAIN, VALID, TEST), "part {}"), **dict.fromkeys(_REASONS, "left out, {}")}
    of_fates = {str(fate): int(count) for fate, count in counts.items()}
    parts = [f"{said[fate].format(_REASONS.get(fate, fate))}: {count:,}" for fate, count in of_fates.items()]
    return PlatformError(
        f"the split by {split.by} leaves nothing for {name}", detail="; ".join(parts), fix=fix, code="empty_split"
    )


def moments(frame: pd.DataFrame, config: RecommendConfig) -> pd.DataFrame:
    """When the validation and the test part of each person begin, in seconds since 1970: columns user, valid, test.

    Raises:
        PlatformError: the parts are not parts of time.
    """
    import pandas as pd

    if config.split.by in ("part", "drawn"):
        raise PlatformError(
            "impressions are split by their moment, and this split has none",
            fix=f"split by time, {setting('split.by', 'time')}, or leave impressions.source empty",
            code="bad_config",
        )
    rows = _checked(frame, config, {})
    rows["fate"], rows["user"] = _fates(rows, config.split), rows["user"].astype(str)
    users = pd.Index(rows["user"].unique(), name="user")
    found = pd.DataFrame(index=users)
    for name, part in (("test", (TEST,)), ("valid", (VALID, TEST))):
        later = rows[rows["fate"].isin(part)]
        first = later["seconds"].min() if config.split.by == "time" else later.groupby("user")["seconds"].min()
        found[name] = first if config.split.by == "time" else first.reindex(users).fillna(np.inf)
    return found.reset_index()


def left_out(frame: pd.DataFrame, config: RecommendConfig) -> Mapping[str, Any]:
    """Why interactions are in no part, a mask by reason."""
    fate = _fates(_checked(frame, config, {}), config.split).reindex(frame.index)
    return {reason: (fate == name).to_numpy() for name, reason in _REASONS.items()}


def _table(config: RecommendConfig) -> dict[str, tuple[str, str]]:
    """The table of items, where there is one."""
    if not config.items.source:
        return {}
    from pipelines.recipes.recommend.items import read_items

    return read_items(config.items)


def _items(rows: pd.DataFrame, table: Mapping[str, tuple[str, str]]) -> pd.DataFrame:
    """All items that are in the table or were taken by anybody, in the past that the data have."""
    import pandas as pd

    taken = rows[~rows["fate"].isin([FUTURE, RARE])].drop_duplicates("item", keep="last")
    said = zip(taken["item"].astype(str), taken["item_attributes"], strict=True)
    every = {item: (attributes, "") for item, attributes in said} | dict(table)
    items = sorted(every)
    both = [every[item] for item in items]
    return pd.DataFrame({"item": items, "attributes": [a for a, _ in both], "text": [t for _, t in both]}, dtype=object)


def _checked(frame: pd.DataFrame, config: RecommendConfig, table: Mapping[str, tuple[str, str]]) -> pd.DataFrame:
    """The interactions in the order of time, each with its item's attributes and whether it was liked."""

    for name in ("user", "item"):
        wrong = frame[name].astype(str).str.contains(SEPARATOR, regex=False)
        if wrong.any():
            raise PlatformError(
                f"column {name!r} has a name with {SEPARATOR}, which separates names in lists",
                detail=f"row {frame.loc[wrong, 'id'].iloc[0]}, one of {int(wrong.sum()):,}",
                fix="write names without it",
                code="bad_label",
                column=name,
            )
    _check_names(frame, table)
    _check_kinds(frame)
    by, least = config.split.by, config.split.likes_from
    if by not in ("part", "drawn") and frame["time"].isna().any():
        raise PlatformError(
            f"the split by {by} needs the moment of each interaction",
            detail=f"row {frame.loc[frame['time'].isna(), 'id'].iloc[0]} has none",
            fix=f"name its column: --set data.columns.time=NAME; without any: {setting('split.by', 'drawn')}",
            code="bad_config",
            column="time",
        )
    rows = frame[["id", "user", "item", "time", "part"]].copy()
    rows["seconds"] = _seconds(rows["time"])
    if rows["time"].notna().any() and 0 < rows["seconds"].max() < _YEAR:
        raise PlatformError(
            "all interactions are of 1970",
            detail=f"the latest: {rows['time'].max()}; seconds look so when they are read as milliseconds",
            fix="say how moments are written: --set data.times.time=s",
            code="bad_config",
            column="time",
        )
    rows["liked"] = True if least is None else (frame["rating"].isna() | (frame["rating"] >= least)).to_numpy(bool)
    rows["item_attributes"] = _attributes(frame, table)
    ordered: pd.DataFrame = rows.assign(_at=np.arange(len(rows))).sort_values(["seconds", "_at"], kind="stable")
    return ordered.drop(columns="_at")


def _check_names(frame: pd.DataFrame, table: Mapping[str, tuple[str, str]]) -> None:
    """Names that look alike are a mistake of the file, and so is a table that has none of the items."""
    import pandas as pd

    for name in ("user", "item"):
        names = pd.Series(frame[name].astype(str).unique())
        plain = names.str.strip()
        if (again := plain.duplicated(keep=False)).any():
            first = plain[again].iloc[0]
            raise PlatformError(
                f"column {name!r} has names that differ by spaces alone",
                detail=f"{', '.join(map(repr, names[plain == first]))}; {plain[again].nunique():,} such names",
                fix="write each name alike, without spaces around it",
                code="bad_label",
                column=name,
            )
    if table and len(frame) and not frame["item"].astype(str).isin(list(table)).any():
        raise PlatformError(
            "the table of items has none of the items of the interactions",
            detail=f"interactions have {frame['item'].iloc[0]!r}, the table {next(iter(table))!r}",
            fix="name the column of the same names: --set items.data.columns.item=NAME",
            code="bad_source",
            column="item",
        )


def _check_kinds(frame: pd.DataFrame) -> None:
    if "kind" not in frame:
        return
    wrong = ~frame["kind"].fillna("").astype(str).isin(["", *KINDS])
    if wrong.any():
        raise PlatformError(
            f"column 'kind' has {frame.loc[wrong, 'kind'].iloc[0]!r}",
            detail=f"row {frame.loc[wrong, 'id'].iloc[0]}, one of {int(wrong.sum()):,}; accepted: {', '.join(KINDS)}",
            fix="name what was done, or leave the column out: --set data.columns.kind=NAME says which one it is",
            code="bad_label",
            column="kind",
        )


def _seconds(times: pd.Series[Any]) -> NDArray[np.float64]:
    """Since 1970; 0 where there are no moments."""
    if times.isna().all():
        return np.zeros(len(times))
    return times.to_numpy(dtype="datetime64[us]").astype(np.int64) / 1e6


def _attributes(frame: pd.DataFrame, table: Mapping[str, tuple[str, str]]) -> pd.Series[Any]:
    """Of the interaction's item, from the table of items where there is one."""
    if not table:
        return frame["attributes"].fillna("").astype(str)
    return frame["item"].astype(str).map({item: attributes for item, (attributes, _) in table.items()}).fillna("")


def _fates(rows: pd.DataFrame, split: SplitConfig) -> pd.Series[Any]:
    """The part of each interaction, or why it is in none."""
    import pandas as pd

    fate = pd.Series(TRAIN, index=rows.index, dtype=object)
    now = pd.Timestamp.now(tz="UTC").timestamp()
    fate[rows["seconds"] > now] = FUTURE
    people = rows[fate != FUTURE].groupby("item")["user"].nunique()
    rare = rows["item"].map(people).fillna(0) < split.min_people
    fate[(fate == TRAIN) & rare] = RARE
    kept = rows[fate == TRAIN]
    fate[kept.index] = _part(kept, split)
    taken = kept.assign(fate=fate[kept.index])
    fate[taken.index[taken.duplicated(["user", "item"], keep="first")]] = AGAIN
    return fate


def _part(rows: pd.DataFrame, split: SplitConfig) -> pd.Series[Any]:
    import pandas as pd

    made = pd.Series(TRAIN, index=rows.index, dtype=object)
    valid, test = (1 - split.test_share) * (1 - split.valid_share), 1 - split.test_share
    if split.by == "part":
        return _named_part(rows, split.valid_share)
    if split.by == "drawn":
        made = made.mask(_drawn(rows, made == TRAIN, split.test_share), TEST)
        return made.mask(_drawn(rows, made == TRAIN, split.valid_share), VALID)
    if split.by == "time":
        seconds = rows["seconds"]
        made[seconds > seconds.quantile(valid)] = VALID
        made[seconds > seconds.quantile(test)] = TEST
        return made
    people = rows.groupby("user")
    place, count = people.cumcount(), people["item"].transform("size")
    if split.by == "leave_one_out":
        made[(place == count - 2) & (count > 2)] = VALID
        made[(place == count - 1) & (count > 1)] = TEST
        return made
    made[place >= np.ceil(count * valid)] = VALID
    made[place >= np.ceil(count * test)] = TEST
    return made


def _named_part(rows: pd.DataFrame, valid_share: float) -> pd.Series[Any]:
    """As the column says; without validation a hash draws a share of what each person has for training.

    Raises:
        PlatformError: another name, or no test.
    """
    made = rows["part"].fillna("").astype(str).str.strip()
    wrong = ~made.isin([TRAIN, VALID, TEST])
    if wrong.any() or not (made == TEST).any():
        got = f"row {rows.loc[wrong, 'id'].iloc[0]} is in none" if wrong.any() else "no row is in test"
        raise PlatformError(
            "column 'part' must name the part of each interaction: train, valid or test",
            detail=got,
            fix=f"correct it, or split otherwise: {setting('split.by', 'time')}",
            code="bad_label",
            column="part",
        )
    return made if (made == VALID).any() else made.mask(_drawn(rows, made == TRAIN, valid_share), VALID)


def _drawn(rows: pd.DataFrame, among: pd.Series[Any], share: float) -> pd.Series[Any]:
    """A share of what each person has `among` the rows, drawn by a hash of person and item; never all of it."""
    import pandas as pd

    pairs = (rows["user"].astype(str) + SEPARATOR + rows["item"].astype(str)).to_numpy(dtype=object)
    drawn = pd.Series(pd.util.hash_array(pairs, categorize=False), index=rows.index)[among]
    people = drawn.groupby(rows["user"][drawn.index])
    size = people.transform("size")
    chosen = people.rank(method="first") <= np.ceil(size * share)
    found: pd.Series[Any] = (chosen & (size > 1)).reindex(rows.index, fill_value=False)
    return found


def _interactions(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows to learn from, in the order of time."""
    user, item = rows["user"].astype(str), rows["item"].astype(str)
    made = _asked(rows.assign(user=user))
    made["id"], made["label"] = rows["id"].astype(str), item
    made["seconds"], made["liked"], made["item_attributes"] = rows["seconds"], rows["liked"], rows["item_attributes"]
    moment = rows["seconds"].astype(np.int64).astype(str)
    made["row_key"] = user + "\x1f" + item + "\x1f" + moment
    return made.reset_index(drop=True)


def _asked(rows: pd.DataFrame) -> pd.DataFrame:
    """The inputs: who asks, or a session of nobody known, and nothing that is asked for beside it."""
    made = rows[["user"]].copy()
    for name in ("items", "exclude", "attributes"):
        made[name] = rows[name] if name in rows and name != "attributes" else ""
    return made.assign(k=np.nan, diversity=np.nan, explore=0, age=0.0)


def _people(rows: pd.DataFrame) -> pd.DataFrame:
    """A row for each person who liked something new in the test part: what is known before it, and what they took.

    The person has no name here: the list must follow from the history alone, whatever else the model knows by then.
    """
    import pandas as pd

    rows = rows.assign(user=rows["user"].astype(str), item=rows["item"].astype(str))
    known, later = rows[rows["fate"].isin([TRAIN, VALID])], rows[rows["fate"] == TEST]

    def joined(some: pd.DataFrame) -> pd.Series[Any]:
        return some.groupby("user")["item"].agg(SEPARATOR.join)

    label = joined(later[later["liked"]]).sort_index()
    users = label.index
    made = pd.DataFrame({
        "user": "",
        "items": joined(known[known["liked"]]).reindex(users).fillna(""),
        "exclude": joined(known[~known["liked"]]).reindex(users).fillna(""),
    })  # fmt: skip
    made = _asked(made)
    made["id"], made["who"], made["label"] = users, users, label
    made["unliked"] = joined(later[~later["liked"]]).reindex(users).fillna("")
    made["row_key"] = "person\x1f" + users + "\x1f" + label
    counts = known[known["liked"]].groupby("user").size().reindex(users).fillna(0)
    made["slice_activity"] = [_band(int(count)) for count in counts]
    made["slice_taste"] = _tastes(known[known["liked"]], users)
    return made.reset_index(drop=True)


def _band(count: int) -> str:
    return next((name for most, name in _BANDS if count <= most), "over 100")


def _tastes(known: pd.DataFrame, users: Any) -> list[str]:
    """Whether people take what most people take, in thirds (H. Abdollahpouri et al., 2019)."""
    people = known.groupby("item")["user"].nunique()
    mean = known["item"].map(people).groupby(known["user"]).mean().reindex(users)
    low, high = (mean.quantile(part) for part in (1 / 3, 2 / 3))
    return [
        "unknown" if value != value else "niche" if value <= low else "mainstream" if value > high else "between"
        for value in mean.tolist()
    ]
