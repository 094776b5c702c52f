"""How a model treats groups: selection, errors and calibration of each, with intervals.

Selection is the answer that is good for whom it is about, such as a loan. Which of the measures should be equal is a
choice: where groups differ, they cannot all be (J. Kleinberg, S. Mullainathan, M. Raghavan: Inherent trade-offs in the
fair determination of risk scores, 2017).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

Masks = NDArray[np.bool_]
Floats = NDArray[np.float64]
_Z = 1.959964
NOT_STATED = "(not stated)"  # the group of a row that says none
BETWEEN = " and "  # joins the names of columns, and of groups, of an intersection
MEASURES = ("selection_ratio", "tpr_gap", "fpr_gap", "calibration_gap")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What evaluation knows of answers, one value per row.

    Attributes:
        good: the answer that is good for whom it is about, by name.
        selected: who gets it.  deserved: of whom it is true.  chance: how probable the model says that is.
    """

    good: str
    selected: Masks
    deserved: Masks
    chance: Floats


def measure(groups: Any, outcome: Outcome, least: int) -> dict[str, Any]:
    """Of every sensitive column and every two of them: the groups, and how far apart they are.

    `groups` has the group of each row by column: a data frame, or a dict of lists. A group of fewer than `least` rows
    is named and not judged, and so are rows whose group is not stated.
    """
    found = {}
    columns = {str(name): np.asarray(groups[name], dtype=object) for name in groups}
    for size in (1, 2):
        for chosen in combinations(columns, size):
            texts = [columns[name] for name in chosen]
            stated = np.all([column != NOT_STATED for column in texts], axis=0)
            both = np.array([BETWEEN.join(row) for row in zip(*texts, strict=True)], dtype=object)
            found[BETWEEN.join(chosen)] = _column(np.where(stated, both, NOT_STATED), outcome, least)
    return {"good": outcome.good, "least": least, "columns": found}


def at_best(found: Mapping[str, Any], name: str) -> float | None:
    """How fair a measure of a column may be all the same: the end of its 95 % interval that is nearest to fair.

    Of a difference of rates, by their intervals (R. Newcombe: Interval estimation for the difference between
    independent proportions, 1998); None where nothing can be said.
    """
    if name == "selection_ratio":
        if found["interval"] is None and found[name] == 0:  # of a rate of 0 there is no logarithm
            rates = {one["name"]: one["selection"] for one in found["groups"]}
            return float(rates[found["lowest"]]["high"] / rates[found["highest"]]["value"])
        return None if found["interval"] is None else float(found["interval"][1])
    judged = [one[name.removesuffix("_gap")] for one in found["groups"] if one["judged"]]
    known = [one for one in judged if one and one["value"] is not None]
    if name == "calibration_gap":
        ends = [max(one["low"], -one["high"], 0.0) for one in known]
    else:
        ends = [
            one["value"] - other["value"] - float(np.hypot(one["value"] - one["low"], other["high"] - other["value"]))
            for one, other in permutations(known, 2)
        ]
    return max(0.0, *ends) if ends else None


def _column(names: NDArray[Any], outcome: Outcome, least: int) -> dict[str, Any]:
    groups = [_group(str(name), names == name, outcome, least) for name in sorted(set(names.tolist()))]
    judged = [one for one in groups if one["judged"]]
    made: dict[str, Any] = {"groups": groups, **dict.fromkeys((*MEASURES, "interval")), "note": ""}
    if len(judged) < 2:
        stated = [one for one in groups if one["name"] != NOT_STATED]
        made["note"] = (
            "no row says its group" if not stated
            else f"only one group: {stated[0]['name']}" if len(stated) == 1
            else f"fewer than two groups have {least} rows"
        )  # fmt: skip
        return made
    low = min(judged, key=lambda one: one["selection"]["value"])
    high = max(judged, key=lambda one: one["selection"]["value"])
    made |= {"lowest": low["name"], "highest": high["name"], **_ratio(low, high)}
    for key, measured in (("tpr_gap", "tpr"), ("fpr_gap", "fpr"), ("calibration_gap", "calibration")):
        made[key] = _gap([one[measured]["value"] for one in judged], key == "calibration_gap")
    if undefined := [one["name"] for one in judged if one["tpr"]["value"] is None or one["fpr"]["value"] is None]:
        made["note"] = f"of one class only, so without one of the rates: {', '.join(undefined)}"
    return made


def _gap(values: list[float | None], around_zero: bool) -> float | None:
    """The largest difference between groups; of errors of calibration the largest error."""
    known = [value for value in values if value is not None]
    if around_zero:
        return max(map(abs, known))
    return max(known) - min(known) if len(known) > 1 else None


def _ratio(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """The lowest rate of selection over the highest, with an interval on the logarithm (D. Katz et al., 1978)."""
    rates = low["selection"]["value"], high["selection"]["value"]
    if rates[1] == 0:
        return {"selection_ratio": None, "note": "nobody is selected"}
    ratio = rates[0] / rates[1]
    if rates[0] == 0:
        return {"selection_ratio": 0.0}
    variance = sum((1 - one["selection"]["value"]) / one["selection"]["value"] / one["rows"] for one in (low, high))
    half = _Z * float(np.sqrt(variance))
    return {"selection_ratio": ratio, "interval": [ratio * float(np.exp(-half)), ratio * float(np.exp(half))]}


def _group(name: str, rows: Masks, outcome: Outcome, least: int) -> dict[str, Any]:
    selected, deserved = outcome.selected[rows], outcome.deserved[rows]
    error = outcome.chance[rows] - deserved
    half = _Z * float(error.std()) / float(np.sqrt(len(error)))
    value = float(error.mean())
    return {
        "name": name,
        "rows": int(rows.sum()),
        "judged": bool(rows.sum() >= least and name != NOT_STATED),
        "selection": share(selected),
        "tpr": share(selected[deserved]),
        "fpr": share(selected[~deserved]),
        "deserved": share(deserved),
        "calibration": {"value": value, "low": value - half, "high": value + half},
    }


def share(mask: Masks) -> dict[str, float | None]:
    """Share of true values with Wilson's interval (1927), of 95 %; None of no rows."""
    rows = len(mask)
    if not rows:
        return {"value": None, "low": None, "high": None}
    rate = float(mask.mean())
    center = (rate + _Z**2 / (2 * rows)) / (1 + _Z**2 / rows)
    half = _Z * float(np.sqrt(rate * (1 - rate) / rows + _Z**2 / (4 * rows**2))) / (1 + _Z**2 / rows)
    return {"value": rate, "low": max(0.0, center - half), "high": min(1.0, center + half)}
