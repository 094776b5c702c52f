"""Where the adapters of a model are, as its services are told, and one entity's taken away."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from deploy.cli.profiles.loading import load_deployment

if TYPE_CHECKING:
    from services.settings import AdapterSettings


def adapter_settings(profile: str, model: str) -> AdapterSettings:
    """``config.adapters`` of the model's values file; variables ``FAIRLEAD_SERVICE_ADAPTERS__*`` win.

    Raises:
        PlatformError: an unknown key or a wrong value.
    """
    from contracts.settings import load
    from services.settings import PREFIX, AdapterSettings

    told = load(AdapterSettings, prefix=f"{PREFIX}ADAPTERS__", environ=os.environ).model_dump(exclude_unset=True)
    given: dict[str, Any] = load_deployment(profile, model).config.get("adapters") or {}
    return load(AdapterSettings, prefix="", environ={}, overrides={**given, **told})


def forget_personal(profile: str, model: str, keys: Iterable[str], salt: str) -> int:
    """Remove the adapters of entities with one of these keys; how many there were."""
    from services.adapters.forgetting import forget_adapters

    settings = adapter_settings(profile, model)
    return sum(forget_adapters(settings, model, key, salt) for key in keys)
