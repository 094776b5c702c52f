"""``fairlead privacy``: what private trainings have cost each version of a data set."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from contracts.privacy_ledger import Charge, PrivacyLedger
from deploy.cli.profiles.loading import load_endpoints
from deploy.cli.terminal.output import emit, number, table

if TYPE_CHECKING:
    from rich.console import Console


def show_ledger(profile: str, task: str | None, as_json: bool) -> None:
    """Every version that was charged, with what its trainings cost together."""
    charges = [one for one in PrivacyLedger(load_endpoints(profile)).charges() if task in (None, one.task)]
    charges.sort(key=lambda one: (one.task, one.data_version, one.id))
    found = [_version(list(some)) for _, some in groupby(charges, key=lambda one: (one.task, one.data_version))]

    def show(out: Console) -> None:
        if not found:
            out.print("No training was private. Train one: fairlead run TASK --recipe network --set privacy.epsilon=1")
            return
        rows = table("data version", "task", "trainings", "epsilon", "budget", "delta", "last (UTC)")
        for one in found:
            rows.add_row(
                one["data_version"],
                one["task"],
                str(len(one["charges"])),
                number(one["epsilon"]),
                "none" if one["budget"] is None else number(one["budget"]),
                f"{one['delta']:g}",
                one["charges"][-1]["time"][:16].replace("T", " "),
            )
        out.print(rows)
        out.print("Trainings on one version add up to less than their epsilons; a budget is of the recipe as it ships.")

    emit(found, as_json, show)


def _version(charges: list[Charge]) -> dict[str, Any]:
    from pipelines.tasks import find_recipe, get_task
    from pipelines.training.privacy import spent

    last = charges[-1]
    recipe = find_recipe(get_task(last.task), last.recipe)
    budget = recipe.gate.privacy if recipe else None
    delta = budget.delta if budget else last.delta
    return {
        "data_version": last.data_version,
        "task": last.task,
        "epsilon": spent([release for one in charges for release in one.releases], delta),
        "delta": delta,
        "budget": budget.epsilon if budget else None,
        "charges": [one.as_dict() for one in charges],
    }
