"""How logged predictions treat groups, by a table that says whose prediction is whose: the log knows no group."""

from __future__ import annotations

import csv
import io
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from contracts import storage
from contracts.errors import PlatformError

if TYPE_CHECKING:
    from contracts.bundle import BundleDocument, Check
    from services.feedback.joining import Joined

KEY = "id"  # of predictions
_MOST = 200_000  # predictions that are measured, the newest


@dataclass(frozen=True, kw_only=True)
class GroupTable:
    """Groups by the value of `key`: the id of a prediction, or one of its entities.

    Attributes:
        columns: kinds of groups.  of: for each value of the key the group of each column.
    """

    key: str
    columns: tuple[str, ...]
    of: Mapping[str, tuple[str, ...]]

    def find(self, one: Joined) -> tuple[str, ...] | None:
        """The groups of a prediction; None where the table does not know it."""
        prediction = one.prediction
        value = prediction.id if self.key == KEY else prediction.entities.get(self.key)
        return None if value is None else self.of.get(str(value))


def read_groups(address: str, columns: Sequence[str] = (), key: str = KEY) -> GroupTable:
    """The table in a CSV or Parquet file, or object; `columns`: of groups, all but the key by default.

    Raises:
        PlatformError: it is not there, lacks a column, or has a value of the key twice.
    """
    from contracts.fairness import NOT_STATED

    name = address.rsplit("/", 1)[-1]
    known, rows = _rows(address)
    wanted = list(columns) or [one for one in known if one != key]
    if missing := [one for one in (key, *wanted) if one not in known] or ([] if wanted else ["of a group"]):
        raise PlatformError(
            f"{name} has no column {missing[0]}",
            detail=f"it has: {', '.join(known)}",
            fix=f"give a file with the column {key}, of predictions, and a column for each kind of group",
            code="unknown_column",
        )
    of: dict[str, tuple[str, ...]] = {}
    for row in rows:
        value = str(row[key])
        if value in of:
            raise PlatformError(
                f"{name} has the {key} {value!r} twice", fix="give every prediction one row", code="bad_data"
            )
        texts = ("" if row[one] is None else str(row[one]).strip() for one in wanted)
        of[value] = tuple(text or NOT_STATED for text in texts)
    return GroupTable(key=key, columns=tuple(wanted), of=of)


def _rows(address: str) -> tuple[list[str], Iterable[Mapping[str, Any]]]:
    data = storage.read_bytes(address)
    try:
        if address.endswith(".parquet"):
            import pyarrow.parquet as pq

            table = pq.read_table(io.BytesIO(data))
            return table.column_names, table.to_pylist()
        lines = csv.DictReader(io.StringIO(data.decode("utf-8-sig")))
        return list(lines.fieldnames or []), list(lines)
    except (OSError, ValueError, csv.Error) as err:  # of pyarrow too
        raise PlatformError(
            f"{address} cannot be read", detail=str(err), fix="give a CSV or Parquet file", code="bad_data"
        ) from err


class GroupCounts:
    """Predictions of one version with what became of them, those that the table knows; the newest `_MOST`."""

    def __init__(self, table: GroupTable, good: str, classes: Sequence[str]) -> None:
        self._table, self._good, self._at = table, good, list(classes).index(good)
        self._rows: deque[tuple[tuple[str, ...], bool, float, bool | None]] = deque(maxlen=_MOST)
        self.rows = 0

    def add(self, one: Joined) -> None:
        """Count a prediction; one that is not a classification by this bundle is left out."""
        self.rows += 1
        groups, answer = self._table.find(one), one.prediction.answer
        if groups is not None and "label" in answer and len(answer.get("probabilities") or ()) > self._at:
            deserved = None if one.label is None else one.label.label == self._good
            chance = float(answer["probabilities"][self._at])
            self._rows.append((groups, answer["label"] == self._good, chance, deserved))

    def measured(self, least: int, checks: Sequence[Check]) -> dict[str, Any]:
        """Selection of all, errors and calibration of those with labels, and the limits of the gate."""
        from contracts.fairness import measure

        labelled = [row for row in self._rows if row[3] is not None]
        found = {"rows": self.rows, "with_group": len(self._rows), "labelled": len(labelled), "good": self._good}
        if not self._rows:
            return {**found, "columns": {}, "checks": []}
        selection = measure(*self._given(list(self._rows)), least)["columns"]
        errors = measure(*self._given(labelled), least)["columns"] if labelled else {}
        columns = {name: _both(one, errors.get(name)) for name, one in selection.items()}
        return {**found, "columns": columns, "checks": _checks(checks, columns)}

    def _given(self, rows: Sequence[tuple[tuple[str, ...], bool, float, bool | None]]) -> tuple[dict[str, Any], Any]:
        import numpy as np

        from contracts.fairness import Outcome

        groups = {name: [row[0][at] for row in rows] for at, name in enumerate(self._table.columns)}
        return groups, Outcome(
            good=self._good,
            selected=np.array([row[1] for row in rows], dtype=bool),
            deserved=np.array([bool(row[3]) for row in rows], dtype=bool),
            chance=np.array([row[2] for row in rows], dtype=np.float64),
        )


def counts_for(document: BundleDocument, fairness: Mapping[str, Any] | None, table: GroupTable) -> GroupCounts:
    """Counts for a bundle, whose evaluation measured `fairness`.

    Raises:
        PlatformError: ``code="no_groups"``: it was evaluated without groups.
    """
    if fairness is None:
        raise PlatformError(
            f"{document.name} was evaluated without groups",
            fix="declare the sensitive columns in its task, see pipelines/data/sensitive.py, and train it again",
            code="no_groups",
        )
    classes: Sequence[str] = getattr(document.signature.output, "classes", ())
    return GroupCounts(table, fairness["good"], classes)


def _both(selection: Mapping[str, Any], errors: Mapping[str, Any] | None) -> dict[str, Any]:
    """Selection of all rows, the rest of those with labels; what is nearest to fair in 95 % of cases, of each."""
    from contracts.fairness import MEASURES, at_best

    of = {one["name"]: one for one in (errors or {"groups": []})["groups"]}
    lines = [
        {
            **{key: one[key] for key in ("name", "rows", "judged", "selection")},
            "labelled": of[one["name"]]["rows"] if one["name"] in of else 0,
            "errors_judged": one["name"] in of and of[one["name"]]["judged"],
            **{key: of[one["name"]][key] if one["name"] in of else None for key in ("tpr", "fpr", "calibration")},
        }
        for one in selection["groups"]
    ]
    ends = {key: selection[key] for key in ("selection_ratio", "interval", "note")}
    best = {name: at_best(errors, name) if errors else None for name in MEASURES}
    best["selection_ratio"] = at_best(selection, "selection_ratio")
    return {"groups": lines, **ends, **{key: errors[key] if errors else None for key in MEASURES[1:]}, "at_best": best}


def _checks(gate: Sequence[Check], columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The gate's own limits on groups, held by what is measured now; what cannot be measured yet breaks none.

    sure: not kept, and not by chance, as the measure's whole interval is beyond the limit.
    """
    from contracts.fairness import MEASURES

    found = []
    for check in gate:
        column, _, name = check.metric.rpartition(":")
        if name not in MEASURES or column not in columns:
            continue
        value, best = columns[column][name], columns[column]["at_best"][name]
        about = {"metric": check.metric, "rule": check.rule, "limit": check.limit, "value": value}
        passed = _kept(value, check)
        found.append({**about, "passed": passed, "sure": not passed and not _kept(best, check)})
    return found


def _kept(value: float | None, check: Check) -> bool:
    return value is None or (value >= check.limit if check.rule == "at least" else value <= check.limit)
