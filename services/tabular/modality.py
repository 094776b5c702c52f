"""The modality ``tabular``: rows with all features, or with entity keys whose features are looked up online."""

from __future__ import annotations

from services.feedback.api import FEEDBACK
from services.model.predict import PREDICT
from services.model.redact import REDACT
from services.oip.routes import OIP
from services.server.lifecycle import Modality
from services.tabular.encrypted import ENCRYPTED, TabularRuntime

MODALITY = Modality(name="tabular", runtime=TabularRuntime, apis=(PREDICT, OIP, FEEDBACK, REDACT, ENCRYPTED))
