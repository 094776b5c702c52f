"""A run on a cluster as the events of a local run: its state from the workflow, its progress from the pods' logs.

Nothing of it is needed for the run itself: following may break off, be taken up again, and be done by several at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from contracts.errors import PlatformError
from deploy.cli.cluster.log_streams import Streams
from deploy.cli.cluster.pod_failures import main_status
from deploy.cli.cluster_runs.access import Access
from deploy.cli.cluster_runs.pod_events import Heard
from deploy.cli.cluster_runs.run_document import order_of
from deploy.cli.cluster_runs.workflow_state import DONE, State, Step, Try, pod_name_of, read_state, workflow_of

Show = Callable[[dict[str, Any]], None]

_POLL = 2.0  # seconds between looks
_LONGEST_PAUSE = 15.0  # seconds between looks at a cluster that does not answer
_PATIENCE = 1800.0  # seconds that a cluster may not answer
_UNSEEN = 30.0  # seconds that a run may have no workflow before it counts as deleted
_BLIND = 6.0  # seconds between looks into the store while no log says anything
_SETTLING = 4.0  # seconds for the last lines of logs
_PHASES = {"SUCCEEDED": "Succeeded", "FAILED": "Failed", "CANCELED": "Failed", "SKIPPED": "Succeeded"}


class Follower:
    """Turns what changes in a run into events; `asked` is what the run was asked (cluster_runs/run_document.py).

    Attributes:
        state: the last look at it.  silent_since: when the cluster stopped to answer, None while it does.
    """

    def __init__(self, access: Access, kfp_run: str, asked: Mapping[str, Any]) -> None:
        self.access, self.kfp_run, self._asked = access, kfp_run, asked
        self.state = State()
        self.silent_since: datetime | None = None
        self._heard = Heard()
        self._streams = Streams(access.kube)
        self._workflow: dict[str, Any] | None = None
        self._pods: list[dict[str, Any]] = []
        self._stored: dict[str, dict[str, Any]] = {}
        self._seen: object = None  # what was known of the pods when the store was read
        self._shown: dict[str, Step] = {}
        self._hearing = False  # whether the ends of logs are being read
        self._given_up: set[str] = set()  # pods whose logs could not be read to their end
        self._failures, self._silent_from, self._unseen_from, self._store_again = 0, 0.0, 0.0, 0.0

    def follow(self, show: Show) -> State:
        """Until the run has ended, or a step of it has failed for good; returns the last state.

        Raises:
            PlatformError: the cluster refuses to be looked at, or has not answered for half an hour.
        """
        try:
            while True:
                pause = self._look(show)
                if self._over() or (self._listen(show, pause) and self._over()):
                    self._settle(show)
                    return self.state
        finally:
            self._streams.close()

    def look(self, *, logs: bool = False) -> State:
        """How the run stands, once; `logs`: by what its pods say as well, although they may not have ended.

        Raises:
            PlatformError: the cluster does not answer.
        """
        self._fetch()
        self._assess()
        self._read_store()
        if self._assess().ended or logs:
            self._hear_logs()
        return self._assess()

    def remember(self, run: Any) -> State:
        """How a run ended of which Kubeflow's API gave `run`: from the store alone, where that says why it failed.

        Raises:
            PlatformError: the store does not answer.
        """
        self._stored = self.access.stored(self.kfp_run)
        self._workflow = _remembered(run)
        state = self._assess()
        if state.error is not None and state.error.code in ("step_died", "run_failed"):
            return self.look()
        return state

    def _over(self) -> bool:
        return self.silent_since is None and (self.state.ended or self.state.error is not None)

    def _look(self, show: Show) -> float:
        """See what is new; returns the seconds until the next look."""
        try:
            self._fetch()
        except PlatformError as err:
            return self._not_answered(err, show)
        if self.silent_since is not None:
            show({"event": "cluster_back", "seconds": round(time.monotonic() - self._silent_from, 1)})
            self.silent_since, self._failures = None, 0
        self._assess()
        self._tend()
        self._read_store()
        self._assess()
        self._hear_out(show)
        self._tell(show)
        return _POLL

    def _hear_out(self, show: Show) -> None:
        """Hear the end of the logs of pods that have ended: what their steps said belongs to the news of their end."""
        end = time.monotonic() + _SETTLING
        while left := [pod for pod, _, ended in self._talking() if ended and self._unheard(pod)]:
            for pod in left:
                self._streams.tend(pod, True)
            if time.monotonic() > end:
                self._given_up.update(left)
            self._hearing = True
            self._listen(show, 0.1)
        self._hearing = False

    def _unheard(self, pod: str) -> bool:
        return pod not in self._given_up and not self._streams.complete(pod)

    def _not_answered(self, err: PlatformError, show: Show) -> float:
        if err.code not in ("kubernetes", "kfp") or "orbidden" in err.detail:
            raise err
        now = time.monotonic()
        if self.silent_since is None:
            self.silent_since, self._silent_from = datetime.now(), now
            since = f"{self.silent_since:%H:%M:%S}"
            message = (err.detail or err.headline).strip().splitlines()[-1].strip()
            show({"event": "cluster_silent", "since": since, "message": message})
        if now - self._silent_from > _PATIENCE:
            raise PlatformError(
                f"the cluster has not answered since {self.silent_since:%H:%M:%S}; the run itself goes on",
                detail=err.detail,
                fix="follow it again later: --follow",
                code="unreachable",
            ) from err
        self._failures += 1
        return float(min(_LONGEST_PAUSE, _POLL * 2 ** min(self._failures - 1, 5)))

    def _fetch(self) -> None:
        """The objects of the run; of one whose workflow is gone, what Kubeflow remembers."""
        workflow, self._pods = self.access.objects_of(self.kfp_run)
        if workflow is not None:
            self._workflow, self._unseen_from = workflow, 0.0
            return
        run = self.access.run(self.kfp_run)
        phase = _PHASES.get(str(run.state), "")
        self._unseen_from = self._unseen_from or time.monotonic()
        if not phase and time.monotonic() - self._unseen_from > _UNSEEN:
            raise PlatformError(
                "the run has lost its workflow: somebody has deleted it",
                detail=f"Kubeflow run {self.kfp_run} is {run.state}, and there is no workflow of it",
                fix="start it again",
                code="run_deleted",
            )
        self._workflow = _remembered(run)

    def _assess(self) -> State:
        assert self._workflow is not None
        records = self._known()
        metadata = self._workflow["metadata"]
        metadata["name"] = metadata["name"] or next(filter(None, map(_workflow, records.values())), "")
        order = order_of(str(metadata["name"]), self._asked, records)
        arguments = (self._workflow, self._pods, records, order)
        state = read_state(*arguments, tails=self._heard.tails)
        if any(step.waiting and step.waiting.kind == "unschedulable" for step in state.steps.values()):
            state = read_state(*arguments, nodes=self.access.nodes(), tails=self._heard.tails)
        self.state = state
        return state

    def _known(self) -> dict[str, dict[str, Any]]:
        return self._heard.known(self._stored)

    def _tend(self) -> None:
        """See to it that the logs of the pods are read that have something to say."""
        for pod, _, ended in self._talking():
            self._streams.tend(pod, ended)

    def _talking(self) -> Iterator[tuple[str, Try, bool]]:
        """The pods that have begun and are not known to the end, with whether they have ended."""
        records = self._known()
        for task in self.state.tasks:
            known = [records.get(step, {}).get("status") for step in task.steps]
            told = all(status in DONE or status == "failed" for status in known)
            tries = (*task.tries, *([task.driver] if task.driver and task.driver.phase in ("Failed", "Error") else []))
            for one in tries:
                state = main_status(one.pod)
                ended = "terminated" in state
                if one.pod is not None and (("running" in state) or (ended and not told)):
                    yield str(one.pod["metadata"]["name"]), one, ended

    def _read_store(self) -> None:
        """Read what the steps left, when something has changed since it was read last."""
        tries = [one for task in self.state.tasks for one in task.tries]
        unheard = any(one.phase == "Running" for one in tries) and not self._heard.records
        blind = int(time.monotonic() / _BLIND) if unheard else 0  # its log may not be had: then the store tells
        seen = (self.state.phase, [(one.node.get("id"), one.phase) for one in tries], blind)
        if seen == self._seen or time.monotonic() < self._store_again:
            return
        try:
            self._stored = self.access.stored(self.kfp_run)
        except PlatformError:  # the logs say the same as long as there are pods
            self._store_again = time.monotonic() + _LONGEST_PAUSE
            return
        self._seen = seen

    def _listen(self, show: Show, seconds: float) -> bool:
        """Show what the pods print within `seconds`; returns whether a step said that it failed."""
        end = time.monotonic() + seconds
        for pod, line in self._streams.lines(seconds):
            for event in self._heard.take(pod, line, self._attempt(pod)):
                step = str(event.get("step") or "")
                if event["event"].startswith("step_") and event["event"] != "step_retry":
                    self._tell(show)
                elif not step or self._shown.get(step, Step()).status not in (*DONE, "failed"):
                    show(event)
            if self.state.error is not None and self.silent_since is None:
                return True
            if time.monotonic() > end:
                break
        return False

    def _attempt(self, pod: str) -> int:
        tries = [one for task in self.state.tasks for one in task.tries if one.pod]
        return next((one.number for one in tries if one.pod and one.pod["metadata"]["name"] == pod), 1)

    def _tell(self, show: Show) -> None:
        """Show how the steps differ from what was shown."""
        for name, step in self._assess().steps.items():
            before = self._shown.get(name, Step())
            if self._hearing and step.status in DONE and self._known().get(name, {}).get("status") not in DONE:
                continue  # what it says of its end is still to come
            if before.status in DONE or (before.status, before.tries, before.waiting) == (
                step.status,
                step.tries,
                step.waiting,
            ):
                continue
            self._shown[name] = step
            if event := _event(name, step):
                show(event)

    def _settle(self, show: Show) -> None:
        """Hear the rest, when a step ended without a word or the run's result is not known yet."""
        error = self.state.error
        if error is not None and error.code != "step_died":
            return
        self._hear_out(show)
        self._seen, self._store_again = None, 0.0
        self._read_store()
        self._hear_logs()
        self._tell(show)

    def _hear_logs(self) -> None:
        """The logs of pods whose steps left nothing else, from the pods or from where Argo keeps them."""
        known = self._known()
        for task in self.state.tasks:
            if all(step in known and known[step]["status"] != "running" for step in task.steps):
                continue
            for one in task.tries[-1:]:
                pod = pod_name_of(one)
                for line in self.access.log(self.state.workflow, pod).splitlines():
                    list(self._heard.take(pod, line, one.number))


def _remembered(run: Any) -> dict[str, Any]:
    """What is left of a workflow that is gone: its end."""
    spec = {"activeDeadlineSeconds": 0} if str(run.state) == "CANCELED" else {}
    status = {"phase": _PHASES.get(str(run.state), "Pending")}
    return {"metadata": {"name": ""}, "spec": spec, "status": status}


def _workflow(record: dict[str, Any]) -> str:
    return workflow_of(str(record.get("pod") or ""))


def _event(name: str, step: Step) -> dict[str, Any] | None:
    """How a step stands, as an event."""
    if step.status == "waiting":
        if step.waiting is None:
            return None
        return {"event": "step_waiting", "step": name, "kind": step.waiting.kind, "reason": step.waiting.text}
    if step.status == "running":
        return {"event": "step_started", "step": name, "attempt": step.tries}
    if step.status == "failed":
        error = step.error.as_dict() if step.error else None
        return {"event": "step_failed", "step": name, "seconds": step.seconds, "error": error}
    return {"event": f"step_{step.status}", "step": name, "seconds": step.seconds, "result": step.result}
