"""The keeper of runs that nobody follows: schedules, Kubeflow's page, its clients, a terminal that was closed.

What somebody who follows does when a run fails by no fault of its steps, it does in their place, by the same code.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from contracts.errors import PlatformError
from deploy.cli.cluster_runs.access import Access, asked
from deploy.cli.cluster_runs.follow import Follower
from deploy.cli.cluster_runs.lease import HOLDS, Followed
from deploy.cli.cluster_runs.lookup import Found, later_than
from deploy.cli.cluster_runs.restart import cure, start_again
from deploy.cli.cluster_runs.run_document import asked_of
from deploy.cli.cluster_runs.workflow_state import moment
from pipelines.io.record import read_followed, write_run
from pipelines.run import Run, standing

BY = "the platform"
_FAILED = "pipeline/runid,workflows.argoproj.io/phase in (Failed,Error)"
_RUNNING = "pipeline/runid,workflows.argoproj.io/phase in (Pending,Running)"
_RECENT = 6 * 3600.0  # seconds since its end after which a run is left as it is
_KINDS = "workflows.argoproj.io"
_PASSING = ("kfp", "kubernetes", "storage_unreachable", "storage_denied", "missing_program")
"""Codes of what may answer later; a pod looks for kubectl where the name of a Service is not known yet."""


Tell = Callable[[dict[str, Any]], None]


@dataclass
class Keeper:
    """Looks at the runs of one cluster.

    Attributes:
        holds: seconds for which a follower's sign counts without a change.
        patience: seconds that a run with twice the memory may wait for a node.
    """

    access: Access
    holds: float = HOLDS
    patience: float = 600.0
    name: str = "keeper"
    _settled: set[str] = field(default_factory=set)
    _signs: dict[str, tuple[dict[str, Any], float]] = field(default_factory=dict)
    _larger: dict[str, dict[str, Any]] = field(default_factory=dict)

    def keep(self, tell: Tell, every: float) -> None:
        """Look again and again until the process ends; a cluster that does not answer is told and looked at later."""
        while True:
            try:
                self.look(tell)
            except PlatformError as err:
                tell({"event": "keeper_waits", "error": err.as_dict()})
            time.sleep(every)

    def look(self, tell: Tell) -> None:
        """Start again what nobody follows, failed lately, and may succeed.

        Raises:
            PlatformError: the cluster does not answer, or refuses.
        """
        left = dict(self._left())
        self._settled &= set(left)
        self._signs = {run: sign for run, sign in self._signs.items() if run in left}
        for kfp_run, ended in left.items():
            if kfp_run in self._settled or self._is_followed(kfp_run) or ended < self.holds:
                continue
            try:
                self._tend(kfp_run, tell)
            except PlatformError as err:
                passes = err.code in _PASSING
                tell({"event": "keeper_waits" if passes else "run_left", "kfp_run": kfp_run, "error": err.as_dict()})
                if passes:
                    continue
            self._settled.add(kfp_run)
        self._end_what_no_node_takes(tell)

    def _left(self) -> Iterator[tuple[str, float]]:
        """Runs that failed lately, with the seconds since their end."""
        for workflow in self.access.kube.items(_KINDS, "-l", _FAILED):
            ended = (workflow.get("status") or {}).get("finishedAt")
            ago = (datetime.now(UTC) - moment(ended)).total_seconds() if ended else _RECENT
            if ago < _RECENT:
                yield _run_of(workflow), max(0.0, ago)  # clocks differ

    def _is_followed(self, kfp_run: str) -> bool:
        """Whether somebody has signed, and gone on to do so while this keeper looked."""
        sign, now = read_followed(self.access.records, kfp_run), time.monotonic()
        if not sign or sign.get("by") == self.name:
            return False
        before, since = self._signs.get(kfp_run, ({}, now))
        if sign != before:
            self._signs[kfp_run] = (sign, now)
            return True
        return now - since < self.holds

    def _tend(self, kfp_run: str, tell: Tell) -> None:
        run = self.access.run(kfp_run)
        parameters = (run.runtime_config and run.runtime_config.parameters) or {}
        if not parameters.get("task"):
            return  # of somebody else, in the same Kubeflow
        found = Found(run=run, asked=asked_of(run, self.access.about(kfp_run)))
        if later_than(self.access, found) is not None:
            return
        state = Follower(self.access, kfp_run, found.asked).look()
        if state.error is None or state.cancelled or cure(state.error, found.asked.get("restarts") or []) is None:
            return
        sign = Followed(self.access.records, kfp_run, self.name)
        sign.sign()
        if not sign.mine():
            return
        said = {"run": found.run_id, "kfp_run": kfp_run}
        try:
            later = start_again(self.access, found, state, by=BY)
        except PlatformError as err:
            if err.code != "does_not_fit":
                raise
            self._note(found.kfp_run, found.asked, ": ".join(filter(None, [err.headline, err.detail])))
            tell({"event": "run_left", **said, "error": err.as_dict()})
            return
        if later is not None:
            restart = later.asked["restarts"][-1]
            because = {"because": restart["error"]["headline"], "changed": restart["changed"]}
            tell({"event": "run_restarted", **said, "as": later.kfp_run, **because})

    def _end_what_no_node_takes(self, tell: Tell) -> None:
        """End what this keeper started with more memory than any node gives: it would wait for ever."""
        running = [_run_of(each) for each in self.access.kube.items(_KINDS, "-l", _RUNNING)]
        self._larger = {run: self._larger.get(run) or self._made_larger(run) for run in running}
        for kfp_run, restart in self._larger.items():
            why = self._waits(kfp_run) if restart else ""
            if why:
                asked("Kubeflow Pipelines did not end the run", partial(self.access.api().terminate_run, kfp_run))
                said = " ".join(f"{key}={value}" for key, value in restart["changed"].items())
                self._note(kfp_run, {}, f"no node took it with {said}: {why}")
                tell({"event": "run_ended", "kfp_run": kfp_run, "because": why})

    def _made_larger(self, kfp_run: str) -> dict[str, Any]:
        """The start of a run by a keeper that gave it more memory; empty for another run."""
        restart: dict[str, Any] = ((self.access.about(kfp_run) or {}).get("restarts") or [{}])[-1]
        return restart if restart.get("by") == BY and restart.get("changed") else {}

    def _waits(self, kfp_run: str) -> str:
        """What keeps a pod of a run from every node, when it does so for long."""
        for pod in self.access.objects_of(kfp_run)[1]:
            waited = (datetime.now(UTC) - moment(pod["metadata"]["creationTimestamp"])).total_seconds()
            for condition in (pod.get("status") or {}).get("conditions") or []:
                if condition.get("reason") == "Unschedulable" and waited > self.patience:
                    return str(condition.get("message") or condition["reason"])
        return ""

    def _note(self, kfp_run: str, asked_for: Mapping[str, Any], why: str) -> None:
        """Leave in the record why the run is left as it is."""
        record = self.access.about(kfp_run) or asked_for
        write_run(self.access.records, kfp_run, Run.model_validate(record), {**standing(record), "left": why})


def _run_of(workflow: Mapping[str, Any]) -> str:
    return str(workflow["metadata"]["labels"]["pipeline/runid"])
