"""The champion: a candidate must not be shown to be worse, see `pipelines.evaluation.comparison`."""

from __future__ import annotations

from pathlib import Path

from contracts.bundle import Bundle
from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from contracts.registry import CHAMPION, Registry
from pipelines.checks.base import Candidate, Finding, lookup
from pipelines.settings import setting


class Champion:
    """Compares by ``gate.primary``."""

    name = "champion"
    order = 30

    def find(self, candidate: Candidate) -> Finding:
        """The comparison, where there is a champion.

        Raises:
            PlatformError: ``code="bad_config"``: the primary metric was not measured.
        """
        from pipelines.evaluation import scoring
        from pipelines.evaluation.comparison import compare
        from pipelines.io.files import read_json

        primary, evaluation = candidate.settings.primary, candidate.evaluation
        if lookup(primary, evaluation) is None:
            known = ", ".join(sorted(evaluation["metrics"]))
            raise PlatformError(
                f"gate.primary {primary!r} is not measured for task {candidate.task}",
                detail=f"measured: {known}",
                fix=f"choose one of these, such as: {setting('gate.primary', sorted(evaluation['metrics'])[0])}",
                code="bad_config",
            )
        found = find_champion(candidate.task, candidate.endpoints)
        if found is None:
            return Finding()
        name, bundle = found
        ours = scoring.provisional(candidate.folder, read_json(candidate.folder / "candidate.json"))
        check, notes = compare(ours, bundle, name, candidate.dataset, evaluation, candidate.settings)
        return Finding(checks=[check] if check else [], notes=notes, champion=name)


def find_champion(task: str, endpoints: Endpoints) -> tuple[str, Bundle] | None:
    """The champion as ``name:version`` and its bundle; None where there is none yet."""
    file = endpoints.tracking_uri.removeprefix("sqlite:///")
    if endpoints.tracking_uri.startswith("sqlite:///") and not Path(file).exists():
        return None  # nothing was ever registered; spares the import of MLflow
    registry = Registry(endpoints)
    try:
        version = registry.resolve(f"{task}@{CHAMPION}")
    except PlatformError as err:
        if err.code == "unknown_model":
            return None
        raise
    return f"{version.name}:{version.version}", registry.fetch(f"{version.name}:{version.version}")


CHECK = Champion()
