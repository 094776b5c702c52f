"""The router's runtime: its backends, who may spend how much, what was used, and the metrics of all that."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from prometheus_client import Gauge

from contracts import metric_names as names
from contracts.bundle import Bundle
from contracts.errors import PlatformError
from services.budgets import MILLION, Budgets, Reserved
from services.ledger import KEPT_DAYS, Ledger, MemoryLedger, RedisLedger, day
from services.logs import log_event
from services.metrics.series import Counter, Histogram
from services.metrics.service_metrics import ServiceMetrics
from services.router.backends import Circuit, Servers
from services.router.policy import Cache
from services.router.settings import RouterSettings
from services.server.auth import KeyRing
from services.server.lifecycle import Modality, Runtime

if TYPE_CHECKING:
    import aiohttp

    from services.router.passage import Passage

_DAY, _PREFIX = 86_400, "fairlead:router"


class Counts:
    """Metrics of requests by route, backend and key; all three are names of settings and of the file of keys."""

    def __init__(self, metrics: ServiceMetrics) -> None:
        registry = metrics.registry

        def counter(name: str, text: str) -> Counter:
            return Counter(name, text, names.ROUTER_LABELS[name], registry)

        self.requests = counter(names.ROUTER_REQUESTS, "Requests by how they ended.")
        self.failures = counter(names.ROUTER_FAILURES, "Tries at a backend that gave no answer.")
        self.tokens = counter(names.ROUTER_TOKENS, "Tokens by key, read or written.")
        self.cost = counter(names.ROUTER_COST, "What tokens cost, in the currency of the prices.")
        self.cached = counter(names.ROUTER_CACHE, "Requests to routes with a cache, by whether it had the answer.")
        self.denied = counter(names.ROUTER_DENIED, "Requests that were not sent, by why.")
        self._first = Histogram(
            names.ROUTER_FIRST_TOKEN_SECONDS,
            "Time from request to the first token of a stream.",
            names.ROUTER_LABELS[names.ROUTER_FIRST_TOKEN_SECONDS],
            names.TOKEN_SECONDS_BUCKETS,
            registry,
        )
        labels = names.ROUTER_LABELS[names.ROUTER_CIRCUIT]
        self.circuit = Gauge(names.ROUTER_CIRCUIT, "1 while a backend is left alone.", labels, registry=registry)

    def failed(self, route: str, backend: str) -> None:
        """A backend gave no answer, or not all of it."""
        self.failures.labels(route, backend).inc()

    def first(self, route: str, backend: str, seconds: float) -> None:
        """A stream has begun."""
        self._first.labels(route, backend).observe(seconds)


class RouterRuntime(Runtime):
    """One router."""

    def __init__(self, settings: RouterSettings) -> None:
        super().__init__(Modality(name="router", runtime=lambda _: self, apis=()))
        self.settings: RouterSettings = settings  # type: ignore[assignment]
        self.name, self.metrics = "router", ServiceMetrics("router", "")
        self.counts = Counts(self.metrics)
        self.servers = Servers(settings, self.metrics)
        for name, server in self.servers.by_name.items():
            self.counts.circuit.labels(name).set_function(partial(_opened, server.circuit))
        self.cache = Cache(settings.cache_bytes)
        self.ledger: Ledger = RedisLedger(settings.redis, _PREFIX) if settings.redis else MemoryLedger()
        self.budgets = Budgets(settings.budget, self.ledger, self.denied)
        self.keys = KeyRing(settings.keys_file) if settings.keys_file else None
        self.metrics.inflight.set_function(lambda: self.inflight)
        self._writing: set[asyncio.Task[None]] = set()
        self.session: aiohttp.ClientSession

    async def begin(self) -> None:
        """Open the connections' pool, in the loop that uses it."""
        import aiohttp

        connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=30, keepalive_timeout=50)
        self.session = aiohttp.ClientSession(connector=connector, auto_decompress=True, read_bufsize=1 << 18)
        self.state, self.started = "ready", True
        log_event("ready", routes=len(self.settings.routes), backends=len(self.settings.backends))

    async def open(self, bundle: Bundle) -> Mapping[str, Any]:
        """A router has no bundle, and is opened by `begin`."""
        raise PlatformError(
            "the router serves no bundle", fix="start it with python -m services.router", code="no_bundle"
        )

    async def close(self) -> None:
        """Write what was used, and leave."""
        await asyncio.gather(*self._writing)
        await self.session.close()

    async def charge(self, passage: Passage, tokens: int) -> None:
        """Reserve about so many tokens of what the key may use.

        Raises:
            Problem: 429, with the time after which there is more.
        """
        passage.reserved = await self.budgets.reserve(passage.caller, tokens)

    def denied(self, reason: str) -> None:
        """Count a request that was not sent."""
        self.counts.denied.labels(reason).inc()

    def settle(self, passage: Passage, outcome: str, kept: list[bytes]) -> None:
        """Count what a request has used, and keep its answer where that is asked for."""
        server, target = passage.server, passage.target
        backend = server.name if server is not None else ""
        self.counts.requests.labels(passage.name, backend, outcome).inc()
        read, cached = int(passage.usage.get("prompt_tokens") or 0), _cached(passage.usage)
        written = int(passage.usage.get("completion_tokens") or 0) or (0 if passage.usage else passage.pieces)
        cost = 0.0
        if target is not None:
            prices = target.prices
            of_cached = prices.prompt if prices.cached is None else prices.cached
            cost = ((read - cached) * prices.prompt + cached * of_cached + written * prices.answer) / MILLION
        self.counts.tokens.labels(passage.caller, passage.name, backend, "read").inc(read)
        self.counts.tokens.labels(passage.caller, passage.name, backend, "written").inc(written)
        self.counts.cost.labels(passage.caller, passage.name, backend).inc(cost)
        if outcome == "ok" and passage.cache_key is not None:
            media = "text/event-stream" if passage.document.get("stream") else "application/json"
            self.cache.put(passage.cache_key, b"".join(kept), media, passage.route.cache_seconds)
        used = {"requests": 1, "prompt_tokens": read, "cached_tokens": cached, "answer_tokens": written}
        used["cost"] = round(cost * MILLION)
        self._write(self._settled(passage.caller, passage.name, used, passage.reserved))

    async def usage(self, when: str, callers: set[str] | None) -> dict[str, Any]:
        """What was used on a day by these keys (None: all): numbers by key and route, cost in the prices' currency."""
        found: dict[str, Any] = {}
        for part, value in sorted((await self.ledger.read(f"usage:{when}")).items()):
            caller, route, what = part.split("|")
            if callers is None or caller in callers:
                own = found.setdefault(caller, {}).setdefault(route, {})
                own[what] = value / MILLION if what == "cost" else value
        return found

    def again(self, caller: str, name: str) -> None:
        """Count an answer of the cache."""
        self.counts.requests.labels(name, "", "cached").inc()
        self._write(self._settled(caller, name, {"requests": 1, "from_cache": 1}, None))

    async def _settled(self, caller: str, route: str, used: Mapping[str, int], reserved: Reserved | None) -> None:
        today = day()
        await self.ledger.add(
            f"usage:{today}", {f"{caller}|{route}|{what}": n for what, n in used.items()}, KEPT_DAYS * _DAY
        )
        if reserved is not None:
            tokens = used.get("prompt_tokens", 0) + used.get("answer_tokens", 0)
            await self.budgets.settle(reserved, tokens, used.get("cost", 0))

    def _write(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)


def _opened(circuit: Circuit) -> float:
    return float(circuit.open)


def _cached(usage: Mapping[str, Any]) -> int:
    return int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)
