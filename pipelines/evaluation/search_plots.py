"""Plots of a search: how far it came, what mattered, and what one metric costs in another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.evaluation.plots import BLUE, GREY, ORANGE, figure


def draw(folder: Path, search: Mapping[str, Any]) -> None:
    """``search_history.png``, ``search_importance.png`` and, of several metrics, ``search_front.png``."""
    metric = search["metrics"][0]
    tried = [one for one in search["trials"] if metric in one["values"]]
    history(folder / "search_history.png", search, tried)
    if search["importance"]:
        importance(folder / "search_importance.png", search["importance"])
    if search["front"]:
        front(folder / "search_front.png", search, tried)


def history(file: Path, search: Mapping[str, Any], tried: list[Mapping[str, Any]]) -> None:
    """The first metric of every trial, the best so far, and the recipe's own."""
    metric, up = search["metrics"][0], search["higher"][0]
    numbers = [one["number"] for one in tried]
    values = np.array([one["values"][metric] for one in tried])
    within = np.array([one["within"] for one in tried], dtype=bool)
    with figure(file, "Search", "trial", f"{metric.replace('_', ' ')} on validation rows") as axes:
        axes.plot(np.array(numbers)[within], values[within], "o", color=GREY, markersize=4, label="trial")
        if not within.all():
            axes.plot(np.array(numbers)[~within], values[~within], "x", color=GREY, markersize=4, label="beyond limits")
        running = (np.maximum if up else np.minimum).accumulate(np.where(within, values, -np.inf if up else np.inf))
        axes.step(numbers, running, where="post", color=BLUE, label="best so far")
        if (own := search["default"]["valid"].get(metric)) is not None:
            axes.axhline(own, color=ORANGE, linestyle="--", linewidth=1.2, label="recipe as it is")
        axes.legend(loc="best", fontsize=8)


def importance(file: Path, found: Mapping[str, float]) -> None:
    """Share of the variance that each setting explains."""
    ordered = sorted(found, key=lambda key: found[key])[-15:]
    size = (5.2, max(2.0, 0.9 + 0.3 * len(ordered)))
    with figure(file, "What mattered in the search", "share of the variance explained", "", size) as axes:
        axes.barh(range(len(ordered)), [found[key] for key in ordered], color=BLUE, height=0.6)
        axes.set_yticks(range(len(ordered)), ordered)


def front(file: Path, search: Mapping[str, Any], tried: list[Mapping[str, Any]]) -> None:
    """Two metrics against each other; those that no other beats, and the one that was chosen."""
    one, two = search["metrics"][:2]
    points = {trial["number"]: (trial["values"][two], trial["values"][one]) for trial in tried}
    best = sorted(points[number] for number in search["front"] if number in points)
    with figure(file, "Front of the search", two.replace("_", " "), one.replace("_", " ")) as axes:
        axes.plot(*zip(*points.values(), strict=True), "o", color=GREY, markersize=4, label="trial")
        axes.plot(*zip(*best, strict=True), "o-", color=BLUE, markersize=5, label="front")
        if (taken := points.get(search["best"]["number"])) is not None:
            axes.plot(*taken, "o", color=ORANGE, markersize=8, label="chosen")
        axes.legend(loc="best", fontsize=8)
