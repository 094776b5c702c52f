"""The modality ``text``: texts are tokenised before they are queued, so that those of similar length share a call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from contracts.decoding import Drawn
from contracts.engine import Engine, TokenEngine
from services.feedback.api import FEEDBACK
from services.model.columns import Column
from services.model.predict import PREDICT
from services.model.redact import REDACT
from services.model.request_schema import Batch
from services.model.rows import Rows
from services.model.runtime import RowRuntime
from services.oip.routes import OIP
from services.server.lifecycle import Modality
from services.settings import ServiceSettings

_TOKENISED_AT_ONCE = 4_000  # characters, about 1 ms; more is tokenised on a thread of its own


class TextRows(Rows):
    """Texts, as the token ids that the engine makes of them; some engines take the texts themselves."""

    threads = 1

    def __init__(self, engine: Engine, settings: ServiceSettings) -> None:
        super().__init__(engine, settings)
        self._tokens = engine if isinstance(engine, TokenEngine) else None
        self.sampling = getattr(engine, "sampling", None)
        self.waits = bool(getattr(engine, "waits", False))

    def prepared(self, batch: Batch) -> Batch:
        """The rows with their token ids."""
        if self._tokens is None:
            return batch
        ids = self._tokens.tokenise(batch.columns)
        if batch.sampling is not None:
            ids = [Drawn(row, batch.sampling) for row in ids]
        return replace(batch, prepared=ids, lengths=[len(row) for row in ids])

    def is_quick(self, batch: Batch) -> bool:
        """Whether the texts are short."""
        columns = batch.columns.values()
        return sum(len(value) for one in columns if one.dtype == object for value in one) < _TOKENISED_AT_ONCE

    def predict(self, inputs: Mapping[str, Column], prepared: Sequence[Any], **beside: Any) -> Any:
        """The engine's answers to all rows."""
        if prepared and self._tokens is not None:
            return self._tokens.predict_ids(prepared, **beside)
        return self.engine.predict(inputs, **beside)

    def padded(self, lengths: Sequence[int]) -> int:
        """Tokens that the engine computes, padding included."""
        return sum(lengths) if self._tokens is None else self._tokens.padded(lengths)


MODALITY = Modality(name="text", runtime=partial(RowRuntime, rows=TextRows), apis=(PREDICT, OIP, FEEDBACK, REDACT))
