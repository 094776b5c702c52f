"""What served models cost: by the day and by 1,000 requests, at the prices of the profile."""

from __future__ import annotations

import math
import re
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from contracts import metric_names as names
from contracts.errors import PlatformError
from deploy.cli.monitoring.prometheus import PrometheusApi
from deploy.cli.profiles.loading import load_profile
from deploy.cli.terminal.output import emit, table
from pipelines.cost import Held, priced_hours

if TYPE_CHECKING:
    from rich.console import Console

    from pipelines.cost import Prices

_HOUR, _GIB, _DAY = 3600.0, 2.0**30, 86_400.0
_NO_WORK = "/startupz|/livez|/readyz|/metrics|/v2/health/.+|<unmatched>"
_HELD = (names.CORE_SECONDS, names.MEMORY_SECONDS, names.GPU_SECONDS)
Sums = Mapping[tuple[str, str], float]


@dataclass(frozen=True, kw_only=True)
class ServedCost(Held):
    """What one model held for `days`, and what that costs.

    Attributes:
        per_day: money of a day.  per_1000_requests: None where nobody asked.
    """

    model: str
    days: float
    requests: float
    per_day: float | None
    per_1000_requests: float | None
    currency: str | None


def served_cost(model: str, days: float, sums: Sums, prices: Prices | None) -> ServedCost:
    """The cost of a model by its counters: (metric, state) -> what it grew by in `days`; requests have no state."""
    used, idle = (sums.get((names.CORE_SECONDS, state), 0.0) / _HOUR for state in ("used", "idle"))
    full, empty = (sums.get((names.MEMORY_SECONDS, state), 0.0) / _HOUR / _GIB for state in ("used", "idle"))
    gpus = sums.get((names.GPU_SECONDS, ""), 0.0) / _HOUR
    held = priced_hours((used + idle, full + empty, gpus), (idle, empty), prices)
    money = held["money"]
    requests = sums.get((names.REQUESTS, ""), 0.0)
    return ServedCost(
        model=model,
        days=days,
        requests=requests,
        **held,
        per_day=None if money is None or not days else money / days,
        per_1000_requests=None if money is None or not requests else 1000 * money / requests,
        currency=prices.currency if prices else None,
    )


def of_endpoint(address: str, prices: Prices | None, key: str = "") -> list[ServedCost]:
    """The cost of what an endpoint serves, since it started, by its own metrics.

    Raises:
        PlatformError: ``code="no_answer"``: it gives no metrics, or none of what it holds.
    """
    from prometheus_client.parser import text_string_to_metric_families

    url = address.rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise PlatformError(
            f"not an address: {address!r}", fix="name it with its scheme: http://127.0.0.1:3000", code="bad_input"
        )
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{url}/metrics", headers=headers), timeout=5.0) as answer:
            text = answer.read(32 << 20).decode(errors="replace")
        samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
    except (OSError, ValueError) as err:
        raise PlatformError(
            f"the endpoint gives no metrics: {url}/metrics",
            detail=str(err),
            fix="correct the address, start it with fairlead serve MODEL, or set FAIRLEAD_API_KEY where it wants a key",
            code="no_answer",
        ) from err
    sums: dict[str, dict[tuple[str, str], float]] = defaultdict(lambda: defaultdict(float))
    started = math.nan
    for one in samples:
        if one.name == "process_start_time_seconds":
            started = one.value
        elif one.name in _HELD:
            sums[one.labels["model"]][one.name, one.labels.get("state", "")] += one.value
        elif one.name == names.REQUESTS and not re.fullmatch(_NO_WORK, one.labels.get("route", "")):
            sums[one.labels["model"]][one.name, ""] += one.value
    if not sums or math.isnan(started):
        raise PlatformError(
            f"the endpoint does not say what it holds: {url}",
            fix="it is none of ours, or of an older version: serve the model again",
            code="no_answer",
        )
    days = max(time.time() - started, 1.0) / _DAY
    return [served_cost(model, days, found, prices) for model, found in sorted(sums.items())]


def of_prometheus(prometheus: PrometheusApi, days: float, prices: Prices | None) -> list[ServedCost]:
    """The cost of each model of the last `days`, pods that have gone and versions of rollouts included.

    Raises:
        PlatformError: ``code="no_prometheus"``.
    """
    window = f"[{max(round(days * 24 * 60), 1)}m]"
    wanted = {
        **{
            (name, state): f'sum by (model) (increase({name}{{state="{state}"}}{window}))'
            for name in (names.CORE_SECONDS, names.MEMORY_SECONDS)
            for state in ("used", "idle")
        },
        (names.GPU_SECONDS, ""): f"sum by (model) (increase({names.GPU_SECONDS}{window}))",
        (names.REQUESTS, ""): f'sum by (model) (increase({names.REQUESTS}{{route!~"{_NO_WORK}"}}{window}))',
    }
    sums: dict[str, dict[tuple[str, str], float]] = defaultdict(dict)
    for which, query in wanted.items():
        for model, value in prometheus.by_model(query).items():
            sums[model][which] = value
    held = {model: found for model, found in sums.items() if any(name in _HELD for name, _ in found)}
    return [served_cost(model, days, found, prices) for model, found in sorted(held.items())]


def show_served_costs(profile: str, address: str, prometheus: str, days: float, key: str, as_json: bool) -> None:
    """Cost of what an endpoint serves, or of every model that a Prometheus knows."""
    prices = load_profile(profile).prices
    found = of_endpoint(address, prices, key) if address else of_prometheus(PrometheusApi(prometheus), days, prices)

    def show(out: Console) -> None:
        if not found:
            out.print("Prometheus knows no model that says what it holds.")
            return
        money = found[0].currency or "money"
        columns = ("days", "requests", "core hours", "GiB hours", "GPU hours", money, "idle", "a day", "1,000 requests")
        rows = table("model", *columns, right=columns)
        for one in found:
            hours = (one.core_hours, one.gib_hours, one.gpu_hours)
            amounts = (one.money, one.idle_money, one.per_day, one.per_1000_requests)
            cells = ["-" if value is None else f"{value:.3g}" for value in (*hours, *amounts)]
            rows.add_row(one.model, f"{one.days:.2g}", f"{one.requests:,.0f}", *cells)
        out.print(rows)
        if prices is None:
            out.print("No prices: put prices: {core_hour: 0.03, gib_hour: 0.004, gpu_hour: 2.0} into a profile's YAML,")
            out.print("or export FAIRLEAD_PRICES__CORE_HOUR=0.03", markup=False)

    emit([asdict(one) for one in found], as_json, show)
