"""Envoy's configuration for the versions that share a model's traffic: documents of its API version 3, as JSON.

On a laptop the documents are files that Envoy watches, on a cluster it asks for them (`services.rollout.app`). A
version is a cluster of Envoy. Beside each one stands a cluster that falls back on the other version when its own is not
healthy or refuses a connection: those are what weights point at, so that a candidate that dies costs no request that
had not reached it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from contracts.document import Document

ENTITY_HEADER = "x-entity-key"
"""Requests with the same value of this header get the same version, as long as weights stay."""

Json = dict[str, Any]
_TYPE = "type.googleapis.com/"
_ROUTES = f"{_TYPE}envoy.config.route.v3.RouteConfiguration"
_CLUSTERS = f"{_TYPE}envoy.config.cluster.v3.Cluster"
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_MANAGER = f"{_TYPE}envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = f"{_TYPE}envoy.extensions.filters.http.router.v3.Router"
_PREVIOUS = f"{_TYPE}envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"
_AGGREGATE = f"{_TYPE}envoy.extensions.clusters.aggregate.v3.ClusterConfig"
_CONNECTIONS = "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
_MOST_CONNECTIONS = 20_000
_RETRIES = "connect-failure,refused-stream,reset-before-request"  # a prediction may not be made twice
_NAME = "model"


class Address(NamedTuple):
    """Where something listens; names are looked up again and again, and each of their addresses has its own health."""

    host: str
    port: int


class Routing(Document):
    """Who gets which traffic.

    Attributes:
        versions: where each version is.  champion: gets what nobody else does.
        candidate: gets `weight` % of predictions, or copies of all of them when it `mirrors`.
    """

    versions: dict[str, Address]
    champion: str
    candidate: str = ""
    weight: float = 0
    mirrors: bool = False


def cluster_name(version: str) -> str:
    """What Envoy's statistics call a version."""
    return f"version-{version}"


def clusters(routing: Routing) -> list[Json]:
    """One cluster for each version, and one that falls back on the others."""
    made = [_version_cluster(version, address) for version, address in sorted(routing.versions.items())]
    return made + [_fallback_cluster(version, sorted(routing.versions)) for version in sorted(routing.versions)]


def _version_cluster(version: str, address: Address) -> Json:
    return {
        "name": cluster_name(version),
        "type": "STRICT_DNS",
        "connect_timeout": "1s",
        "ignore_health_on_host_removal": True,
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "load_assignment": {
            "cluster_name": cluster_name(version),
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _socket(address)}}]}],
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
                "@type": _TYPE + _HTTP_OPTIONS,
                "explicit_http_config": {"http_protocol_options": {}},
                # Shorter than the servers', so that no request meets a connection that is being closed.
                "common_http_protocol_options": {"idle_timeout": "30s"},
            }
        },
    }


def _fallback_cluster(version: str, versions: Sequence[str]) -> Json:
    order = [version, *(other for other in versions if other != version)]
    return {
        "name": f"{cluster_name(version)}-first",
        "connect_timeout": "1s",
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": {
            "name": "envoy.clusters.aggregate",
            "typed_config": {"@type": _AGGREGATE, "clusters": [cluster_name(one) for one in order]},
        },
    }


def _socket(address: Address) -> Json:
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
    hosts = [
        {
            "name": _NAME,
            "domains": ["*"],
            "routes": [*named, reading, labels, {"match": {"prefix": "/"}, "route": _split(routing)}],
        }
    ]
    return {"@type": _ROUTES, "name": _NAME, "virtual_hosts": hosts}


def _to(version: str) -> Json:
    return {"cluster": f"{cluster_name(version)}-first", **_behaviour()}


def _split(routing: Routing) -> Json:
    """Weights in hundredths of a percent; the candidate comes first, so that who is on it stays when weights rise."""
    if not routing.candidate:
        return _to(routing.champion)
    if routing.mirrors:
        share = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
        copies = [{"cluster": cluster_name(routing.candidate), "runtime_fraction": share}]
        return {**_to(routing.champion), "request_mirror_policies": copies}
    part = round(routing.weight * 100)
    weights = [(routing.candidate, part), (routing.champion, 10_000 - part)]
    return {
        "weighted_clusters": {
            "clusters": [{"name": f"{cluster_name(version)}-first", "weight": weight} for version, weight in weights],
            "use_hash_policy": True,
        },
        "hash_policy": [{"header": {"header_name": ENTITY_HEADER}}],
        **_behaviour(),
    }


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


def discovery(kind: str, resources: Sequence[Json], version: str) -> Json:
    """A discovery response, as a file or as an answer; `kind` is routes or clusters."""
    url = {"routes": _ROUTES, "clusters": _CLUSTERS}[kind]
    return {
        "version_info": version,
        "type_url": url,
        "resources": [
            {"@type": url, **{key: value for key, value in one.items() if key != "@type"}} for one in resources
        ],
    }


def bootstrap(listen: Sequence[Address], admin: Address, source: Mapping[str, Any]) -> Json:
    """What Envoy starts with.

    Args:
        listen: the addresses that clients ask.
        admin: where its statistics are, on this machine only.
        source: by routes and clusters, where their configuration comes from, see `file_source` and `rest_source`.
    """
    first, *others = [_socket(address) for address in listen]
    return {
        "node": {"id": "router", "cluster": _NAME},
        "admin": {"address": _socket(admin)},
        "dynamic_resources": {"cds_config": source["clusters"]},
        "static_resources": {
            "listeners": [
                {
                    "name": _NAME,
                    "address": first,
                    "additional_addresses": [{"address": other} for other in others],
                    "filter_chains": [{"filters": [_connection_manager(source["routes"])]}],
                }
            ],
            "clusters": list(source.get("static", ())),
        },
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": _TYPE + _CONNECTIONS,
                        "max_active_downstream_connections": _MOST_CONNECTIONS,
                    },
                }
            ]
        },
    }


def _connection_manager(routes_source: Json) -> Json:
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": _MANAGER,
            "stat_prefix": _NAME,
            "rds": {"route_config_name": _NAME, "config_source": routes_source},
            "http_filters": [
                {
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": _ROUTER, "suppress_envoy_headers": True},
                }
            ],
            "use_remote_address": True,
            "generate_request_id": False,
            "preserve_external_request_id": True,
            "server_header_transformation": "PASS_THROUGH",
            "delayed_close_timeout": "1s",
        },
    }


def file_source(folder: str) -> Mapping[str, Any]:
    """Configuration from ``routes.json`` and ``clusters.json`` of a folder, read again whenever one is replaced."""

    def watched(kind: str) -> Json:
        path = {"path": f"{folder}/{kind}.json", "watched_directory": {"path": folder}}
        return {"resource_api_version": "V3", "path_config_source": path}

    return {kind: watched(kind) for kind in ("routes", "clusters")}


def rest_source(server: Address, refresh: str = "1s") -> Mapping[str, Any]:
    """Configuration that Envoy asks a server for, each second."""
    asked = {
        "resource_api_version": "V3",
        "api_config_source": {
            "api_type": "REST",
            "transport_api_version": "V3",
            "cluster_names": ["xds"],
            "refresh_delay": refresh,
        },
    }
    cluster = {
        "name": "xds",
        "type": "STRICT_DNS",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": "xds",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _socket(server)}}]}],
        },
    }
    return {"routes": asked, "clusters": asked, "static": [cluster]}
