"""What a rollout's keeper serves: its configuration to Envoy over REST xDS, and its metrics to Prometheus."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from contracts import metric_names as names
from services.metrics.exposition import expose
from services.rollout import envoy
from services.rollout.envoy import Routing
from services.rollout.state import ENDED, PHASES, Rollout
from services.rollout.store import Served


def keeper_app(routing: Callable[[], Routing], served: Callable[[], Iterable[Served]]) -> Starlette:
    """``/v3/discovery:routes``, ``/v3/discovery:clusters`` and ``/metrics``."""

    def discovery(kind: str) -> Callable[[Request], Any]:
        async def answer(request: Request) -> Response:
            now = routing()
            resources = envoy.clusters(now) if kind == "clusters" else [envoy.routes(now)]
            version = hashlib.sha256(json.dumps(resources).encode()).hexdigest()[:16]
            if (await request.json()).get("version_info") == version:
                return Response(status_code=304)
            return JSONResponse(envoy.discovery(kind, resources, version))

        return answer

    async def metrics(request: Request) -> Response:
        registry = CollectorRegistry()
        registry.register(_Rollouts(list(served())))
        body, media = expose(registry, request.headers.get("accept", ""))
        return Response(body, headers={"content-type": media})

    asked = [Route(f"/v3/discovery:{kind}", discovery(kind), methods=["POST"]) for kind in ("routes", "clusters")]
    return Starlette(routes=[*asked, Route("/metrics", metrics)])


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
