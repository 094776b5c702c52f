"""What people and items did of late: counts in windows that move, of two buckets each.

Of a window as long as its bucket, the count at a moment is that of the bucket it lies in, and of the bucket before the
share that the window still covers. A row is a few numbers whatever happened, it can be moved on by one event, and with
its moment it says the counts at any later one. `states` makes the rows of a history, `moved` the next row of a store;
`list_request` makes features of either, for training and serving alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.ranking_features import CONTEXT, ITEM, KINDS, PERSON, SPANS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
MICROS = 1_000_000
LAST_CLICKS, SEPARATOR = 10, "|"
SIDES = ("user", "item")


def counts_of(side: str) -> tuple[str, ...]:
    """The names of the buckets in a row of a side."""
    return tuple(f"{side}_{kind}_{span}_{part}" for kind in KINDS for span in SPANS for part in ("now", "before"))


def rolled(now: Any, before: Any, last: Any, at: Any, width: int) -> tuple[Floats, Floats]:
    """Both buckets of a window at a later moment.

    Args:
        now, before: at `last`.  last, at: microseconds since 1970.  width: of a bucket, in microseconds.
    """
    steps = np.asarray(at) // width - np.asarray(last) // width
    zero = np.zeros(np.shape(steps))
    current = np.where(steps <= 0, now, zero)
    return current, np.where(steps <= 0, before, np.where(steps == 1, now, zero))


def states(side: str, entity: Ints, micros: Ints, kind: Ints) -> tuple[Ints, Ints, dict[str, Floats]]:
    """A row for each entity and moment at which something happened to it.

    Args:
        entity: codes.  micros: of each event, since 1970.  kind: places in `KINDS`.

    Returns:
        entity, moment of the last event, and the columns, sorted by both.
    """
    order = np.lexsort((micros, entity))
    entity, micros, kind = entity[order], micros[order], kind[order]
    keep = np.ones(len(entity), dtype=bool)
    keep[:-1] = (entity[1:] != entity[:-1]) | (micros[1:] != micros[:-1])
    of, at = entity[keep], micros[keep]
    start = int(micros.min()) - 2 * max(SPANS.values()) * MICROS if len(micros) else 0
    span = (int(micros.max()) - start + 2) if len(micros) else 1
    columns: dict[str, Floats] = {}
    for number, name in enumerate(KINDS):
        mine = kind == number
        keys = entity[mine] * span + (micros[mine] - start)

        def upto(moment: Ints, keys: Ints = keys) -> Ints:
            return np.searchsorted(keys, of * span + np.clip(moment - start, 0, span - 1), side="left").astype(np.int64)

        end = upto(at + 1)
        for label, seconds in SPANS.items():
            width = seconds * MICROS
            first = at // width * width
            begin = upto(first)
            columns[f"{side}_{name}_{label}_now"] = (end - begin).astype(np.float64)
            columns[f"{side}_{name}_{label}_before"] = (begin - upto(first - width)).astype(np.float64)
    columns[f"{side}_last"] = at / MICROS
    return of, at, columns


def moved(side: str, state: Mapping[str, Any], events: Mapping[str, int], at: int) -> dict[str, float]:
    """The buckets of an entity after events of one moment.

    Args:
        state: its row; empty or with None where nothing is known.  events: how many of each of `KINDS`.
        at: microseconds since 1970; one before the row's counts as the row's.
    """
    known = state.get(f"{side}_last")
    last = at if known is None or known != known else round(float(known) * MICROS)
    at = max(at, last)
    found: dict[str, float] = {}
    for kind in KINDS:
        for label, seconds in SPANS.items():
            names = [f"{side}_{kind}_{label}_{part}" for part in ("now", "before")]
            first, second = (float(state.get(name) or 0.0) if known is not None else 0.0 for name in names)
            now, before = rolled(first, second, last, at, seconds * MICROS)
            found |= {names[0]: float(now) + events.get(kind, 0), names[1]: float(before)}
    found[f"{side}_last"] = at / MICROS
    return found


def clicked(before: str | None, items: list[str]) -> str:
    """The latest items that a person clicked, the oldest first, after some more."""
    every = [*(before or "").split(SEPARATOR), *items]
    latest = list(dict.fromkeys(item for item in reversed(every) if item))[:LAST_CLICKS]
    return SEPARATOR.join(reversed(latest))


def list_request(columns: Mapping[str, NDArray[Any]]) -> dict[str, Floats]:
    """`PERSON`, `ITEM` and `CONTEXT` at the moments ``time`` (datetime64, UTC), each of shape (rows,).

    Counts of who is not known are 0; hours since a click are NaN where there was none.
    """
    moment = np.asarray(columns["time"], dtype="datetime64[us]")
    at = moment.astype(np.int64)
    made: dict[str, Floats] = {}
    for side in SIDES:
        last = _floats(columns, f"{side}_last")
        known = ~np.isnan(last)
        micros = np.round(np.where(known, last, 0.0) * MICROS).astype(np.int64)
        for kind in KINDS:
            for label, seconds in SPANS.items():
                width = seconds * MICROS
                now, before = (_floats(columns, f"{side}_{kind}_{label}_{part}") for part in ("now", "before"))
                now, before = rolled(now, before, micros, at, width)
                count = now + before * (1 - at % width / width)
                made[f"{side}_{kind}_{label}"] = np.where(known & ~np.isnan(count), count, 0.0)
    for label in SPANS:
        views, clicks = made[f"item_views_{label}"], made[f"item_clicks_{label}"]
        made[f"item_click_rate_{label}"] = np.divide(clicks, views, out=np.zeros(len(views)), where=views > 0)
    made["user_hours_since_click"] = (at / MICROS - _floats(columns, "user_last_click")) / 3_600
    day = at / MICROS / 86_400
    made["hour"] = (day - np.floor(day)) * 24
    made["weekend"] = ((np.floor(day) + 3) % 7 >= 5).astype(np.float64)  # 1970-01-01 was a Thursday
    return {name: made[name] for name in (*PERSON, *ITEM, *CONTEXT)}


def _floats(columns: Mapping[str, NDArray[Any]], name: str) -> Floats:
    return np.asarray(columns[name], dtype=np.float64)
