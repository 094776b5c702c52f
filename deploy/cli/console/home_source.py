"""The console's documents from a profile: its registry, bundles, runs, releases, reports, rollouts and audit log."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from time import monotonic
from typing import Any, TypeVar
from urllib.parse import quote

from contracts import storage
from contracts.audit import AuditLog, Entry, Verdict
from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from contracts.registry import CHALLENGER, CHAMPION, ModelVersion, Registry
from deploy.cli.console.bundles import Bundles, version_of
from deploy.cli.console.kept import REMOTE_SECONDS, SOON, Fresh, Kept, stamp_of
from deploy.cli.console.live import Prometheus, Scraped
from deploy.cli.console.releases import Served
from deploy.cli.console.run_source import LocalRuns, Runs
from deploy.cli.console.stages import LocalStages, Stages
from deploy.cli.console.watched import (
    NOBODY,
    Watched,
    history_place,
    read_history,
    read_loop,
    read_report,
    report_place,
)
from deploy.cli.loop.watch import loop_place
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
    Release,
    Run,
    RunPage,
    Stage,
)

Found = TypeVar("Found")
_AT_ONCE = 8  # models that are asked for at the same time


class HomeSource:
    """Implements `services.console.source.Source`.

    Args:
        steer: does a command with a rollout, for somebody and a reason.
        key: that the endpoint of a model wants; "" where none is known.
        links: pages of other tools, by their name.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        *,
        served: Served,
        steer: Callable[[str, str, str, str], object],
        runs: Runs | None = None,
        stages: Stages | None = None,
        prometheus: Prometheus | None = None,
        key: Callable[[str], str] = lambda model: "",
        links: Mapping[str, str] | None = None,
    ) -> None:
        self._endpoints = endpoints.resolved()
        self._registry, self._bundles = Registry(self._endpoints), Bundles()
        self._served, self._prometheus, self._key = served, prometheus, key
        self._runs: Runs = runs or LocalRuns(self._endpoints)
        self._steer, self._scraped = steer, Scraped(key)
        self._reports, self._past = Kept(read_report), Kept(read_history)
        self._stages: Stages = stages or LocalStages(str(self._endpoints.scratch("rollouts")))
        self._links = dict(links or {})
        self._of_file: tuple[object, dict[str, list[ModelVersion]]] = (None, {})
        self._of_server = Fresh(self._read_registry, REMOTE_SECONDS)
        self._log = Fresh(self._read_log, REMOTE_SECONDS if storage.is_remote(self._endpoints.artifacts) else 0.0)
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
        """Versions by model, newest first; a registry in a file is read again when the file has changed."""
        tracking = self._endpoints.tracking
        if not tracking.startswith("sqlite:///"):
            return self._of_server.get()
        file = tracking.removeprefix("sqlite:///")
        with self._lock:
            stamp = stamp_of(file), stamp_of(f"{file}-wal")
            if stamp != self._of_file[0]:
                self._of_file = stamp, self._read_registry()
            return self._of_file[1]

    def _read_registry(self) -> dict[str, list[ModelVersion]]:
        names = self._registry.names()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            found = dict(zip(names, pool.map(self._registry.versions, names), strict=True))
        return {name: versions for name, versions in found.items() if versions}

    def models(self) -> Sequence[Model]:
        """All models that have a version, or a release."""
        versions, releases = self._versions(), self._releases()
        names = sorted({*versions, *releases})
        for name in names:
            if champion := _champion(versions.get(name, [])):
                self._reports.begin(*self._report_of(champion))
        live, alerts = self._live(names, releases), _quiet(self.alerts)
        until = monotonic() + SOON
        return [
            self._model(name, versions.get(name, []), live.get(name, Live()), alerts, releases.get(name, ()), until)
            for name in names
        ]

    def _releases(self) -> Mapping[str, Sequence[Release]]:
        found = _quiet(self._served.of) or {}
        return {
            model: [one if one.version else replace(one, version=self._stages.version(model)) for one in some]
            for model, some in found.items()
        }

    def _live(self, names: Sequence[str], releases: Mapping[str, Sequence[Release]]) -> dict[str, Live]:
        if self._prometheus is not None and (found := self._prometheus.numbers.get()) is not None:
            nothing = Live(up=False) if self._served.scraped else Live()
            return {name: _with_pods(found.get(name, nothing), releases.get(name)) for name in names}
        if not self._served.scraped:
            return {name: _with_pods(Live(), releases.get(name)) for name in names}
        addresses = {name: address for name in names if (address := self._served.address(name))}
        return self._scraped.of(addresses)

    def _model(
        self,
        name: str,
        versions: list[ModelVersion],
        live: Live,
        alerts: Sequence[Alert] | None,
        releases: Sequence[Release],
        until: float,
    ) -> Model:
        alerting = None if alerts is None else sum(one.model == name for one in alerts)
        rollout = self._stages.of(name)
        if not versions:
            return Model(name=name, live=live, releases=releases, alerts=alerting, rollout=rollout)
        champion = _champion(versions)
        told = self._bundles.of(champion or versions[0])
        watched = self._watched(champion, until)
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
            rollout=rollout,
            releases=releases,
            alerts=alerting,
            problem=told.problem,
        )

    def _report_of(self, champion: ModelVersion) -> tuple[str, str]:
        """Place of the report, and which of its versions is meant."""
        place = report_place(self._endpoints.uri("predictions"), champion.name)
        return place, f"{champion.version}@{champion.digest}"

    def _watched(self, champion: ModelVersion | None, until: float | None = None) -> Watched | None:
        return self._reports.of(*self._report_of(champion), until) if champion else None

    def model(self, name: str) -> ModelPage | None:
        """One model with all of its versions."""
        versions, releases = self._versions().get(name, []), self._releases().get(name, ())
        if not versions and not releases:
            return None
        alerts = _quiet(self.alerts)
        live = self._live([name], {name: releases}).get(name, Live())
        model = self._model(name, versions, live, alerts, releases, monotonic() + SOON)
        page = ModelPage(
            model=model,
            versions=(),
            drift_problem=NOBODY,
            rollouts=[model.rollout] if model.rollout else [],
            loop=read_loop(loop_place(self._endpoints), name),
            alerts=None if alerts is None else [one for one in alerts if one.model == name],
            endpoint=self._served.address(name),
            key_known=self._served.scraped or bool(self._key(name)),
            links=model_links(self._links, name),
        )
        return self._with_versions(page, versions) if versions else page

    def _with_versions(self, page: ModelPage, versions: list[ModelVersion]) -> ModelPage:
        champion = _champion(versions)
        shown = champion or versions[0]
        watched = self._watched(champion)
        drift = watched.inputs if watched and watched.inputs else self._bundles.baseline(shown)
        where = history_place(self._endpoints.uri("predictions"), shown.name)
        past = self._past.of(where, f"{shown.version}@{shown.digest}")
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            told = list(pool.map(self._bundles.of, versions))
        document = told[versions.index(shown)].document
        return replace(
            page,
            versions=[version_of(one, said) for one, said in zip(versions, told, strict=True)],
            quality=watched.quality if watched else (),
            windows=past.windows,
            drift=[replace(one, past=past.psi.get(one.name, ())) for one in drift],
            drift_window=watched.window if watched else "",
            drift_problem=watched.problem if watched else NOBODY,
            signature=document.signature if document else None,
            example=self._bundles.example(shown),
        )

    def bundle_file(self, name: str, version: str, file: str) -> bytes | None:
        """The card or the data page of a version."""
        found = [one for one in self._versions().get(name, []) if one.version == version]
        return self._bundles.page(found[0], file) if found else None

    def runs(self, limit: int) -> Sequence[Run]:
        """Runs of this machine, or of the profile's cluster."""
        return self._runs.latest(limit)

    def run(self, run_id: str) -> RunPage | None:
        """One run by its whole id."""
        return self._runs.page(run_id, self._links)

    def rollouts(self) -> Sequence[Stage]:
        """Rollouts, those under way first."""
        found = [self._stages.of(name) for name in self._stages.models()]
        return sorted((one for one in found if one), key=lambda one: (one.ended, one.model))

    def steer(self, model: str, command: str, actor: str, reason: str) -> None:
        """Ask who serves the model, as `fairlead rollouts` does."""
        self._steer(model, command, actor, reason)

    def alerts(self) -> Sequence[Alert] | None:
        """Of Prometheus, where one is named."""
        return None if self._prometheus is None else self._prometheus.alerts.get()

    def audit(self, page: int, size: int) -> AuditPage | None:
        """The log beside the models; its chain is checked whenever it is read."""
        verdict, entries = self._log.get()
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

    def _read_log(self) -> tuple[Verdict, list[Entry]]:
        log = AuditLog.of(self._endpoints)
        verdict = log.verify()
        try:
            return verdict, log.read()[::-1]
        except PlatformError as err:
            if err.code != "audit_broken":
                raise
            return verdict, []

    def predict(self, name: str, instance: Mapping[str, Any], explain: bool, key: str) -> Answer:
        """Ask the endpoint, as any client does."""
        address = self._served.reached(name)
        if not address:
            return Answer(status=0, headline=f"{name}: no release serves it", fix=f"fairlead deploy {name}")
        body = {"instances": [dict(instance)], **({"explain": True} if explain else {})}
        sent = send(f"{address}/predict", [body], connections=1, key=key or self._key(name))[0]
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


def _champion(versions: Sequence[ModelVersion]) -> ModelVersion | None:
    return next((one for one in versions if CHAMPION in one.aliases), None)


def _with_pods(live: Live, releases: Sequence[Release] | None) -> Live:
    """The same numbers; a release says by its pods whether it is up, also before anybody measures it."""
    return replace(live, up=any(one.ready for one in releases)) if releases else live


def model_links(links: Mapping[str, str], name: str) -> list[Link]:
    """Pages elsewhere; that of MLflow shows the model itself."""
    return [
        Link(label=label, url=f"{url}/#/models/{quote(name)}" if label.lower() == "mlflow" else url)
        for label, url in links.items()
    ]


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
