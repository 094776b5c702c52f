"""The keeper of one release on a cluster: looks, decides, and makes it so, until it is ended."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from contracts import storage
from contracts.audit import AuditLog
from contracts.bundle import DOCUMENT, parse_document
from contracts.errors import PlatformError
from services.logs import log_event
from services.rollout.app import control_app, discovery_app
from services.rollout.champion import Champion
from services.rollout.cluster_fleet import ClusterFleet, Envoys, Splitter
from services.rollout.config_map_store import ConfigMapStore
from services.rollout.http_route import GatewayRoute
from services.rollout.keeper import Keeper, Record
from services.rollout.kubernetes import Kubernetes
from services.rollout.labels import LabelWatch
from services.rollout.observation import Labelled
from services.rollout.recording import recorder
from services.rollout.settings import KeeperSettings
from services.rollout.slots import Slots
from services.rollout.state import Rollout, Transition
from services.rollout.store import Place, Request, Served

if TYPE_CHECKING:
    from starlette.applications import Starlette

_SILENT = 60.0  # seconds without a whole look after which it is taken for stuck
_ENVOYS_HEAR, _GATEWAYS_HEAR = 5.0, 30.0


class KeeperService:
    """Everything that the pod has."""

    def __init__(self, settings: KeeperSettings, kubernetes: Kubernetes) -> None:
        self._settings, self._keeper, self._watch = settings, None, None
        self._store = ConfigMapStore(kubernetes, f"{settings.name}-rollouts")
        self._first = self._store.read() or _first(settings)
        champion, (router, linger) = Champion(settings.tracking, settings.model), _router(settings, kubernetes)
        slots = Slots(kubernetes, settings.slots, settings.replicas, settings.autoscaling, time.monotonic, linger)
        self._fleet = ClusterFleet(slots, router, champion, self.served, self._labels, grpc_port=settings.grpc_port)
        self._keeper = Keeper(self._store, self._fleet, _record(settings), self._first)
        self._looked, self._ended = time.monotonic(), False

    _keeper: Keeper | None
    _watch: LabelWatch | None

    def served(self) -> Served:
        """The state now."""
        return self._keeper.served if self._keeper else self._first

    def end(self) -> None:
        """Let `run` return."""
        self._ended = True
        self._store.asked_for.set()

    def run(self) -> None:
        """Serve, and look again and again, until `end`.

        Raises:
            PlatformError: ``code="conflict"``: another keeper looks after the release.
        """
        settings, said = self._settings, ""
        control = control_app(self.served, self._ask, self._is_alive, self._is_ready)
        _serve(control, settings.host, settings.port)
        if settings.router == "envoy":
            _serve(discovery_app(lambda: self._fleet.routing), settings.host, settings.xds_port)
        while not self._ended:
            said = self._look(said)
            rollout = self.served().rollout
            busy = said or not self._is_ready() or (rollout is not None and not rollout.ended)
            self._store.asked_for.wait(settings.look_seconds if busy else settings.idle_seconds)

    def _look(self, said: str) -> str:
        """Look once; returns what is wrong, which is not said again, "" when nothing is."""
        assert self._keeper is not None
        try:
            self._keeper.tick(time.time())
            self._watch_labels()
        except (PlatformError, OSError) as err:
            if isinstance(err, PlatformError) and err.code == "conflict":
                raise
            if str(err) != said:
                log_event("not_looked", logging.WARNING, error=str(err))
            return str(err)
        self._looked = time.monotonic()
        return ""

    def _ask(self, request: Request) -> Served:
        return self._store.ask(request, self.served)

    def _is_alive(self) -> bool:
        return time.monotonic() - self._looked < _SILENT

    def _is_ready(self) -> bool:
        return self._fleet.routing is not None

    def _labels(self) -> Mapping[str, Labelled]:
        return self._watch.counts if self._watch else {}

    def _watch_labels(self) -> None:
        """Count labels from the first rollout on; the log may be long, and most releases have none."""
        rollout = self.served().rollout
        if not self._settings.predictions or self._watch or rollout is None or rollout.ended:
            return
        place = self.served().places[rollout.champion]
        text = storage.read_bytes(storage.join(place.source, DOCUMENT))
        about, settings = parse_document(text, place.source), self._settings
        self._watch = LabelWatch(
            settings.predictions, settings.model, about.signature, lambda: self.served().rollout, about.metrics
        )


def _first(settings: KeeperSettings) -> Served:
    places = {settings.version: Place(source=settings.source, digest=settings.digest)}
    return Served(model=settings.model, version=settings.version, places=places)


def _router(settings: KeeperSettings, kubernetes: Kubernetes) -> tuple[Splitter, float]:
    """What splits the traffic, and the seconds within which it has heard of a change."""
    if settings.router == "envoy":
        return Envoys(f"{settings.name}-router"), _ENVOYS_HEAR
    route = f"{settings.name}-rollouts"
    return GatewayRoute(kubernetes, route, settings.name, settings.model, settings.path), _GATEWAYS_HEAR


def _record(settings: KeeperSettings) -> Record:
    """Notes transitions in the audit log, and in the pod's own."""
    write = recorder(AuditLog(storage.join(settings.artifacts, ".audit"))) if settings.artifacts else None

    def record(rollout: Rollout, transition: Transition) -> None:
        if write is not None:
            write(rollout, transition)
        noted = json.loads(transition.model_dump_json(exclude={"evidence"}))
        log_event("rollout", model=rollout.model, candidate=rollout.candidate, rollout=rollout.id, **noted)

    return record


def _serve(app: Starlette, host: str, port: int) -> None:
    """Serve from a thread of its own until the process ends."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, host=host, port=port, log_level="critical", lifespan="off"))
    threading.Thread(target=server.run, daemon=True).start()
