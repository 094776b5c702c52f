"""A modality without a model: its routes are given, and its bundles are opened by doing nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from contracts.bundle import Bundle
from services.server.lifecycle import Api, Modality, Runtime
from services.server.requests import Route


class PlainRuntime(Runtime):
    """A runtime that has nothing to open and nothing to close."""

    async def open(self, bundle: Bundle) -> Mapping[str, Any]:
        """Nothing to load."""
        return {}

    async def close(self) -> None:
        """Nothing to finish."""


def plain(routes: Sequence[Route] = ()) -> Runtime:
    """A runtime of these routes."""
    return Modality(name="plain", runtime=PlainRuntime, apis=(Api(routes=lambda _: routes),)).make()
