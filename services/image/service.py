"""The image service: serves any bundle of modality ``image``."""

from __future__ import annotations

from services.runtime.bento import SERVICE_CONFIG, LeanService, asgi_app, check_alive, check_ready, start
from services.runtime.lifecycle import Runtime

import bentoml  # isort: skip - after services.runtime.bento, which turns its telemetry off

RUNTIME = Runtime("image")


@bentoml.asgi_app(asgi_app(RUNTIME), path="/")
@bentoml.service(name="fairlead-image", service_class=LeanService, **SERVICE_CONFIG)
class ImageService:
    """Classifies images, sent as files or in JSON: ``POST /predict`` and the Open Inference Protocol v2."""

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
