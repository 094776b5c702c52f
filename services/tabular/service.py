"""The tabular service: serves any bundle of modality ``tabular``."""

from __future__ import annotations

from services.runtime.bento import SERVICE_CONFIG, LeanService, asgi_app, check_alive, check_ready, start
from services.runtime.lifecycle import Runtime
from services.tabular.lookup import open_lookup

import bentoml  # isort: skip - after services.runtime.bento, which turns its telemetry off

RUNTIME = Runtime("tabular", open_lookup)


@bentoml.asgi_app(asgi_app(RUNTIME), path="/")
@bentoml.service(name="fairlead-tabular", service_class=LeanService, **SERVICE_CONFIG)
class TabularService:
    """Scores rows, by entity keys or with all features given: ``POST /predict`` and the Open Inference Protocol v2."""

    @bentoml.on_startup
    async def begin(self) -> None:
        """Begin loading; the port answers while it goes on."""
        await start(RUNTIME)

    @bentoml.on_shutdown
    async def end(self) -> None:
        """Finish the queue and the prediction log."""
        await RUNTIME.stop()

    async def __is_alive__(self) -> bool:
        """Whether a restart is not needed."""
        return check_alive(RUNTIME)

    async def __is_ready__(self) -> bool:
        """Whether the model has proven itself."""
        return check_ready(RUNTIME)
