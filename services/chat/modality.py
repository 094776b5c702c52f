"""The modality ``chat``: OpenAI's interface over llama.cpp, and rows of prompts as every other model has them."""

from __future__ import annotations

from services.chat.routes import OPENAI
from services.chat.runtime import ChatRuntime, ChatSettings
from services.feedback.api import FEEDBACK
from services.model.predict import PREDICT
from services.model.redact import REDACT
from services.oip.routes import OIP
from services.server.lifecycle import Modality

MODALITY = Modality(
    name="chat", runtime=ChatRuntime, apis=(OPENAI, PREDICT, OIP, FEEDBACK, REDACT), settings=ChatSettings
)
