"""From images to the three parts of a data set, and what a model is asked for each of them."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

from contracts.problems.image import GUIDANCE, PROMPT, SEED, STEPS
from pipelines.recipes.image.split import parted, prepare_classes
from pipelines.recipes.text.split import check_classes, check_rows

if TYPE_CHECKING:
    import pandas as pd


def split_drawings(task: Any, frame: pd.DataFrame, config: Any) -> dict[str, pd.DataFrame]:
    """``train``, ``valid`` and ``test``, each with the image, id, label, row_key, the inputs and the slices.

    Of each image a model is asked for one of its class, with a seed that follows from the image.

    Raises:
        PlatformError: shares that leave nothing, a part without rows, or classes that cannot be learned or measured.
    """
    parts = parted(task, frame, config, _prepared, lambda rows: list(rows["label"]))
    check_classes(task, parts, config)
    check_rows(task, parts, config)
    return parts


def _prepared(task: Any, frame: pd.DataFrame, config: Any) -> pd.DataFrame:
    out = prepare_classes(task, frame, config).drop(columns=["slice_brightness", "slice_size"])
    out[PROMPT] = out["label"]
    out[SEED] = [zlib.crc32(key.encode()) for key in out["row_key"]]
    # Without a value, a model takes what it was built with: a champion is measured as it is served.
    out[STEPS] = out[GUIDANCE] = float("nan")
    out["slice_class"] = out["label"]
    return out
