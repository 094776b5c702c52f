"""A small client of Prometheus' HTTP API."""

from __future__ import annotations

import json
import math
import urllib.parse
import urllib.request
from typing import Any

from contracts.errors import PlatformError

TIMEOUT = 2.0  # seconds


class PrometheusApi:
    """Asks a Prometheus at an address with its scheme."""

    def __init__(self, url: str) -> None:
        if not url.startswith(("http://", "https://")):
            raise PlatformError(
                f"not an address: {url!r}",
                fix="name Prometheus with its scheme: http://127.0.0.1:9090",
                code="bad_input",
            )
        self.url = url.rstrip("/")

    def ask(self, path: str) -> Any:
        """The data of ``/api/v1/<path>``.

        Raises:
            PlatformError: ``code="no_prometheus"``.
        """
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}", timeout=TIMEOUT) as answer:
                found = json.load(answer)
            return found["data"]
        except (OSError, ValueError, KeyError, TypeError) as err:
            raise PlatformError(
                f"Prometheus does not answer: {self.url}",
                detail=str(err),
                fix="start it, or correct --prometheus",
                code="no_prometheus",
            ) from err

    def vector(self, query: str) -> list[tuple[dict[str, str], float]]:
        """The labels and the value of each series of a query, if it is finite."""
        data = self.ask(f"query?{urllib.parse.urlencode({'query': query})}")
        found = [(series["metric"], float(series["value"][1])) for series in data.get("result", [])]
        return [(labels, value) for labels, value in found if math.isfinite(value)]

    def by_model(self, query: str) -> dict[str, float]:
        """The value of each model, of a query that groups by it."""
        return {labels["model"]: value for labels, value in self.vector(query) if labels.get("model")}
