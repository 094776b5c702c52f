"""The history of a feature store: what people and items did of late, a row whenever something happens.

Views are of the impressions, clicks and sales of the interactions. A row is known a microsecond after what it tells, so
no list is told of itself. `feature_repo.transforms.recommend` says what the numbers are.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from contracts.ranking_features import KINDS, WINDOWED
from pipelines.task import Progress

if TYPE_CHECKING:
    import pandas as pd

SALE = "sale"
SNAPSHOT = "windows"
_ROWS = 500_000  # of one write


def write_windows(interactions: pd.DataFrame, views: pd.DataFrame | None, out: Path, progress: Progress) -> None:
    """Write ``user_windows.parquet`` and ``item_windows.parquet``.

    Args:
        interactions: columns user, item, time and kind.  views: impressions, with time in seconds since 1970.
    """
    import pandas as pd

    taken = interactions[interactions["time"].notna()]
    micros = taken["time"].to_numpy(dtype="datetime64[us]").astype(np.int64)
    codes = {name: at for at, name in enumerate(KINDS)}
    sold = (taken["kind"] == SALE).to_numpy(dtype=bool, na_value=False)
    parts = [_events(taken, micros, codes["clicks"]), _events(taken[sold], micros[sold], codes["sales"])]
    if views is not None:
        seen = np.round(views["time"].to_numpy(dtype=np.float64) * 1e6).astype(np.int64)
        parts.append(_events(views, seen, codes["views"]))
    events = pd.concat(parts, ignore_index=True).sort_values("micros", kind="stable")
    out.mkdir(parents=True, exist_ok=True)
    for done, side in enumerate(("user", "item"), start=1):
        _write(side, events, out / f"{side}_windows.parquet")
        progress(done, 2)


def _events(frame: pd.DataFrame, micros: Any, kind: int) -> pd.DataFrame:
    found = frame[["user", "item"]].astype(str)
    return found.assign(micros=micros, kind=kind)


def _write(side: str, events: pd.DataFrame, path: Path) -> None:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    from feature_repo.transforms.recommend import states

    entity, names = pd.factorize(events[side], sort=True)
    given = (events["micros"].to_numpy(), events["kind"].to_numpy(dtype=np.int64))
    of, at, columns = states(side, entity.astype(np.int64), *given)
    last = f"{side}_last"
    made: dict[str, Any] = {
        name: pa.array(values, pa.float64() if name == last else pa.float32()) for name, values in columns.items()
    }
    if side == "user":
        moments, latest = _clicks(events, entity, of, at)
        made |= {"user_last_click": pa.array(moments, from_pandas=True), "user_last_clicks": pa.array(latest)}
    keys = pa.DictionaryArray.from_arrays(pa.array(of.astype(np.int32)), pa.array(names.to_numpy(dtype=object)))
    known = pa.array(at + 1, type=pa.timestamp("us", tz="UTC"))
    pq.write_table(
        pa.table({side: keys, "known_at": known, **made}), path, compression="zstd", compression_level=1,
        row_group_size=_ROWS,
    )  # fmt: skip


def _clicks(events: pd.DataFrame, entity: Any, of: Any, at: Any) -> tuple[Any, list[str]]:
    """Of each row of a person the moment of the last click, in seconds, and the latest items clicked."""
    from feature_repo.transforms.recommend import clicked

    mine = (events["kind"] == KINDS.index("clicks")).to_numpy()
    who, when, what = entity[mine], events["micros"].to_numpy()[mine], events["item"].to_numpy()[mine]
    order = np.lexsort((when, who))
    who, when, what = who[order], when[order], what[order]
    moments, latest = np.full(len(of), np.nan), list[str]()
    place, person, known = 0, -1, ""
    for row, (one, moment) in enumerate(zip(of.tolist(), at.tolist(), strict=True)):
        if one != person:
            person, known, last = one, "", np.nan
        while place < len(who) and (who[place], when[place]) <= (one, moment):
            known, last = clicked(known, [what[place]]), when[place] / 1e6
            place += 1
        moments[row] = last
        latest.append(known)
    return moments, latest


def joined(frames: dict[str, pd.DataFrame], history: Any) -> dict[str, pd.DataFrame]:
    """The parts of a split with the features of each impression at its moment, and a part `SNAPSHOT`: those of every
    person and item just after the last interaction of training and validation."""
    import pandas as pd

    from pipelines.data.features import join

    shown = frames["impressions"]
    found = join(_asked(shown["user"].to_numpy(), shown["item"].to_numpy(), shown["time"].to_numpy()), history)
    added = {name: found[name].to_numpy(dtype=np.float64, na_value=np.nan) for name in WINDOWED}
    learned = pd.concat([frames["train"], frames["valid"]])
    end = float(learned["seconds"].max()) + 2e-6
    users, items, nobody = sorted(learned["user"].unique()), frames["items"]["item"].tolist(), [None]
    asked = [_asked(users, nobody * len(users), end), _asked(nobody * len(items), items, end)]
    last = join(pd.concat(asked, ignore_index=True), history)
    return {**frames, "impressions": shown.assign(**added), SNAPSHOT: last[["user", "item", *WINDOWED]]}


def _asked(users: Any, items: Any, seconds: Any) -> pd.DataFrame:
    import pandas as pd

    micros = np.round(np.broadcast_to(np.asarray(seconds, dtype=np.float64), len(users)) * 1e6).astype(np.int64)
    return pd.DataFrame({"user": users, "item": items, "time": pd.to_datetime(micros, unit="us", utc=True)})
