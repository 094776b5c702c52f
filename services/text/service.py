"""The text service: serves any bundle of modality ``text``."""

from __future__ import annotations

from services.server.bento import SERVICE_CONFIG, LeanService, ModelService, asgi_app
from services.server.lifecycle import Runtime

import bentoml  # isort: skip - after services.server.bento, which turns its telemetry off

RUNTIME = Runtime("text")


@bentoml.asgi_app(asgi_app(RUNTIME), path="/")
@bentoml.service(name="fairlead-text", service_class=LeanService, **SERVICE_CONFIG)
class TextService(ModelService):
    """Classifies texts: ``POST /predict`` and the Open Inference Protocol v2."""

    runtime = RUNTIME
