"""The modality ``tabular``: rows with all features, or with entity keys whose features are looked up online."""

from __future__ import annotations

from functools import partial

from services.feedback.api import FEEDBACK
from services.model.predict import PREDICT
from services.model.redact import REDACT
from services.model.runtime import RowRuntime
from services.oip.routes import OIP
from services.server.lifecycle import Modality
from services.tabular.lookup import open_lookup

MODALITY = Modality(
    name="tabular", runtime=partial(RowRuntime, open_lookup=open_lookup), apis=(PREDICT, OIP, FEEDBACK, REDACT)
)
