"""What Envoy counts of the versions behind it."""

from __future__ import annotations

from services.rollout import envoy
from services.rollout.observation import samples

STATISTICS = "/stats/prometheus?filter=^cluster.(grpc-|)version-[^.]*.(membership_healthy|upstream_cx_)"
"""Path below the address where Envoy serves its statistics."""

_HEALTHY = "envoy_cluster_membership_healthy"
# Requests that a version did not answer: its port was closed, or it ended while it worked on them.
_CONNECTIONS = "envoy_cluster_upstream_cx_"
_UNREACHED = frozenset({f"{_CONNECTIONS}connect_fail", f"{_CONNECTIONS}destroy_remote_with_active_rq"})


def routed(text: str) -> dict[str, tuple[bool, float]]:
    """By version, whether Envoy takes it for healthy, over gRPC too, and how many requests did not reach it."""
    healthy: dict[str, bool] = {}
    unreached: dict[str, float] = {}
    for name, labels, value in samples(text):
        cluster = labels.get("envoy_cluster_name", "").removeprefix(f"{envoy.GRPC}-")
        version = cluster.removeprefix(envoy.cluster_name(""))
        if name == _HEALTHY:
            healthy[version] = value > 0 and healthy.get(version, True)
        elif name in _UNREACHED:
            unreached[version] = unreached.get(version, 0) + value
    return {version: (good, unreached.get(version, 0)) for version, good in healthy.items()}
