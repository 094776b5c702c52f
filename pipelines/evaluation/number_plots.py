"""Plots of a regression."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluation.plots import BLUE, GREY, ORANGE, figure

_POINTS = 2000


def predicted_and_true(file: Path, true: NDArray[np.float64], answers: NDArray[np.float64], unit: str) -> None:
    """A point for each row, with its interval where there is one; of many rows evenly drawn ones."""
    rows = np.linspace(0, len(true) - 1, min(len(true), _POINTS)).astype(int)
    x, y = true[rows], answers[rows, 0]
    with figure(file, "Predicted and true", f"true{unit}", f"predicted{unit}") as axes:
        if answers.shape[1] == 3:
            axes.vlines(x, answers[rows, 1], answers[rows, 2], color=BLUE, alpha=0.12, linewidth=1.0)
        axes.plot(x, y, ".", color=BLUE, markersize=4, alpha=0.5)
        ends = [float(min(x.min(), y.min())), float(max(x.max(), y.max()))]
        axes.plot(ends, ends, color=GREY, linestyle="--", linewidth=1.2, label="perfect")
        axes.legend(loc="upper left")


def residuals(file: Path, error: NDArray[np.float64], unit: str) -> None:
    """How often errors of each size are made, in the middle 99 % of the rows."""
    low, high = np.quantile(error, [0.005, 0.995])
    shown = error[(error >= low) & (error <= high)]
    with figure(file, "Errors", f"predicted minus true{unit}", "rows") as axes:
        axes.hist(shown, bins=40, color=BLUE, alpha=0.7)
        axes.axvline(float(error.mean()), color=ORANGE, linewidth=1.4, label=f"mean {error.mean():.3g}")
        axes.legend(loc="upper right")
