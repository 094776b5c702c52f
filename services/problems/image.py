"""Image: images are counted by their class. An image is never logged."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from contracts.problems.image import Drawn, described, pixels_of
from services.problems.base import Count, Distribution, Series, Serving

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from contracts.bundle import Golden
    from contracts.problems.image import ImageOutput

REFUSED = "(refused)"


class ImageServing(Serving):
    """See `services.problems.base.Serving`; a decision is the class that was drawn."""

    def labels(self, output: ImageOutput) -> Sequence[str]:
        """The classes, and what the policy forbids."""
        return (*output.kinds, REFUSED)

    def distribution(self, output: ImageOutput, golden: Sequence[Golden]) -> Distribution | None:
        """None: what images look like is watched by the monitor."""
        return None

    def count(self, answers: Any, decided: Sequence[str], labels: Mapping[str, Count], observed: Series) -> None:
        """Each image."""
        for name in decided:
            labels[name].inc()

    def record(self, answers: Any, decided: Sequence[str], row: int) -> dict[str, Any]:
        """Class, brightness, contrast and sharpness."""
        return described(answers[row])

    def parameters(self, output: ImageOutput) -> dict[str, Any]:
        """Classes, and how large images are."""
        return output.model_dump(mode="json")

    def summary(self, output: ImageOutput) -> str:
        """Images of the classes."""
        of = "any text" if output.any_text else f"{len(output.labels)} classes"
        return f"images of {output.width}x{output.height} pixels, of {of}"

    def answers(self, output: ImageOutput, documents: Sequence[Mapping[str, Any]]) -> NDArray[np.object_]:
        """The images."""
        import numpy as np

        found = np.empty(len(documents), dtype=object)
        found[:] = [Drawn(pixels_of(base64.b64decode(one["image"])), one["label"]) for one in documents]
        return found

    def watched(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Brightness, contrast, sharpness and class."""
        if "brightness" not in record:
            return {}
        found = {"answer": record["brightness"], "contrast": record.get("contrast"), "class": record.get("class")}
        return found | ({"sharpness": record["sharpness"]} if "sharpness" in record else {})


SERVING = ImageServing()
