"""Plots of how groups are treated, and of what it costs to treat them alike."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from contracts.fairness import BETWEEN, Outcome
from pipelines.evaluation.plots import BLUE, GREY, ORANGE, figure

if TYPE_CHECKING:
    import pandas as pd

_GREEN = "#3c8d5a"
_COLOURS = (BLUE, ORANGE, _GREEN, GREY, "#8e5bb0", "#b0413e")
_SHOWN = 30  # groups of a picture


def rates(file: Path, found: Mapping[str, Any]) -> None:
    """Selection, true and false positive rate of each group with intervals; what is not judged is pale."""
    lines = [
        (f"{name}: {one['name']} ({one['rows']:,})", one)
        for name, column in found["columns"].items()
        if BETWEEN not in name
        for one in column["groups"]
    ][:_SHOWN]
    size = (6.4, max(2.4, 1.2 + 0.36 * len(lines)))
    with figure(file, f"Groups: {found['good']}", "rate, 95 % interval", "", size) as axes:
        kinds = (("selection", "selected", BLUE), ("tpr", "true positives", _GREEN), ("fpr", "false positives", ORANGE))
        for shift, (key, said, colour) in zip((-0.22, 0.0, 0.22), kinds, strict=True):
            for at, (_, one) in enumerate(lines):
                if one[key]["value"] is None:
                    continue
                pale = 1.0 if one["judged"] else 0.25
                ends = [one[key]["low"], one[key]["high"]]
                axes.plot(ends, [at + shift] * 2, color=colour, linewidth=2, alpha=0.5 * pale)
                axes.plot(one[key]["value"], at + shift, "o", color=colour, markersize=5, alpha=pale)
            axes.plot([], [], "o", color=colour, label=said)
        axes.set_yticks(range(len(lines)), [said for said, _ in lines])
        axes.set(xlim=(-0.02, 1.02), ylim=(len(lines) - 0.5, -0.6))
        axes.legend(loc="best", fontsize=8)


def calibration(folder: Path, groups: pd.DataFrame, outcome: Outcome, least: int) -> None:
    """Said against true share within the groups of each column, in five bins of equally many rows."""
    for number, column in enumerate(groups.columns, start=1):
        counts = groups[column].value_counts()
        names = [str(name) for name in counts.index if counts[name] >= least][: len(_COLOURS)]
        if not names:
            continue
        title, good = f"Calibration by {str(column).replace('_', ' ')}", outcome.good
        with figure(
            folder / f"calibration_groups_{number}.png", title, f"predicted {good}", f"observed {good}"
        ) as axes:
            axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1.2)
            for colour, name in zip(_COLOURS, names, strict=False):
                rows = (groups[column] == name).to_numpy().nonzero()[0]
                parts = np.array_split(rows[np.argsort(outcome.chance[rows], kind="stable")], 5)
                said = [float(outcome.chance[part].mean()) for part in parts]
                true = [float(outcome.deserved[part].mean()) for part in parts]
                axes.plot(said, true, "o-", color=colour, markersize=4, label=f"{name} ({len(rows):,})")
            axes.legend(loc="best", fontsize=8)


def tradeoff(file: Path, found: Mapping[str, Any], wanted: float | None) -> None:
    """Accuracy over the ratio of selection on the validation rows: a line for each method, a point each strength."""
    points = [{"method": found["method"], **one} for one in found["points"] if one["selection_ratio"] is not None]
    title = f"Price of alike treatment by {found['column'] or 'class'} (validation)"
    with figure(file, title, "lowest over highest rate of selection", "accuracy") as axes:
        for colour, method in zip(_COLOURS, dict.fromkeys(one["method"] for one in points), strict=False):
            line = [one for one in points if one["method"] == method]
            x, y = [one["selection_ratio"] for one in line], [one["accuracy"] for one in line]
            axes.plot(x, y, "o-", color=colour, label=method.replace("_", " "))
            for one in line:
                taken = method == found["method"] and one["strength"] == found["taken"]
                said = f" {one['strength']:g}" + (", taken" if taken else "")
                axes.annotate(said, (one["selection_ratio"], one["accuracy"]), fontsize=8)
        if wanted is not None:
            axes.axvline(wanted, color=ORANGE, linestyle="--", linewidth=1.2, label=f"limit {wanted:g}")
        axes.legend(loc="best", fontsize=8)
