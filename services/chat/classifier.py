"""The trained part of the guard: a bundle that tells the class of a text, asked window by window."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from contracts.bundle import read_bundle
from contracts.engines import load_engine
from contracts.errors import PlatformError

WINDOW, STEP = 600, 500  # characters that are judged together, and from one window to the next


class Classifier:
    """The classes of texts.

    Attributes:
        classes: their names.  bundle: ``name digest``, for logs.

    Raises:
        PlatformError: ``code="bad_classifier"``: the bundle is no classification of one text.
    """

    def __init__(self, folder: str) -> None:
        bundle = read_bundle(folder)
        document, signature = bundle.document, bundle.document.signature
        output: Any = signature.output
        texts = [item for item in signature.inputs if item.dtype == "string"]
        if (
            document.modality != "text"
            or output.problem != "classification"
            or len(texts) != len(signature.inputs) != 0
        ):
            raise PlatformError(
                f"guard.classifier cannot be asked: {folder}",
                detail=f"it is a {document.modality} model of problem {output.problem}",
                fix="name the folder of a bundle that classifies texts: fairlead run guard",
                code="bad_classifier",
            )
        self.classes: tuple[str, ...] = tuple(output.classes)
        self.bundle = f"{document.name} {bundle.digest[:12]}"
        self._engine = load_engine(bundle, threads=1)
        self._input = texts[0].name
        self._others = {item.name: np.array([""], dtype=object) for item in texts[1:]}

    def likely(self, text: str) -> dict[str, float]:
        """Of each class the highest probability in any window of the text; safe to call from any thread."""
        found = [self._of(text[at : at + WINDOW]) for at in range(0, max(1, len(text) - WINDOW + STEP), STEP)]
        return dict(zip(self.classes, np.max(found, axis=0).tolist(), strict=True))

    def _of(self, window: str) -> Any:
        """Probabilities of one window; several in one call take longer, as all have the rows of the graph's terms."""
        row = np.empty(1, dtype=object)
        row[0] = window
        return np.asarray(self._engine.predict({self._input: row, **self._others}))[0]


@lru_cache(maxsize=4)
def classifier_of(folder: str) -> Classifier:
    """The classifier in a folder, loaded once in a process."""
    return Classifier(folder)
