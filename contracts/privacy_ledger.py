"""The ledger of differential privacy: what private trainings have told of each version of a data set.

It is kept in the registry, as tags of one registered model of MLflow whose name is no model's of ours, a tag for each
charge: two machines, which share no lock, lose neither's. What is kept is what was done, not what it costs: costs do
not simply add up, see `pipelines.training.privacy.spent`.
"""

from __future__ import annotations

import functools
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from contracts.endpoints import Endpoints
from contracts.registry_file import open_file
from contracts.tracking import connect

_NAME = "fairlead.privacy"
_TAG = "charge."


@dataclass(frozen=True, kw_only=True)
class Release:
    """Noisy answers about rows: `steps` sums over rows that are each drawn with chance `share`.

    noise: deviations of the noise for each unit that one row can change.
    """

    noise: float
    share: float
    steps: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Charge:
    """What one training has released. `epsilon`, `delta`: what it costs alone; time: UTC, ISO 8601."""

    data_version: str
    task: str
    recipe: str
    delta: float
    epsilon: float
    releases: tuple[Release, ...]
    id: str = ""
    time: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class PrivacyLedger:
    """Charge and read. Safe to use from several processes at once."""

    def __init__(self, endpoints: Endpoints) -> None:
        self.endpoints = endpoints.resolved()

    @functools.cached_property
    def _client(self) -> Any:
        return connect(self.endpoints)

    def charge(self, made: Charge) -> Charge:
        """Write a charge down; the result has its id and time."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(_NAME, description="What private trainings cost; see fairlead privacy")
        except MlflowException as err:
            if err.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        paid = replace(made, id=f"{time.time_ns():020d}-{secrets.token_hex(4)}", time=now)
        self._client.set_registered_model_tag(_NAME, f"{_TAG}{paid.id}", json.dumps(paid.as_dict()))
        return paid

    def give_back(self, paid: Charge) -> None:
        """Take back a charge whose training never began."""
        self._client.delete_registered_model_tag(_NAME, f"{_TAG}{paid.id}")

    def charges(self, data_version: str = "") -> list[Charge]:
        """All charges, or those of a version of a data set, oldest first."""
        found = [_charge(json.loads(text)) for key, text in sorted(self._tags().items()) if key.startswith(_TAG)]
        return [one for one in found if data_version in ("", one.data_version)]

    def _tags(self) -> Mapping[str, str]:
        if file := open_file(self.endpoints.tracking):
            found: Mapping[str, str] = file.get_registered_model(_NAME).tags
            return found
        from mlflow.exceptions import MlflowException

        try:
            asked: Mapping[str, str] = self._client.get_registered_model(_NAME).tags
        except MlflowException as err:
            if err.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return {}
        return asked


def _charge(document: Mapping[str, Any]) -> Charge:
    return Charge(**{**document, "releases": tuple(Release(**one) for one in document["releases"])})
