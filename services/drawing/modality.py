"""The modality ``drawing``: OpenAI's interface of images with jobs, and rows as every model has them."""

from __future__ import annotations

from services.drawing.routes import IMAGES
from services.drawing.runtime import DrawingRuntime, DrawingServiceSettings
from services.feedback.api import FEEDBACK
from services.model.predict import PREDICT
from services.oip.routes import OIP
from services.server.lifecycle import Modality

MODALITY = Modality(
    name="drawing",
    runtime=DrawingRuntime,
    apis=(IMAGES, PREDICT, OIP, FEEDBACK),
    settings=DrawingServiceSettings,
)
