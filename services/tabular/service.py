"""The tabular service: serves any bundle of modality ``tabular``."""

from __future__ import annotations

from services.server.bento import SERVICE_CONFIG, LeanService, ModelService, asgi_app
from services.server.lifecycle import Runtime
from services.tabular.lookup import open_lookup

import bentoml  # isort: skip - after services.server.bento, which turns its telemetry off

RUNTIME = Runtime("tabular", open_lookup)


@bentoml.asgi_app(asgi_app(RUNTIME), path="/")
@bentoml.service(name="fairlead-tabular", service_class=LeanService, **SERVICE_CONFIG)
class TabularService(ModelService):
    """Scores rows, by entity keys or with all features given: ``POST /predict`` and the Open Inference Protocol v2."""

    runtime = RUNTIME
