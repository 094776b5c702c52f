"""The console's documents from a profile: its registry, bundles, records of runs, reports, rollouts and audit log."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from contracts import storage
from contracts.audit import AuditLog
from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from contracts.registry import CHALLENGER, CHAMPION, ModelVersion, Registry
from deploy.cli.console.bundles import Bundles, version_of
from deploy.cli.console.kept import Kept, stamp_of
from deploy.cli.console.live import Prometheus, Scraped
from deploy.cli.console.run_records import page_of, run_of
from deploy.cli.console.watched import (
    NOBODY,
    Watched,
    read_loop,
    read_report,
    read_rollout,
    report_place,
    rollout_names,
)
from deploy.cli.loop.watch import loop_place
from deploy.cli.runs.run_files import find_run, list_runs
from deploy.cli.serving.http_requests import send
from services.console.documents import (
    Alert,
    Answer,
    AuditLine,
    AuditPage,
    Link,
    Live,
    Measure,
    Model,
    ModelPage,
    Run,
    RunPage,
    Stage,
)

Found = TypeVar("Found")
_SERVER_SECONDS = 15.0  # for which what a registry server said is shown again


class HomeSource:
    """Implements `services.console.documents.Source`.

    Args:
        address: where the endpoint of a model answers; "" where nobody knows.
        steer: does a command with a rollout, for somebody and a reason.
        key: of the endpoints.
        links: pages of other tools, by their name.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        *,
        address: Callable[[str], str],
        steer: Callable[[str, str, str, str], object],
        prometheus: Prometheus | None = None,
        key: str = "",
        links: Mapping[str, str] | None = None,
    ) -> None:
        self._endpoints = endpoints.resolved()
        self._registry, self._bundles = Registry(self._endpoints), Bundles()
        self._address, self._prometheus, self._key = address, prometheus, key
        self._steer, self._scraped = steer, Scraped(key)
        self._reports, self._stages = Kept(read_report), Kept(read_rollout)
        self._links = dict(links or {})
        self._rollouts = str(self._endpoints.scratch("rollouts"))
        self._known: dict[str, list[ModelVersion]] = {}
        self._stamp: object = None
        self._lock = threading.Lock()

    @property
    def place(self) -> str:
        """The home."""
        return self._endpoints.home

    @property
    def links(self) -> Sequence[Link]:
        """MLflow, Kubeflow and Grafana, as far as their addresses are known."""
        return [Link(label=label, url=url) for label, url in self._links.items()]

    def _versions(self) -> dict[str, list[ModelVersion]]:
        """Versions by model, newest first; read again when the registry's file has changed."""
        with self._lock:
            stamp = self._registry_stamp()
            if stamp != self._stamp:
                self._known = {name: self._registry.versions(name) for name in self._registry.names()}
                self._stamp = stamp
            return self._known

    def _registry_stamp(self) -> object:
        tracking = self._endpoints.tracking
        if not tracking.startswith("sqlite:///"):
            return int(time.monotonic() / _SERVER_SECONDS)
        file = tracking.removeprefix("sqlite:///")
        return stamp_of(file), stamp_of(f"{file}-wal")

    def models(self) -> Sequence[Model]:
        """All models that have a version."""
        versions = {name: found for name, found in self._versions().items() if found}
        live = self._live(list(versions))
        alerts = _quiet(self.alerts)
        return [self._model(name, found, live.get(name, Live()), alerts) for name, found in versions.items()]

    def _live(self, names: Sequence[str]) -> dict[str, Live]:
        if self._prometheus is not None:
            found = self._prometheus.numbers.get()
            if found is not None:
                return {name: found.get(name, Live(up=False)) for name in names}
        addresses = {name: address for name in names if (address := self._address(name))}
        return self._scraped.of(addresses)

    def _model(self, name: str, versions: list[ModelVersion], live: Live, alerts: Sequence[Alert] | None) -> Model:
        champion = next((one for one in versions if CHAMPION in one.aliases), None)
        told = self._bundles.of(champion or versions[0])
        watched = self._watched(name, champion)
        return Model(
            name=name,
            version=champion.version if champion else "",
            latest=versions[0].version,
            challenger=next((one.version for one in versions if CHALLENGER in one.aliases), ""),
            recipe=(champion or versions[0]).recipe,
            created=(champion or versions[0]).created,
            gate_passed=versions[0].gate_passed,
            live=live,
            quality=told.quality() if champion else None,
            live_quality=_headline(watched, told.primary),
            watched=len(watched.said) if watched and watched.said else None,
            drifted=len(watched.drifted) if watched and watched.said else None,
            drifted_inputs=watched.drifted if watched else [],
            rollout=self._rollout(name),
            alerts=None if alerts is None else sum(one.model == name for one in alerts),
            problem=told.problem,
        )

    def _watched(self, name: str, champion: ModelVersion | None) -> Watched | None:
        place = report_place(self._endpoints.uri("predictions"), name)
        return self._reports.of(place, champion.version) if champion else None

    def _rollout(self, name: str) -> Stage | None:
        return self._stages.of(storage.join(self._rollouts, f"{name}.json"), name)

    def model(self, name: str) -> ModelPage | None:
        """One model with all of its versions."""
        versions = self._versions().get(name)
        if not versions:
            return None
        alerts = _quiet(self.alerts)
        model = self._model(name, versions, self._live([name]).get(name, Live()), alerts)
        champion = next((one for one in versions if CHAMPION in one.aliases), None)
        shown = champion or versions[0]
        watched = self._watched(name, champion)
        told = self._bundles.of(shown)
        return ModelPage(
            model=model,
            versions=[version_of(one, self._bundles.of(one)) for one in versions],
            quality=watched.quality if watched else (),
            drift=watched.inputs if watched and watched.inputs else self._bundles.baseline(shown),
            drift_window=watched.window if watched else "",
            drift_problem=watched.problem if watched else NOBODY,
            rollouts=[model.rollout] if model.rollout else [],
            loop=read_loop(loop_place(self._endpoints), name),
            alerts=None if alerts is None else [one for one in alerts if one.model == name],
            endpoint=self._address(name),
            signature=told.document.signature if told.document else None,
            example=self._bundles.example(shown),
            links=self.links,
        )

    def bundle_file(self, name: str, version: str, file: str) -> bytes | None:
        """The card or the data page of a version."""
        found = [one for one in self._versions().get(name, []) if one.version == version]
        return self._bundles.page(found[0], file) if found else None

    def runs(self, limit: int) -> Sequence[Run]:
        """Runs on this machine."""
        return [run_of(record) for record in list_runs(self._endpoints)[:limit]]

    def run(self, run_id: str) -> RunPage | None:
        """One run on this machine, by its whole id."""
        try:
            record = find_run(self._endpoints, run_id)
        except PlatformError as err:
            if err.code == "unknown_run":
                return None
            raise
        return page_of(record, _needs(record), self.links) if record["run_id"] == run_id else None

    def rollouts(self) -> Sequence[Stage]:
        """Rollouts, those under way first."""
        found = [self._rollout(name) for name in rollout_names(self._rollouts)]
        return sorted((one for one in found if one), key=lambda one: (one.ended, one.model))

    def steer(self, model: str, command: str, actor: str, reason: str) -> None:
        """Ask who serves the model, as `fairlead rollouts` does."""
        self._steer(model, command, actor, reason)

    def alerts(self) -> Sequence[Alert] | None:
        """Of Prometheus, where one is named."""
        return None if self._prometheus is None else self._prometheus.alerts.get()

    def audit(self, page: int, size: int) -> AuditPage | None:
        """The log beside the models; its chain is checked each time."""
        log = AuditLog.of(self._endpoints)
        verdict = log.verify()
        try:
            entries = log.read()[::-1]
        except PlatformError as err:
            if err.code != "audit_broken":
                raise
            entries = []
        if not entries and verdict.intact:
            return None
        broken = "" if verdict.intact else f"{verdict.broken}: {verdict.reason}"
        shown = entries[(page - 1) * size : page * size]
        return AuditPage(
            entries=[
                AuditLine(
                    sequence=one.sequence, time=one.time, actor=one.actor, action=one.action, subject=one.subject,
                    reason=one.reason,
                    evidence=json.dumps(one.evidence, indent=1, ensure_ascii=False) if one.evidence else "",
                )
                for one in shown
            ],
            total=max(len(entries), 1),
            intact=verdict.intact,
            broken=broken,
        )  # fmt: skip

    def predict(self, name: str, instance: Mapping[str, Any], explain: bool) -> Answer:
        """Ask the endpoint, as any client does."""
        address = self._address(name)
        body = {"instances": [dict(instance)], **({"explain": True} if explain else {})}
        sent = send(f"{address}/predict", [body], connections=1, key=self._key)[0]
        said = sent.body if isinstance(sent.body, dict) else {}
        if sent.status == 200 and said.get("predictions") and said.get("model") == name:
            return Answer(
                status=200,
                milliseconds=sent.milliseconds,
                version=str(said.get("version", "")),
                prediction=said["predictions"][0],
            )
        return _refusal(sent.status, said, name, address)


def _refusal(status: int, said: Mapping[str, Any], name: str, address: str) -> Answer:
    """What became of a request that got no prediction of the model."""
    start = f"fairlead serve {name}"
    if status == 0:
        return Answer(status=0, headline=f"{address}: {said.get('error', '')}", fix=start)
    if status == 200:
        return Answer(status=502, headline=f"{address}: {said.get('model', '?')} != {name}", fix=start)
    errors = [
        (str(one.get("field", "")), str(one.get("message", "")))
        for one in said.get("errors") or []
        if isinstance(one, dict)
    ]
    title = str(said.get("title") or status)
    return Answer(
        status=status,
        headline=title,
        detail=str(said.get("detail") or ""),
        fix=str(said.get("fix") or ""),
        errors=errors,
    )


def _needs(record: Mapping[str, Any]) -> dict[str, list[str]]:
    """Whose output each step takes; a line of steps where the task is not known here."""
    from pipelines.steps.calls import graph, needs_of
    from pipelines.tasks import get_task

    asked = record.get("asked") or {}
    task, workflow = record.get("task") or asked.get("task"), record.get("workflow") or asked.get("workflow")
    try:
        return needs_of(graph(str(workflow or "full"), get_task(str(task)) if task else None))
    except (PlatformError, KeyError, ImportError):
        steps = list(record.get("steps") or {})
        return {step: steps[at - 1 : at] if at else [] for at, step in enumerate(steps)}


def _headline(watched: Watched | None, primary: str) -> Measure | None:
    """The primary measure over all rows, or the first of the others."""
    whole = [one for one in watched.quality if not one.part] if watched else []
    return next((one for one in whole if one.metric == primary), whole[0] if whole else None)


def _quiet(ask: Callable[[], Found | None]) -> Found | None:
    """What is asked for, or None where it does not answer."""
    try:
        return ask()
    except PlatformError:
        return None
