"""``fairlead search``: a run that trains the best of a search, and what the search has found."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from contracts.errors import PlatformError
from deploy.cli.profiles.loading import load_endpoints, load_profile
from deploy.cli.runs.workflow import RunOptions
from deploy.cli.training.start_run import run_task
from pipelines.settings import assigned

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """What the command is told of the search itself; what is left out is the recipe's (`SearchConfig`)."""

    trials: int
    seconds: float = 0.0
    metrics: Sequence[str] = ()
    workers: int = 1
    name: str = ""


def search_task(task: str, recipe: str | None, search: SearchOptions, options: RunOptions, as_json: bool) -> None:
    """Search and train, and exit with 3 when the gate refused the best."""
    told = [assigned(key, value) for key, value in search_settings(options.profile, search).items()]
    run_task(task, recipe, None, replace(options, overrides=[*told, *options.overrides]), as_json)


def search_settings(profile: str, search: SearchOptions) -> dict[str, Any]:
    """What a run is told to search.

    Raises:
        PlatformError: ``code="missing_package"``, on this machine.
    """
    here = load_profile(profile).cluster is None
    if here and importlib.util.find_spec("optuna") is None:
        raise PlatformError(
            "a search needs Optuna, which is not installed",
            fix="pip install 'fairlead[search]'",
            code="missing_package",
        )
    told: dict[str, Any] = {"search.trials": search.trials, "search.workers": search.workers}
    told |= {"search.metrics": list(search.metrics)} if search.metrics else {}
    told |= {"search.seconds": search.seconds} if search.seconds else {}
    told |= {"search.name": search.name} if search.name else {}
    studies = load_endpoints(profile).studies
    return told | ({"search.storage": studies} if studies else {})


def duration(text: str) -> float:
    """Seconds of ``90``, ``90s``, ``10m`` or ``1.5h``.

    Raises:
        PlatformError: ``code="bad_option"``.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if not found or not float(found[1]):
        raise PlatformError(f"--time {text!r} is no duration", fix="write it as 90s, 10m or 1.5h", code="bad_option")
    return float(found[1]) * _UNITS[found[2]]
