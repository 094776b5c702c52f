"""The values of one deployed model: ``deploy/env/<env>/models/<model>.yaml``."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from contracts.settings import Settings


class Deployment(Settings):
    """What is served, where, and the service's own settings, passed to it verbatim."""

    model: str = Field("", description="name, name@alias or name:version; resolved once when it is served")
    modality: str = Field("", description="which service of services/ serves it; default: what the bundle says")
    port: int = Field(3000, ge=1, le=65535, description="HTTP port")
    config: dict[str, Any] = Field({}, description="settings of the service, see services/settings.py")
