"""The modality ``recommend``: lists of items for people, by ``POST /recommend`` and as rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from contracts.engine import Engine
from services.feedback.api import FEEDBACK
from services.model.columns import Column
from services.model.predict import PREDICT
from services.model.rows import Rows
from services.model.runtime import RowRuntime
from services.oip.routes import OIP
from services.recommend.api import RECOMMEND
from services.recommend.denied import DenyList
from services.recommend.windows import open_windows
from services.server.lifecycle import Modality
from services.settings import ServiceSettings


class RecommendRows(Rows):
    """Rows whose lists keep to the operator's deny list, which is read again when its file changes.

    Attributes:
        windows: the feature store, of models with a ranker that is told of it.
    """

    def __init__(self, engine: Engine, settings: ServiceSettings) -> None:
        super().__init__(engine, settings)
        self._denied = DenyList(settings.deny_file) if settings.deny_file else None
        self.windows = open_windows(engine, settings)
        if self.windows is not None:
            engine.live, self.learn, self.waits = self.windows.read, self.windows.learn, True  # type: ignore[attr-defined]

    def predict(self, inputs: Mapping[str, Column], prepared: Sequence[Any], **beside: Any) -> Any:
        """The engine's answers to all rows."""
        if self._denied is not None and (items := self._denied.changed()) is not None:
            self.engine.deny(items)  # type: ignore[attr-defined]
        return self.engine.predict(inputs, **beside)

    def close(self) -> None:
        """Write what waits for the feature store."""
        if self.windows is not None:
            self.windows.close()


MODALITY = Modality(
    name="recommend",
    runtime=partial(RowRuntime, rows=RecommendRows),
    apis=(RECOMMEND, PREDICT, OIP, FEEDBACK),
)
