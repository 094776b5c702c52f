"""The modality ``answers``: answers from documents, by ``POST /answer`` and as rows."""

from __future__ import annotations

from services.answers.api import ANSWER
from services.answers.runtime import AnswersRuntime
from services.feedback.api import FEEDBACK
from services.model.predict import PREDICT
from services.oip.routes import OIP
from services.server.lifecycle import Modality

MODALITY = Modality(name="answers", runtime=AnswersRuntime, apis=(ANSWER, PREDICT, OIP, FEEDBACK))
