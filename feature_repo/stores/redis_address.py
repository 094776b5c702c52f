"""Addresses of online stores in Redis, and the client of an address.

``redis://[user:password@]host:port/db?option=value`` or ``rediss://`` for TLS. Options:

    cluster=true     a Redis cluster; the host is any of its nodes
    sentinel=NAME    a primary with replicas, watched by sentinels; the hosts are theirs: ``host:26379,other:26379``
    sentinel_auth=true            sentinels take the same user and password
    deadline=0.25    seconds that the server may be silent while a read waits for it, connecting included
    on_failure=default | refuse   what the reader does when reading fails: flagged defaults, or an error
    layout=packed | feast         feast reads what Feast's own Redis store wrote
    ssl_ca_certs, ssl_certfile, ssl_keyfile, ssl_cert_reqs, ssl_check_hostname   as in redis-py

The password may come from ``FAIRLEAD_REDIS_PASSWORD`` instead.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from contracts.errors import PlatformError

_SSL = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"})


@dataclass(frozen=True, kw_only=True)
class RedisAddress:
    """A parsed address; `url` is what redis-py gets."""

    url: str
    cluster: bool = False
    sentinel: str = ""
    sentinel_auth: bool = False
    deadline: float = 0.25
    on_failure: str = "default"
    layout: str = "packed"
    ssl: tuple[tuple[str, str], ...] = ()

    @property
    def hosts(self) -> list[tuple[str, int]]:
        """Where connections begin; ports are Redis' own, or those of sentinels, where none is given."""
        listed = urlsplit(self.url).netloc.rpartition("@")[2]
        parts = [urlsplit(f"//{host}") for host in listed.split(",")]
        return [(part.hostname or "localhost", part.port or (26379 if self.sentinel else 6379)) for part in parts]

    @property
    def place(self) -> str:
        """For people, without the password."""
        where = ", ".join(f"{host}:{port}" for host, port in self.hosts)
        return f"{where} (primary {self.sentinel})" if self.sentinel else where


def parse_address(address: str) -> RedisAddress:
    """Check an address.

    Raises:
        PlatformError: an option is unknown, or its value is not accepted.
    """
    parts = urlsplit(address)
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    checks: dict[str, Callable[[str], Any]] = {
        "cluster": {"true": True, "false": False}.__getitem__,
        "sentinel": _name,
        "sentinel_auth": {"true": True, "false": False}.__getitem__,
        "deadline": _positive,
        "on_failure": {"default": "default", "refuse": "refuse"}.__getitem__,
        "layout": {"packed": "packed", "feast": "feast"}.__getitem__,
    }
    options: dict[str, Any] = {}
    for name, value in given.items():
        if name in _SSL:
            continue
        try:
            options[name] = checks[name](value)
        except (KeyError, ValueError):
            raise PlatformError(
                f"option {name}={value} of the online store's address is not accepted",
                detail=f"options: {', '.join([*checks, *sorted(_SSL)])}",
                fix="see the head of feature_repo/stores/redis_address.py for what each accepts",
                code="bad_settings",
                key=name,
            ) from None
    if options.get("cluster") and options.get("sentinel"):
        raise PlatformError(
            "the online store's address names a cluster and sentinels",
            detail="a cluster watches its nodes itself",
            fix="leave one of the options cluster and sentinel out",
            code="bad_settings",
            key="sentinel",
        )
    url = parts._replace(query="").geturl()
    return RedisAddress(url=url, ssl=tuple((k, v) for k, v in given.items() if k in _SSL), **options)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 3600:
        raise ValueError(text)
    return value


def _name(text: str) -> str:
    if not text:
        raise ValueError(text)
    return text


def connect(address: RedisAddress, writing: bool) -> Any:
    """A client whose reads end within the deadline; a connection that went stale is replaced once, at once."""
    from redis import Redis, RedisCluster
    from redis.backoff import NoBackoff
    from redis.exceptions import ConnectionError as Lost
    from redis.retry import Retry
    from redis.sentinel import Sentinel

    limit, parts = 30.0 if writing else address.deadline, urlsplit(address.url)
    given: dict[str, Any] = {"socket_timeout": limit, "socket_connect_timeout": min(limit, 5.0), **dict(address.ssl)}
    if "ssl_check_hostname" in given:
        given["ssl_check_hostname"] = given["ssl_check_hostname"] == "true"
    given["protocol"] = 2  # one format of answers, whatever the server's age
    own: dict[str, Any] = {}
    if (password := os.environ.get("FAIRLEAD_REDIS_PASSWORD")) and not parts.password:
        own["password"] = password
    once = Retry(NoBackoff(), 1, supported_errors=(Lost,))
    if address.cluster:  # by itself it would wait for seconds between attempts
        return RedisCluster.from_url(address.url, retry=Retry(NoBackoff(), 2), **given, **own)
    if not address.sentinel:
        return Redis.from_url(address.url, retry=once, **given, **own)
    if parts.scheme == "rediss":
        given["ssl"] = True
    own |= {name: unquote(value) for name in ("username", "password") if (value := getattr(parts, name))}
    sentinel: Any = Sentinel  # which has no types
    keepers = sentinel(address.hosts, sentinel_kwargs={**given, **(own if address.sentinel_auth else {})})
    database = int(parts.path.strip("/") or 0)
    return keepers.master_for(address.sentinel, retry=once, db=database, **given, **own)
