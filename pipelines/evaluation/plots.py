"""Plots of an evaluation, as PNG files of a few tens of kilobytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ALONG = ("epoch", "round", "step", "strength", "passages")  # what a history may run along, in this order of preference
BLUE, ORANGE, GREY = "#2563a8", "#d9730d", "#8a8f98"
_STYLE: Any = {
    "figure.dpi": 110,
    "font.size": 9.5,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "grid.color": "#e6e8eb",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}


_FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "DejaVu Sans")  # the last comes with Matplotlib


@cache
def _style() -> Any:
    """With the fonts of this machine: an absent one is looked for at every text, a third of the time of a plot."""
    from matplotlib import font_manager

    there = set(font_manager.get_font_names())
    return {**_STYLE, "font.sans-serif": [name for name in _FONTS if name in there]}


@contextmanager
def figure(file: Path, title: str, x: str, y: str, size: tuple[float, float] = (5.2, 3.8)) -> Iterator[Axes]:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_style()):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        axes.set(xlabel=x, ylabel=y)
        axes.set_title(title)
        yield axes
        figure.savefig(file, metadata={"Software": None})


def precision_recall(
    file: Path, positive: NDArray[np.bool_], score: NDArray[np.float64], threshold: float | None, average: float
) -> None:
    """Precision over recall, with the share of positives as the line of guessing and the chosen threshold."""
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(positive[order])
    alarms = np.arange(1, len(hits) + 1)
    ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    recall, precision = hits[ends] / max(hits[-1], 1), hits[ends] / alarms[ends]
    with figure(file, "Precision and recall", "recall (share of positives found)", "precision") as axes:
        axes.step(recall, precision, where="post", color=BLUE, label=f"model, average precision {average:.3f}")
        share = float(positive.mean())
        axes.axhline(share, color=GREY, linestyle="--", linewidth=1.2, label=f"guessing, {share:.3f}")
        if threshold is not None and (score >= threshold).any():
            alarm = score >= threshold
            at = (positive[alarm].sum() / max(hits[-1], 1), positive[alarm].mean())
            axes.plot(*at, "o", color=ORANGE, markersize=7, label=f"threshold {threshold:.3g}")
        axes.set(xlim=(0, 1.01), ylim=(0, 1.03))
        axes.legend(loc="best")


def calibration(
    file: Path, probability: NDArray[np.float64], outcome: NDArray[np.bool_], what: str, ece: float
) -> None:
    """Said against true share with 95 % intervals, in ten bins of equally many rows; a rare outcome gets bins of the
    highest scores, where it is decided."""
    order = np.argsort(probability, kind="stable")
    rare = outcome.mean() < 0.1
    cuts = np.array([0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.994, 0.997]) if rare else np.linspace(0.1, 0.9, 9)
    groups = [g for g in np.split(order, (cuts * len(order)).astype(int)) if len(g) >= (20 if rare else 1)]
    said = np.array([probability[g].mean() for g in groups])
    true = np.array([outcome[g].mean() for g in groups])
    count = np.array([len(g) for g in groups])
    # Wilson's interval holds for shares near 0 too.
    z = 1.96
    center = (true + z * z / (2 * count)) / (1 + z * z / count)
    half = z * np.sqrt(true * (1 - true) / count + z * z / (4 * count**2)) / (1 + z * z / count)
    low, high = np.maximum(true - (center - half), 0), np.maximum(center + half - true, 0)
    with figure(file, f"Calibration (ECE {ece:.3f})", f"predicted {what}", f"observed {what}") as axes:
        top = float(max(said.max(), (true + high).max(), 1e-3)) * 1.05
        axes.plot([0, top], [0, top], color=GREY, linestyle="--", linewidth=1.2, label="perfect")
        axes.errorbar(
            said, true, yerr=[low, high], color=BLUE, fmt="o-", capsize=2, markersize=4, label="model, 95 % interval"
        )
        axes.set(xlim=(0, top), ylim=(0, top))
        axes.legend(loc="upper left")


def confusion(file: Path, counts: NDArray[np.int64], classes: Sequence[str], subtitle: str = "") -> None:
    """Rows per true and predicted class; the colour is the share of the true class."""
    size = min(2.8 + 0.42 * len(classes), 12.0)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    title = f"Confusion matrix{subtitle}"
    with figure(file, title, "predicted", "true", (max(size + 0.9, 4.4), max(size, 3.6))) as axes:
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axes.grid(visible=False)
        names = [name if len(name) <= 16 else name[:15] + "…" for name in classes]
        axes.set_xticks(
            range(len(names)), names, rotation=0 if len(names) <= 5 else 45, ha="center" if len(names) <= 5 else "right"
        )
        axes.set_yticks(range(len(names)), names)
        for row in range(len(classes)) if len(classes) <= 20 else []:
            for column in range(len(classes)):
                dark = shares[row, column] > 0.55
                text = f"{counts[row, column]:,}" + (f"\n{shares[row, column]:.1%}" if len(classes) <= 8 else "")
                axes.text(column, row, text, ha="center", va="center", color="white" if dark else "#22262b", fontsize=8)


def score_histogram(
    file: Path, score: NDArray[np.float64], positive: NDArray[np.bool_], names: tuple[str, str], threshold: float | None
) -> None:
    """Density of the positive class's probability, by true class; counts on a logarithmic axis."""
    bins = np.linspace(0, 1, 41).tolist()
    with figure(file, "Scores by true class", "predicted probability", "rows (log scale)") as axes:
        for mask, name, color in ((~positive, names[0], GREY), (positive, names[1], ORANGE)):
            axes.hist(score[mask], bins=bins, color=color, alpha=0.65, label=f"{name} ({int(mask.sum()):,})")
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.minorticks_off()
        axes.set_xlim(0, 1)
        if threshold is not None and threshold <= 1:
            axes.axvline(threshold, color=BLUE, linewidth=1.4, label=f"threshold {threshold:.3g}")
        axes.legend(loc="upper right")


def class_scores(file: Path, f1: Mapping[str, float], intervals: Mapping[str, Sequence[float]]) -> None:
    """F1 of each class with its 95 % interval, worst first."""
    ordered = sorted(f1, key=lambda name: f1[name])[:30]
    size = (5.2, max(2.2, 0.9 + 0.27 * len(ordered)))
    with figure(file, "F1 by class", "F1, 95 % interval", "", size) as axes:
        for at, name in enumerate(ordered):
            low, high = intervals.get(f"f1:{name}", (f1[name], f1[name]))
            axes.plot([low, high], [at, at], color=BLUE, linewidth=2.2, alpha=0.45)
            axes.plot(f1[name], at, "o", color=BLUE, markersize=6)
        axes.set_yticks(range(len(ordered)), ordered)
        axes.set_xlim(min(0.5, min(f1.values(), default=0.5)), 1.005)
        axes.set_ylim(-0.6, len(ordered) - 0.4)


def learning_curve(file: Path, history: Sequence[Mapping[str, Any]]) -> bool:
    """Every number of the history over rounds, losses apart from scores; False when there is nothing to draw."""
    import matplotlib
    from matplotlib.figure import Figure

    rows = [row for row in history if isinstance(row, Mapping)]
    skip = {*_ALONG, "seconds", "lr", "learning_rate", "sites"}
    names = sorted({k for row in rows for k, v in row.items() if isinstance(v, int | float) and k not in skip})
    panels: list[tuple[str, list[str]]] = [
        ("loss", [name for name in names if "loss" in name]),
        ("score", [name for name in names if "loss" not in name]),
    ]
    panels = [panel for panel in panels if panel[1]]
    if len(rows) < 2 or not panels:
        return False
    unit = next((name for name in _ALONG if name in rows[0]), "round")
    x = [row.get(unit, at + 1) for at, row in enumerate(rows)]
    with matplotlib.rc_context(_style()):
        figure = Figure(figsize=(4.6 * len(panels), 3.6), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False)
        for panel, (label, keys) in zip(axes[0], panels, strict=True):
            for key, color in zip(keys, (BLUE, ORANGE, GREY, "#3c8d5a", "#8e5bb0", "#b0413e"), strict=False):
                panel.plot(x, [row.get(key, np.nan) for row in rows], color=color, label=key.replace("_", " "))
            panel.set(xlabel=unit, ylabel=label)
            panel.legend()
        axes[0][0].set_title("Learning curve")
        figure.savefig(file, metadata={"Software": None})
    return True


def confusion_counts(true: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Rows per (true, predicted) class, shape (classes, classes); rows of unknown classes (-1) are left out."""
    known = true >= 0
    flat = np.bincount(true[known] * classes + predicted[known], minlength=classes * classes)
    return flat.reshape(classes, classes).astype(np.int64)
