"""What Envoy starts with: where clients ask, where its statistics are, and who tells it the rest.

``python -m services.rollout.bootstrap --keeper NAME:PORT --to FILE`` writes it for a pod, whose statistics are read
from other pods.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from contracts import storage
from services.rollout.envoy import GRPC, KINDS, NAME, TYPE, Address, Json, socket

LISTENS, TELLS, ADMIN = 3000, 9902, 9901
"""Ports of a pod: for clients; for statistics, readiness and the drain; for Envoy's own administration."""
DRAIN_SECONDS = 10

_MANAGER = f"{TYPE}envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = f"{TYPE}envoy.extensions.filters.http.router.v3.Router"
_FAULT = f"{TYPE}envoy.extensions.filters.http.fault.v3.HTTPFault"
_LUA = f"{TYPE}envoy.extensions.filters.http.lua.v3.Lua"
_CONNECTIONS = "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
_MOST_CONNECTIONS = 20_000
# A pod's hook can only GET, and Envoy takes the order to drain by POST only.
_DRAIN = """
function envoy_on_request(handle)
  if handle:headers():get(":path") == "/drain" then
    local path = "/drain_listeners?graceful&skip_exit&inboundonly"
    handle:httpCall("admin", {[":method"] = "POST", [":path"] = path, [":authority"] = "admin"}, "", 2000)
  end
end
"""


def bootstrap(
    listen: Sequence[Address],
    admin: Address,
    source: Mapping[str, Any],
    tells: Address | None = None,
    grpc: Address | None = None,
) -> Json:
    """What Envoy starts with.

    Args:
        listen: the addresses that clients ask.
        admin: where its administration is, on this machine or in this pod only.
        source: by kind, where configuration comes from, see `file_source` and `rest_source`.
        tells: where others read its statistics (``/stats/prometheus``), ask whether it is there (``/ready``), and let
            it drain (``/drain``, answered when it has).
        grpc: where clients of gRPC ask; None: nowhere.
    """
    clients = [_asked(NAME, listen, source["routes"])]
    clients += [_asked(GRPC, [grpc], source["grpc_routes"])] if grpc else []
    return {
        "node": {"id": "router", "cluster": NAME},
        "admin": {"address": socket(admin)},
        "dynamic_resources": {"cds_config": source["clusters"]},
        "static_resources": {
            "listeners": [*clients, *([_telling(tells)] if tells else [])],
            "clusters": [*source.get("static", ()), *([_cluster("admin", admin)] if tells else [])],
        },
        "overload_manager": {"resource_monitors": [_connections()]},
    }


_CLIENTS: Json = {
    "use_remote_address": True,
    "generate_request_id": False,
    "preserve_external_request_id": True,
    "server_header_transformation": "PASS_THROUGH",
    "delayed_close_timeout": "1s",
    "upgrade_configs": [{"upgrade_type": "websocket"}],  # streams of frames
}


def _asked(name: str, listen: Sequence[Address], source: Json) -> Json:
    """The listener that clients ask, with the route configuration `name`."""
    first, *others = [socket(address) for address in listen]
    routes = {"rds": {"route_config_name": name, "config_source": source}}
    return {
        "name": name,
        "address": first,
        "additional_addresses": [{"address": other} for other in others],
        "traffic_direction": "INBOUND",
        "filter_chains": [{"filters": [_manager(name, routes, **_CLIENTS)]}],
    }


def _manager(name: str, routes: Json, filters: Sequence[Json] = (), **more: Any) -> Json:
    last = {"name": "envoy.filters.http.router", "typed_config": {"@type": _ROUTER, "suppress_envoy_headers": True}}
    told = {"@type": _MANAGER, "stat_prefix": name, **routes, "http_filters": [*filters, last], **more}
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": told}


def _connections() -> Json:
    most = {"@type": TYPE + _CONNECTIONS, "max_active_downstream_connections": _MOST_CONNECTIONS}
    return {"name": "envoy.resource_monitors.global_downstream_max_connections", "typed_config": most}


def _telling(address: Address) -> Json:
    """The listener for the keeper and the kubelet; of Envoy's administration it opens what reads, and the drain."""
    fault = {"@type": _FAULT, "delay": {"fixed_delay": f"{DRAIN_SECONDS}s", "percentage": {"numerator": 100}}}
    off = {"@type": _FAULT}
    lua = {"@type": _LUA, "default_source_code": {"inline_string": _DRAIN}}
    routes = [
        {
            "match": {"path": path},
            "route": {"cluster": "admin"},
            "typed_per_filter_config": {"envoy.filters.http.fault": off},
        }
        for path in ("/ready", "/stats/prometheus")
    ]
    routes.append({"match": {"path": "/drain"}, "direct_response": {"status": 200}})
    filters = [
        {"name": "envoy.filters.http.lua", "typed_config": lua},
        {"name": "envoy.filters.http.fault", "typed_config": fault},
    ]
    hosts = [{"name": "told", "domains": ["*"], "routes": routes}]
    manager = _manager("told", {"route_config": {"virtual_hosts": hosts}}, filters)
    return {"name": "told", "address": socket(address), "filter_chains": [{"filters": [manager]}]}


def _cluster(name: str, address: Address) -> Json:
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": socket(address)}}]}]
    return {
        "name": name,
        "type": "STRICT_DNS",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
    }


def file_source(folder: str) -> Mapping[str, Any]:
    """Configuration from ``KIND.json`` of a folder, read again whenever one is replaced."""

    def watched(kind: str) -> Json:
        path = {"path": f"{folder}/{kind}.json", "watched_directory": {"path": folder}}
        return {"resource_api_version": "V3", "path_config_source": path}

    return {kind: watched(kind) for kind in KINDS}


def rest_source(server: Address, refresh: str = "1s") -> Mapping[str, Any]:
    """Configuration that Envoy asks a server for, each second; it opens its port once it has got one."""
    asked = {
        "resource_api_version": "V3",
        "initial_fetch_timeout": "0s",
        "api_config_source": {
            "api_type": "REST",
            "transport_api_version": "V3",
            "cluster_names": ["xds"],
            "refresh_delay": refresh,
            "request_timeout": "5s",
        },
    }
    return {**dict.fromkeys(KINDS, asked), "static": [_cluster("xds", server)]}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the document of a pod's router; returns the exit status."""
    parser = argparse.ArgumentParser(prog="services.rollout.bootstrap", description=__doc__)
    parser.add_argument("--keeper", required=True, help="NAME:PORT of who tells it its routes")
    parser.add_argument("--host", default="0.0.0.0", help="address that it listens on")
    parser.add_argument("--grpc-port", type=int, default=0, help="port that clients of gRPC ask; 0: none")
    parser.add_argument("--to", required=True, type=Path, help="file that it is written to")
    options = parser.parse_args(arguments)
    host, _, port = options.keeper.rpartition(":")
    source = rest_source(Address(host, int(port)))
    admin, tells = Address("127.0.0.1", ADMIN), Address(options.host, TELLS)
    grpc = Address(options.host, options.grpc_port) if options.grpc_port else None
    document = bootstrap([Address(options.host, LISTENS)], admin, source, tells, grpc)
    storage.write_bytes(str(options.to), json.dumps(document).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
