"""The registry's champion, as the keeper on a cluster sets it: over MLflow's REST API."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from contracts.champions import CHAMPION, promotion_tag
from contracts.errors import PlatformError

_PATIENCE = 10.0


class Champion:
    """Which version of a model whoever asks the registry gets; without an address nothing is asked or set."""

    def __init__(self, tracking: str, model: str) -> None:
        self._tracking, self._model = tracking.rstrip("/"), model

    def promote(self, version: str) -> None:
        """Make a version the champion; does nothing for the one that is."""
        if self._tracking and self._now() != version:
            named = {"name": self._model}
            self._call("registered-models/set-tag", {**named, "key": promotion_tag(), "value": version})
            self._call("registered-models/alias", {**named, "alias": CHAMPION, "version": version})

    def withdraw(self, version: str, champion: str) -> None:
        """Make `champion` the champion again where `version` is it."""
        if self._tracking and self._now() == version:
            self.promote(champion)

    def _now(self) -> str:
        found = self._call(f"registered-models/get?{urllib.parse.urlencode({'name': self._model})}", None)
        aliases = found.get("registered_model", {}).get("aliases", [])
        return next((str(one["version"]) for one in aliases if one["alias"] == CHAMPION), "")

    def _call(self, path: str, body: dict[str, str] | None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        url = f"{self._tracking}/api/2.0/mlflow/{path}"
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=_PATIENCE) as answer:
                found: dict[str, Any] = json.loads(answer.read() or b"{}")
        except (OSError, ValueError) as err:
            said = err.read().decode(errors="replace")[:300] if isinstance(err, urllib.error.HTTPError) else str(err)
            raise PlatformError(
                f"the registry at {self._tracking} did not make a version of {self._model} the champion",
                detail=said,
                fix="it is asked again at the next look; see whether it is up, and has the model",
                code="registry",
            ) from err
        return found
