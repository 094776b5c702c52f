"""Where runs are listed from: the records of this machine, or Kubeflow and what its steps left in the store."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from contracts.errors import PlatformError
from deploy.cli.console.kept import REMOTE_SECONDS, Fresh
from deploy.cli.console.run_records import page_of, run_of
from deploy.cli.runs.run_files import find_run, list_runs
from services.console.documents import Link, Run, RunPage

if TYPE_CHECKING:
    from contracts.endpoints import Endpoints
    from deploy.cli.cluster.cluster_settings import Profile
    from pipelines.cost import Prices

_MOST = 60  # runs of a cluster: each is a record in the store
_KEPT = 300  # runs that have ended, which do not change
_OVER = ("succeeded", "refused", "failed", "cancelled")


class Runs(Protocol):
    """Where runs are listed from."""

    def latest(self, limit: int) -> Sequence[Run]:
        """The latest, newest first."""
        ...

    def page(self, run_id: str, links: Mapping[str, str]) -> RunPage | None:
        """One run by its whole id."""
        ...


class LocalRuns:
    """Runs of this machine."""

    def __init__(self, endpoints: Endpoints, prices: Prices | None = None) -> None:
        self._endpoints, self._prices = endpoints, prices

    def latest(self, limit: int) -> Sequence[Run]:
        """The latest, newest first."""
        return [run_of(record) for record in list_runs(self._endpoints)[:limit]]

    def page(self, run_id: str, links: Mapping[str, str]) -> RunPage | None:
        """One run by its whole id."""
        try:
            record = find_run(self._endpoints, run_id)
        except PlatformError as err:
            if err.code == "unknown_run":
                return None
            raise
        if record["run_id"] != run_id:
            return None
        return page_of(record, needs_of(record), run_links(links, ""), _cost_of(record, self._prices, False))


class ClusterRuns:
    """Runs of a cluster, by whoever started them, as `fairlead runs` has them."""

    def __init__(self, profile: Profile) -> None:
        from deploy.cli.cluster_runs.access import open_access

        self._access, self._prices = open_access(profile), profile.prices
        self._listed = Fresh(self._list, REMOTE_SECONDS)
        self._over: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._lock = threading.Lock()

    def _list(self) -> Sequence[Run]:
        from deploy.cli.cluster_runs.lookup import list_runs as listed

        return [run_of(record) for record in listed(self._access, _MOST)]

    def latest(self, limit: int) -> Sequence[Run]:
        """The latest, newest first.

        Raises:
            PlatformError: ``code="kfp"``: Kubeflow does not answer.
        """
        return self._listed.get()[:limit]

    def page(self, run_id: str, links: Mapping[str, str]) -> RunPage | None:
        """One run by its whole id."""
        record = self._record(run_id)
        if record is None:
            return None
        links_of_it = run_links(links, str(record.get("kfp_run") or ""))
        return page_of(record, needs_of(record), links_of_it, _cost_of(record, self._prices, True))

    def _record(self, run_id: str) -> dict[str, Any] | None:
        from deploy.cli.cluster_runs.lookup import find_run as found_run
        from deploy.cli.cluster_runs.lookup import look_at

        with self._lock:
            if run_id in self._over:
                return self._over[run_id]
        try:
            found = found_run(self._access, run_id)
        except PlatformError as err:
            if err.code == "unknown_run":
                return None
            raise
        if found.run_id != run_id:
            return None
        record = look_at(self._access, found) | {"run_id": run_id, "kfp_run": found.kfp_run}
        if record.get("status") in _OVER:
            with self._lock:
                self._over[run_id] = record
                while len(self._over) > _KEPT:
                    self._over.popitem(last=False)
        return record


def run_links(links: Mapping[str, str], kfp_run: str) -> list[Link]:
    """Pages elsewhere; that of Kubeflow shows the run itself."""
    return [
        Link(label=label, url=f"{url}/#/runs/details/{kfp_run}" if kfp_run and label.lower() == "kubeflow" else url)
        for label, url in links.items()
    ]


def _cost_of(record: Mapping[str, Any], prices: Prices | None, on_cluster: bool) -> dict[str, Any] | None:
    """What a run that has ended cost; None of one of a task that is not known here."""
    from deploy.cli.training.cost import run_cost

    if record.get("status") not in _OVER:
        return None
    try:
        return run_cost(record, prices, on_cluster=on_cluster)
    except (PlatformError, ValueError):  # a setting or a task of another version
        return None


def needs_of(record: Mapping[str, Any]) -> dict[str, list[str]]:
    """Whose output each step takes; a line of steps where the task is not known here."""
    from pipelines.steps.calls import graph
    from pipelines.steps.calls import needs_of as needs
    from pipelines.tasks import get_task

    asked = record.get("asked") or {}
    task, workflow = record.get("task") or asked.get("task"), record.get("workflow") or asked.get("workflow")
    try:
        return needs(graph(str(workflow or "full"), get_task(str(task)) if task else None))
    except (PlatformError, KeyError, ImportError):
        steps = list(record.get("steps") or {})
        return {step: steps[at - 1 : at] if at else [] for at, step in enumerate(steps)}
