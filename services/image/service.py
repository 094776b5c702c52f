"""The image service: serves any bundle of modality ``image``."""

from __future__ import annotations

from services.server.bento import SERVICE_CONFIG, LeanService, ModelService, asgi_app
from services.server.lifecycle import Runtime

import bentoml  # isort: skip - after services.server.bento, which turns its telemetry off

RUNTIME = Runtime("image")


@bentoml.asgi_app(asgi_app(RUNTIME), path="/")
@bentoml.service(name="fairlead-image", service_class=LeanService, **SERVICE_CONFIG)
class ImageService(ModelService):
    """Classifies images, sent as files or in JSON: ``POST /predict`` and the Open Inference Protocol v2."""

    runtime = RUNTIME
