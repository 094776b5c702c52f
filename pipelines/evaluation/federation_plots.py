"""Plot of a federated training: how good the shared model is for each site, round by round."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.evaluation.plots import BLUE, GREY, ORANGE, figure

_NAMED = 10  # sites of the legend
_METRICS = ("roc_auc", "accuracy")


def draw(folder: Path, federation: Mapping[str, Any], history: list[Mapping[str, float]]) -> bool:
    """``federation.png``: each site's own validation rows, and the coordinator's; False when no site says any."""
    sites = [one for one in federation["sites"] if len(one["measured"]) > 1]
    metric = next((name for name in _METRICS if any(name in row for one in sites for row in one["measured"])), "")
    if not metric:
        return False
    with figure(folder / "federation.png", "Sites", "round", metric.replace("_", " "), (6.4, 3.8)) as axes:
        for at, one in enumerate(sites):
            rows = [(row["round"], row[metric]) for row in one["measured"] if metric in row]
            if rows:
                label = "a site, its own rows" if at == 0 else None
                axes.plot(*zip(*rows, strict=True), color=GREY, linewidth=0.9, alpha=0.7, label=label)
                if len(sites) <= _NAMED:
                    axes.annotate(one["name"], rows[-1], fontsize=6, color=ORANGE, va="center")
        own = [(row["round"], row[f"valid_{metric}"]) for row in history if f"valid_{metric}" in row]
        if own:
            axes.plot(*zip(*own, strict=True), color=BLUE, linewidth=2.2, label="the coordinator's validation rows")
        axes.legend(loc="lower right", fontsize=8)
    return True
