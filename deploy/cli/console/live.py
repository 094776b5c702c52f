"""Numbers of the traffic and alerts: from Prometheus where one is named, else from the endpoints themselves."""

from __future__ import annotations

import functools
import math
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any

from contracts.errors import PlatformError
from contracts.metric_names import MODEL_INFO, REQUEST_SECONDS, REQUESTS
from deploy.cli.console.kept import SOON, Fresh
from deploy.cli.monitoring.prometheus import PrometheusApi
from services.console.documents import Alert, Live

_MONTH = "30d"
_WORK = 'route!~"/startupz|/livez|/readyz|/metrics|/v2/health/.+|<unmatched>"'
_OF_WORK = f"{REQUESTS}{{{_WORK}}}"
_FAILED = f'{REQUESTS}{{{_WORK},code=~"5.."}}'
_COST = "24 * sum by (model, currency) (model:fairlead_cost_per_hour:rate1h)"
_QUERIES = {
    "up": f"count by (model) ({MODEL_INFO})",
    "rate": f"sum by (model) (rate({_OF_WORK}[5m]))",
    "failed": f"sum by (model) (rate({_FAILED}[5m]))",
    "p99": f"histogram_quantile(0.99, sum by (model, le) (rate({REQUEST_SECONDS}_bucket{{{_WORK}}}[5m])))",
    "objective": "max by (model) (model:fairlead_objective:availability)",
    "idle_cost": "24 * sum by (model) (model:fairlead_idle_cost_per_hour:rate1h)",
    "month": f"sum by (model) (increase({_OF_WORK}[{_MONTH}]))",
    "month_failed": f"sum by (model) (increase({_FAILED}[{_MONTH}]))",
}


class Prometheus(PrometheusApi):
    """What the console asks of Prometheus, kept for a moment."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.numbers = Fresh(self._numbers)
        self.alerts = Fresh(self._alerts)

    def _numbers(self) -> dict[str, Live] | None:
        """Of every model; None where Prometheus does not answer."""
        try:
            with ThreadPoolExecutor(len(_QUERIES)) as pool:
                costs = pool.submit(self.vector, _COST)
                found = dict(zip(_QUERIES, pool.map(self.by_model, _QUERIES.values()), strict=True))
                cost = {labels.get("model"): (value, labels.get("currency", "")) for labels, value in costs.result()}
        except PlatformError:
            return None
        names = set(found["up"]) | set(found["rate"]) | set(found["month"])
        return {
            name: _live({key: values.get(name) for key, values in found.items()}, *cost.get(name, (None, "")))
            for name in names
        }

    def _alerts(self) -> list[Alert]:
        order = {"firing": 0, "pending": 1}
        found = [_alert(one) for one in self.ask("alerts").get("alerts", [])]
        return sorted(found, key=lambda one: (order.get(one.state, 2), one.name, one.model))


def _live(values: Mapping[str, float | None], cost: float | None, currency: str) -> Live:
    rate, objective, month = values["rate"], values["objective"], values["month"]
    left = None
    if objective is not None and objective < 1 and month:
        left = 1 - (values["month_failed"] or 0.0) / month / (1 - objective)
    return Live(
        up=bool(values["up"]),
        requests_per_second=rate,
        errors=(values["failed"] or 0.0) / rate if rate else None,
        p99_seconds=values["p99"],
        objective=objective,
        budget_left=left,
        cost_per_day=cost,
        currency=currency,
        idle_cost_per_day=values["idle_cost"],
    )


def _alert(given: Mapping[str, Any]) -> Alert:
    labels, notes = given.get("labels") or {}, given.get("annotations") or {}
    runbook = str(notes.get("runbook_url", ""))
    return Alert(
        name=str(labels.get("alertname", "")),
        state=str(given.get("state", "")),
        severity=str(labels.get("severity", "")),
        model=str(labels.get("model", "")),
        summary=str(notes.get("summary", "")),
        description=str(notes.get("description", "")),
        since=str(given.get("activeAt", ""))[:19] + "Z" if given.get("activeAt") else "",
        runbook=runbook if runbook.startswith(("http://", "https://")) else "",
    )


class Scraped:
    """Numbers of endpoints by their own metrics, each address asked once."""

    def __init__(self, key: Callable[[str], str]) -> None:
        self._key = key  # of a model
        self._lock = threading.Lock()
        self._known: dict[str, Fresh[dict[str, Live]]] = {}

    def of(self, addresses: Mapping[str, str]) -> dict[str, Live]:
        """By model, for `addresses` by model; a model whose address does not know it is down."""
        urls = {url: model for model, url in addresses.items()}
        with self._lock:
            for url, model in urls.items():
                self._known.setdefault(url, Fresh(functools.partial(self._scrape, url, self._key(model))))
            known = {url: self._known[url] for url in urls}
        for one in known.values():
            one.begin()
        until = monotonic() + SOON
        found = {url: one.get(until) for url, one in known.items()}
        return {model: found[url].get(model, Live(up=False)) for model, url in addresses.items()}

    def _scrape(self, url: str, key: str) -> dict[str, Live]:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            with urllib.request.urlopen(
                urllib.request.Request(f"{url}/metrics", headers=headers), timeout=1.0
            ) as answer:
                text = answer.read(8 << 20).decode(errors="replace")
        except (OSError, ValueError):
            return {}
        return totals(text)


def totals(text: str) -> dict[str, Live]:
    """Numbers of each model that a text of metrics is about, since its start."""
    from prometheus_client.parser import text_string_to_metric_families

    requests: dict[str, float] = {}
    failed: dict[str, float] = {}
    buckets: dict[str, dict[float, float]] = {}
    up = set()
    try:
        families = list(text_string_to_metric_families(text))
    except ValueError:
        return {}
    for sample in (one for family in families for one in family.samples):
        model, route = sample.labels.get("model", ""), sample.labels.get("route", "")
        if sample.name == MODEL_INFO:
            up.add(model)
        elif not route.startswith(("/predict", "/v2/models")):
            continue
        elif sample.name == REQUESTS:
            requests[model] = requests.get(model, 0.0) + sample.value
            failed[model] = failed.get(model, 0.0) + sample.value * sample.labels.get("code", "").startswith("5")
        elif sample.name == f"{REQUEST_SECONDS}_bucket":
            edges = buckets.setdefault(model, {})
            edge = float(sample.labels["le"])
            edges[edge] = edges.get(edge, 0.0) + sample.value
    return {
        model: Live(
            up=True,
            since_start=True,
            requests=requests.get(model, 0.0),
            errors=failed[model] / requests[model] if requests.get(model) else None,
            p99_seconds=quantile(0.99, buckets.get(model, {}).items()),
        )
        for model in up
    }


def quantile(share: float, buckets: Iterable[tuple[float, float]]) -> float | None:
    """A quantile of a histogram as Prometheus has it, linear within a bucket; None without observations."""
    ordered = sorted(buckets)
    if not ordered or not ordered[-1][1]:
        return None
    wanted, low, below = share * ordered[-1][1], 0.0, 0.0
    for edge, count in ordered:
        if count >= wanted:
            return low if math.isinf(edge) else low + (edge - low) * (wanted - below) / max(count - below, 1e-12)
        low, below = edge, count
    return low
