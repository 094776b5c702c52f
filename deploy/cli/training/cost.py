"""What a run cost, at the prices of the profile that asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipelines.cost import cost_of

if TYPE_CHECKING:
    from pipelines.cost import Prices


def run_cost(run: Mapping[str, Any], prices: Prices | None, *, on_cluster: bool) -> dict[str, Any]:
    """The document of `pipelines.cost.cost_of` for a run as lists and reports show it."""
    from deploy.cli.cluster_runs.step_resources import step_needs
    from pipelines.run import Run

    asked = step_needs(Run.model_validate({**run}), {}) if on_cluster else {}
    return cost_of(run.get("steps") or {}, prices, asked)
