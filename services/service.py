"""The service for BentoML's own commands: ``bentoml serve services.service:SERVICE --arg modality=text``."""

from __future__ import annotations

import bentoml
from pydantic import BaseModel

from services.server.bento import bento_service
from services.server.lifecycle import MODALITIES


class _Arguments(BaseModel):
    modality: str = "tabular"


SERVICE = bento_service(MODALITIES.get(bentoml.use_arguments(_Arguments).modality).make())
