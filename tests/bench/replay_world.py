"""The real fraud months as a stream: what is asked when, what the features are by then, and how the world may change.

Every fourth customer makes the features and the sets to train on, every sixteenth is asked about.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from contracts.errors import PlatformError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

LABELS_LATE = 7.0  # days
STATIONARY, START, END = "2018-06-01", "2018-05-20", "2018-08-01"  # all windows of features are full by the first
_NAMES = {
    "TRANSACTION_ID": "transaction_id",
    "TX_DATETIME": "event_time",
    "CUSTOMER_ID": "customer_id",
    "TERMINAL_ID": "terminal_id",
    "TX_AMOUNT": "amount",
    "TX_FRAUD": "fraud",
}
_SHARE, _ASKED = 4, 16
Change = Callable[["pd.DataFrame"], "pd.DataFrame"]


def read_months(folder: Path) -> pd.DataFrame:
    """The payments of some customers, in the task's own columns and in the order of time."""
    import pandas as pd

    files = sorted((folder / "fraud").glob("transactions_*.csv"))
    if not files:
        raise PlatformError(f"no payments in {folder / 'fraud'}", fix="set FAIRLEAD_TEST_DATA to the folder above it")
    parts = []
    for file in files:
        part = pd.read_csv(file, usecols=list(_NAMES)).rename(columns=_NAMES)
        parts.append(part[part["customer_id"] % _SHARE == 0])
    whole = pd.concat(parts, ignore_index=True)
    whole["event_time"] = pd.to_datetime(whole["event_time"], utc=True)
    for name in ("transaction_id", "customer_id", "terminal_id"):
        whole[name] = whole[name].astype(str)
    return whole.sort_values(["event_time", "transaction_id"], ignore_index=True)


def new_fraud(frame: pd.DataFrame) -> pd.DataFrame:
    """A tenth of the terminals are taken over by those who try cards with small amounts; nobody did before."""
    taken = (frame["terminal_id"].astype(int) % 10 == 0) & (frame["amount"] < 15)
    return frame.assign(fraud=np.where(taken, 1, frame["fraud"]))


def in_cents(frame: pd.DataFrame) -> pd.DataFrame:
    """Amounts come in cents."""
    return frame.assign(amount=(frame["amount"] * 100).round(2))


def no_large(frame: pd.DataFrame) -> pd.DataFrame:
    """The bands of amounts above 50 vanish: such payments go elsewhere."""
    return frame[frame["amount"] < 50]


CHANGES: Mapping[str, Change] = {"new fraud": new_fraud, "amounts in cents": in_cents, "a band vanishes": no_large}


def as_given(payments: pd.DataFrame) -> pa.Table:
    """Payments with the columns that the recipe reads."""
    import pyarrow as pa

    named = payments.rename(columns={mine: theirs for theirs, mine in _NAMES.items()})
    return pa.Table.from_pandas(named, preserve_index=False)


@dataclass
class Slice:
    """What happens in a moment of the replay: requests with their truth, and rows that become known of each view."""

    until: Any
    asked: list[tuple[dict[str, Any], int]]
    known: dict[str, pd.DataFrame]


class World:
    """The payments from `START` on, changed `change_day` days later; without a change those from `STATIONARY` on."""

    def __init__(self, months: pd.DataFrame, folder: Path, change: Change | None, change_day: float) -> None:
        import pandas as pd

        self.start = pd.Timestamp(START if change is not None else STATIONARY, tz="UTC")
        self.change = self.start + pd.Timedelta(days=change_day)
        self.payments = months[months["event_time"] < END]
        if change is not None:
            new = self.payments["event_time"] >= self.change
            parts = [self.payments[~new], change(self.payments[new])]
            self.payments = pd.concat(parts, ignore_index=True)
        self.source, self._folder = folder / "payments.parquet", folder
        folder.mkdir(parents=True, exist_ok=True)
        self._times = pd.DatetimeIndex(self.payments["event_time"])
        self._given = as_given(self.payments)
        self._views = self._history()
        self.publish(self.start + pd.Timedelta(days=LABELS_LATE))

    def publish(self, now: Any) -> None:
        """Write what can be trained on at this moment, the file whole."""
        import pandas as pd
        from pyarrow import parquet

        count = int(self._times.searchsorted(now - pd.Timedelta(days=LABELS_LATE)))
        fresh = self.source.with_suffix(".new")
        parquet.write_table(self._given.slice(0, count), fresh)
        fresh.replace(self.source)

    def known(self, until: Any) -> pd.DataFrame:
        """The payments before a moment."""
        return self.payments[self.payments["event_time"] < until]

    def _history(self) -> dict[str, pd.DataFrame]:
        """What becomes known of customers and terminals from the start on, by view."""
        import pandas as pd

        from pipelines.tasks.fraud.features import write_history

        clean, out = self._folder / "clean", self._folder / "history"
        clean.mkdir(exist_ok=True)
        self.payments.to_parquet(clean / "part-00000.parquet", index=False)
        write_history(clean, out, lambda done, total, **more: None)
        found = {}
        for name in ("customer_windows", "terminal_windows"):
            rows = pd.read_parquet(out / f"{name}.parquet")
            key = "customer_id" if name.startswith("customer") else "terminal_id"
            rows[key] = rows[key].astype(str)
            found[name] = rows[rows["known_at"] >= self.start - pd.Timedelta(days=45)].sort_values("known_at")
        return found

    def before(self) -> dict[str, pd.DataFrame]:
        """The newest row of each customer and terminal as the replay begins, by view."""
        found = {}
        for name, rows in self._views.items():
            old = rows[rows["known_at"] < self.start]
            found[name] = old.drop_duplicates(subset=[old.columns[0]], keep="last")
        return found

    def stream(self, per_day: int) -> Iterator[Slice]:
        """The replay in slices, `per_day` of them a day."""
        import pandas as pd

        step = pd.Timedelta(days=1) / per_day
        new = self.payments[self.payments["event_time"] >= self.start]
        asked = new[new["customer_id"].astype(int) % _ASKED == 0]
        times = pd.DatetimeIndex(asked["event_time"])
        seen = {name: pd.DatetimeIndex(rows["known_at"]) for name, rows in self._views.items()}
        rows = asked[["customer_id", "terminal_id", "amount", "event_time", "fraud"]]
        count = math.ceil((pd.Timestamp(END, tz="UTC") - self.start) / step)
        for at in range(count):
            low, high = self.start + step * at, self.start + step * (at + 1)
            first, last = times.searchsorted(low), times.searchsorted(high)
            known = {}
            for name, moments in seen.items():
                part = self._views[name].iloc[moments.searchsorted(low) : moments.searchsorted(high)]
                known[name] = part.drop_duplicates(subset=[part.columns[0]], keep="last")
            bodies = [_body(row) for row in rows.iloc[first:last].to_dict("records")]
            yield Slice(self.start + step * (at + 1), bodies, known)


def _body(row: Any) -> tuple[dict[str, Any], int]:
    truth = int(row.pop("fraud"))
    return {"instances": [{**row, "event_time": row["event_time"].isoformat()}]}, truth
