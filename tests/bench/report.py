"""What every benchmark writes: ``build/bench/<name>.json``, a plot beside it, and a table on the terminal."""

from __future__ import annotations

import json
import math
import platform
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

FOLDER = Path("build") / "bench"


@dataclass(kw_only=True)
class Row:
    """One measured number, NaN for none; `goal` is a limit with its direction, for example ``">= 0.72"``."""

    case: str
    contestant: str
    value: float
    unit: str
    goal: str = ""

    @property
    def met(self) -> bool | None:
        if not self.goal:
            return None
        sign, limit = self.goal.split()
        return self.value >= float(limit) if sign == ">=" else self.value <= float(limit)


def write(name: str, command: str, rows: list[Row]) -> int:
    """Write and show the rows; the exit status is 1 when a goal is missed."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    document = {
        "name": name,
        "command": command,
        "machine": {"cores": _cores(), "python": platform.python_version()},
        "measured": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "rows": [
            {**asdict(row), "value": None if math.isnan(row.value) else row.value, "met": row.met} for row in rows
        ],
    }
    (FOLDER / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    _plot(name, rows)
    _table(name, rows)
    return int(any(row.met is False for row in rows))


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0))


def _table(name: str, rows: list[Row]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("case", "contestant", "value", "unit", "goal", "met", title=f"{name} ({FOLDER / name}.json)")
    for row in rows:
        verdict = {True: "yes", False: "[bold red]no[/]", None: ""}[row.met]
        value = "" if math.isnan(row.value) else f"{row.value:,.4g}"
        table.add_row(row.case, row.contestant, value, row.unit, row.goal, verdict)
    Console(file=sys.stdout).print(table)


def _plot(name: str, rows: list[Row]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = [row for row in rows if not math.isnan(row.value)]
    cases = list(dict.fromkeys(row.case for row in rows))
    figure, axes = plt.subplots(len(cases), 1, figsize=(8, 1.2 + 0.9 * len(rows)), layout="constrained", squeeze=False)
    for case, axis in zip(cases, axes[:, 0], strict=True):
        mine = [row for row in rows if row.case == case]
        colours = ["tab:blue" if "fairlead" in row.contestant else "0.7" for row in mine]
        bars = axis.barh([row.contestant for row in mine], [row.value for row in mine], color=colours)
        axis.bar_label(bars, fmt="%.4g", padding=3)
        for row in mine:
            if row.goal:
                axis.axvline(float(row.goal.split()[1]), color="tab:red", linestyle="--", linewidth=1)
        axis.set_title(case, loc="left", fontsize=10)
        axis.set_xlabel(mine[0].unit)
        axis.margins(x=0.15)
        axis.invert_yaxis()
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(FOLDER / f"{name}.png", dpi=120)
    plt.close(figure)
