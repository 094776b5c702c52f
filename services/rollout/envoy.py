"""Envoy's configuration for the versions that share a model's traffic: documents of its API version 3, as JSON.

On a laptop the documents are files that Envoy watches, on a cluster it asks for them (`services.rollout.app`). A
version is a cluster of Envoy. Beside each one stands a cluster that falls back on the other version when its own is not
healthy or refuses a connection: those are what weights point at, so that a candidate that dies costs no request that
had not reached it. Where versions take gRPC as well, each has two clusters more, and clients a second port.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from pydantic import Field

from contracts.document import Document

ENTITY_HEADER = "x-entity-key"
"""Requests with the same value of this header get the same version, as long as weights stay."""

DRAFT_HEADER = "x-draft-with"
"""Tells a candidate where the champion is, see `services.recommend.drafting`."""

Json = dict[str, Any]
TYPE = "type.googleapis.com/"
_ROUTES = f"{TYPE}envoy.config.route.v3.RouteConfiguration"
_CLUSTERS = f"{TYPE}envoy.config.cluster.v3.Cluster"
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_PREVIOUS = f"{TYPE}envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"
_AGGREGATE = f"{TYPE}envoy.extensions.clusters.aggregate.v3.ClusterConfig"
_RETRIES = "connect-failure,refused-stream,reset-before-request"  # a prediction may not be made twice
NAME, GRPC = "model", "grpc"
"""Names of the route configurations: of HTTP, and of gRPC."""
KINDS = ("clusters", "routes", "grpc_routes")
"""What Envoy is told; clusters come first, so that each is there before a route to it."""
_INFER = "/inference.GRPCInferenceService/ModelInfer"


# Envoy's own are 1024 connections and 3 retries at once, so that a version that dies under load would cost requests.
_LIMITS = {
    "thresholds": [dict.fromkeys(("max_connections", "max_pending_requests", "max_requests", "max_retries"), 20_000)]
}


class Address(NamedTuple):
    """Where something listens; names are looked up again and again, and each of their addresses has its own health."""

    host: str
    port: int


class Routing(Document):
    """Who gets which traffic.

    Attributes:
        versions: where each version is.  grpc: where each takes gRPC; empty: none does.
        champion: gets what nobody else does.
        candidate: gets `weight` % of predictions, or copies of all of them when it `mirrors`.
        drafts: the candidate, which has a share then, is told where the champion is, to draft lists with it.
    """

    versions: dict[str, Address]
    grpc: dict[str, Address] = Field({})
    champion: str
    candidate: str = ""
    weight: float = 0
    mirrors: bool = False
    drafts: bool = False


def cluster_name(version: str, to: str = NAME) -> str:
    """What Envoy's statistics call a version, reached over HTTP or over gRPC."""
    return f"version-{version}" if to == NAME else f"{to}-version-{version}"


def clusters(routing: Routing) -> list[Json]:
    """One cluster for each version, and one that falls back on the others; the same for gRPC where there is some."""
    plain: Json = {"explicit_http_config": {"http_protocol_options": {}}}
    made = [_version_cluster(cluster_name(one), at, at.port, plain) for one, at in sorted(routing.versions.items())]
    two: Json = {"explicit_http_config": {"http2_protocol_options": {}}}
    made += [
        _version_cluster(cluster_name(one, GRPC), at, routing.versions[one].port, two)
        for one, at in sorted(routing.grpc.items())
    ]
    for to, versions in ((NAME, sorted(routing.versions)), (GRPC, sorted(routing.grpc))):
        made += [_fallback_cluster(version, versions, to) for version in versions]
    return made


def _version_cluster(name: str, address: Address, health: int, protocol: Json) -> Json:
    """A cluster of one version; its health is asked over HTTP at the port `health`."""
    endpoint = {"address": socket(address), "health_check_config": {"port_value": health}}
    return {
        "name": name,
        "circuit_breakers": _LIMITS,
        "type": "STRICT_DNS",
        "connect_timeout": "1s",
        "ignore_health_on_host_removal": True,
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}],
        },
        "health_checks": [
            {
                "timeout": "1s",
                "interval": "1s",
                "no_traffic_interval": "1s",
                "unhealthy_threshold": 2,
                "healthy_threshold": 1,
                "http_health_check": {"path": "/readyz"},
            }
        ],
        "typed_extension_protocol_options": {
            _HTTP_OPTIONS: {
                "@type": TYPE + _HTTP_OPTIONS,
                **protocol,
                # Shorter than the servers', so that no request meets a connection that is being closed.
                "common_http_protocol_options": {"idle_timeout": "30s"},
            }
        },
    }


def _fallback_cluster(version: str, versions: Sequence[str], to: str) -> Json:
    order = [version, *(other for other in versions if other != version)]
    return {
        "name": f"{cluster_name(version, to)}-first",
        "circuit_breakers": _LIMITS,
        "connect_timeout": "1s",
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": {
            "name": "envoy.clusters.aggregate",
            "typed_config": {"@type": _AGGREGATE, "clusters": [cluster_name(one, to) for one in order]},
        },
    }


def socket(address: Address) -> Json:
    """An address as Envoy writes it; ``::`` is both families."""
    both = {"ipv4_compat": True} if address.host == "::" else {}
    return {"socket_address": {"address": address.host, "port_value": address.port, **both}}


def routes(routing: Routing) -> Json:
    """The route configuration: predictions by weight, a version that a path names, everything else to the champion."""
    named = [
        {
            "match": {"safe_regex": {"regex": f"/v2/models/[^/]+/versions/{version}(/.*)?"}},
            "route": _to(version),
        }
        for version in sorted(routing.versions)
    ]
    reading = {
        "match": {
            "prefix": "/",
            "headers": [{"name": ":method", "string_match": {"safe_regex": {"regex": "GET|HEAD"}}}],
        },
        "route": _to(routing.champion),
    }
    labels = {"match": {"path": "/feedback"}, "route": _to(routing.champion)}
    # Clients do not say whom to draft with. What a route removes is removed after what a weighted cluster adds.
    others = {} if routing.drafts else {"request_headers_to_remove": [DRAFT_HEADER]}
    return _table(NAME, [*named, reading, labels, {"match": {"prefix": "/"}, "route": _split(routing), **others}])


def grpc_routes(routing: Routing) -> Json:
    """The route configuration of gRPC: predictions by weight, everything else to the champion."""
    predictions = {"match": {"path": _INFER}, "route": _split(routing, GRPC)}
    return _table(GRPC, [predictions, {"match": {"prefix": "/"}, "route": _to(routing.champion, GRPC)}])


def resources(kind: str, routing: Routing) -> list[Json]:
    """What Envoy is told of one of `KINDS`."""
    if kind == "clusters":
        return clusters(routing)
    return [{"routes": routes, "grpc_routes": grpc_routes}[kind](routing)]


def _table(name: str, of: Sequence[Json]) -> Json:
    return {"@type": _ROUTES, "name": name, "virtual_hosts": [{"name": name, "domains": ["*"], "routes": list(of)}]}


def _to(version: str, to: str = NAME) -> Json:
    return {"cluster": f"{cluster_name(version, to)}-first", **_behaviour()}


def _split(routing: Routing, to: str = NAME) -> Json:
    """Weights in hundredths of a percent; the candidate comes first, so that who is on it stays when weights rise."""
    if not routing.candidate:
        return _to(routing.champion, to)
    if routing.mirrors:
        share = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
        copies = [{"cluster": cluster_name(routing.candidate, to), "runtime_fraction": share}]
        return {**_to(routing.champion, to), "request_mirror_policies": copies}
    part = round(routing.weight * 100)
    weights = [(routing.candidate, part), (routing.champion, 10_000 - part)]
    return {
        "weighted_clusters": {
            "clusters": [
                {"name": f"{cluster_name(one, to)}-first", "weight": weight, **_draft(routing, one)}
                for one, weight in weights
            ],
            "use_hash_policy": True,
        },
        "hash_policy": [{"header": {"header_name": ENTITY_HEADER}}],
        **_behaviour(),
    }


def _draft(routing: Routing, version: str) -> Json:
    if not routing.drafts:
        return {}
    if version != routing.candidate:
        return {"request_headers_to_remove": [DRAFT_HEADER]}
    host, port = routing.versions[routing.champion]
    header = {"key": DRAFT_HEADER, "value": f"{host}:{port}"}
    return {"request_headers_to_add": [{"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]}


def _behaviour() -> Json:
    return {
        "timeout": "0s",  # the servers have their own
        "retry_policy": {
            "retry_on": _RETRIES,
            "num_retries": 2,
            "retry_priority": {
                "name": "envoy.retry_priorities.previous_priorities",
                "typed_config": {"@type": _PREVIOUS, "update_frequency": 1},
            },
        },
    }


def discovery(kind: str, found: Sequence[Json], version: str) -> Json:
    """A discovery response, as a file or as an answer; `kind` is one of `KINDS`."""
    url = _CLUSTERS if kind == "clusters" else _ROUTES
    return {
        "version_info": version,
        "type_url": url,
        "resources": [{"@type": url, **{key: value for key, value in one.items() if key != "@type"}} for one in found],
    }
