"""What a rollout's keeper serves: configuration to Envoy over REST xDS, metrics, and on a cluster what is asked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from contracts import metric_names as names
from contracts.errors import PlatformError
from services.metrics.exposition import expose
from services.rollout import envoy
from services.rollout.envoy import Routing
from services.rollout.state import ENDED, PHASES, Rollout
from services.rollout.store import Request as Asked
from services.rollout.store import Served


def discovery_app(routing: Callable[[], Routing | None]) -> Starlette:
    """``/v3/discovery:routes`` and ``/v3/discovery:clusters``; unavailable while there is no routing."""

    async def answer(request: Request) -> Response:
        now, asked, kind = routing(), await request.json(), request.url.path.rpartition(":")[2]
        if now is None:
            return Response(status_code=503)
        if asked.get("resource_names") == [envoy.GRPC]:
            kind = "grpc_routes"
        found = envoy.resources(kind, now)
        version = hashlib.sha256(json.dumps(found).encode()).hexdigest()[:16]
        if asked.get("version_info") == version:
            return Response(status_code=304)
        return JSONResponse(envoy.discovery(kind, found, version))

    kinds = ("routes", "clusters")
    return Starlette(routes=[Route(f"/v3/discovery:{kind}", answer, methods=["POST"]) for kind in kinds])


def metrics_route(served: Callable[[], Iterable[Served]]) -> Route:
    """``/metrics`` of rollouts."""

    async def metrics(request: Request) -> Response:
        registry = CollectorRegistry()
        registry.register(_Rollouts(list(served())))
        body, media = expose(registry, request.headers.get("accept", ""))
        return Response(body, headers={"content-type": media})

    return Route("/metrics", metrics)


def control_app(
    served: Callable[[], Served], ask: Callable[[Asked], Served], alive: Callable[[], bool], ready: Callable[[], bool]
) -> Starlette:
    """``/rollouts``: GET the state, POST a request and get the state when it is done; ``/metrics`` and probes."""

    async def state(request: Request) -> Response:
        return _json(served().model_dump_json())

    async def asked(request: Request) -> Response:
        try:
            wanted = Asked.model_validate_json(await request.body())
        except ValidationError as err:
            wrong = PlatformError(
                "not a request for a rollout",
                detail=str(err),
                fix="send id, command and actor, and what the command needs",
            )
            return JSONResponse(wrong.as_dict(), 400)
        try:
            return _json((await run_in_threadpool(ask, wanted)).model_dump_json())
        except PlatformError as err:
            return JSONResponse(err.as_dict(), 503 if err.code == "not_answered" else 409)

    def probe(good: Callable[[], bool]) -> Callable[[Request], Any]:
        async def answer(request: Request) -> Response:
            return Response(status_code=200 if good() else 503)

        return answer

    routes = [Route("/rollouts", state), Route("/rollouts", asked, methods=["POST"])]
    probes = [Route("/livez", probe(alive)), Route("/readyz", probe(ready))]
    return Starlette(routes=[*routes, *probes, metrics_route(lambda: [served()])])


def _json(text: str) -> Response:
    return Response(text, media_type="application/json")


class _Rollouts(Collector):
    """The state of rollouts as metrics."""

    def __init__(self, served: list[Served]) -> None:
        self._served = served

    def collect(self) -> Iterable[Metric]:
        """For prometheus_client's registry."""
        labels = names.ROLLOUT_LABELS
        weight = GaugeMetricFamily(
            names.ROLLOUT_WEIGHT, "Share of the traffic, in percent.", labels=labels[names.ROLLOUT_WEIGHT]
        )
        phase = GaugeMetricFamily(
            names.ROLLOUT_PHASE, "1 for the phase of the rollout.", labels=labels[names.ROLLOUT_PHASE]
        )
        ended = CounterMetricFamily(names.ROLLOUTS, "Rollouts by how they ended.", labels=labels[names.ROLLOUTS])
        for one in self._served:
            for version, share in _weights(one).items():
                weight.add_metric([one.model, version], share)
            now = one.rollout.shown_phase if one.rollout else ""
            for name in PHASES:
                phase.add_metric([one.model, name], float(name == now))
            for outcome in sorted(ENDED):
                ended.add_metric([one.model, outcome], one.outcomes.get(outcome, 0))
        return [weight, phase, ended]


def _weights(one: Served) -> dict[str, float]:
    if one.rollout is None or (one.rollout.ended and not _is_being_promoted(one.version, one.rollout)):
        return {one.version: 100.0}
    if one.rollout.ended:
        return {one.rollout.candidate: 100.0}
    return {one.rollout.champion: 100 - one.rollout.weight, one.rollout.candidate: one.rollout.weight}


def _is_being_promoted(version: str, rollout: Rollout) -> bool:
    """Whether it has all traffic, and is not the champion yet."""
    return rollout.phase == "promoted" and version == rollout.champion
