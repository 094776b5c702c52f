"""From images with boxes to the three parts of a data set."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from contracts.problems.detection import Truth, read_truth, write_truth
from pipelines.recipes.image.split import parted, prepare_images
from pipelines.recipes.text.split import check_known, check_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

_FEW, _MANY = 3, 10  # objects of an image
_NONE = "(none)"


def split_objects(task: Any, frame: pd.DataFrame, config: Any) -> dict[str, pd.DataFrame]:
    """``train``, ``valid`` and ``test``, each with the image, id, label, row_key and the slices.

    Raises:
        PlatformError: shares that leave nothing, a part without images or objects, or with a class that training lacks.
    """
    parts = parted(task, frame, config, _prepared, _rarest)
    check_rows(task, parts, config)
    _check_objects(parts, config.labels)
    return parts


def _prepared(task: Any, frame: pd.DataFrame, config: Any) -> pd.DataFrame:
    out = prepare_images(task, frame)
    found = [read_truth(text) for text in frame[task.label]]
    out["label"] = [
        write_truth(Truth(config.labels.get(one.label, one.label), one.box, one.crowd) for one in some)
        for some in found
    ]
    out["slice_objects"] = [_band(len(some)) for some in found]
    return out


def _band(many: int) -> str:
    return "0" if not many else f"1-{_FEW}" if many <= _FEW else f"{_FEW + 1}-{_MANY}" if many <= _MANY else f">{_MANY}"


def _rarest(rows: pd.DataFrame) -> list[str]:
    """Of each image the class that fewest images have, so that it is in every part."""
    found = [{one.label for one in read_truth(text)} for text in rows["label"]]
    images = Counter(name for some in found for name in some)
    return [min(some, key=lambda name: (images[name], name), default=_NONE) for some in found]


def _check_objects(parts: Mapping[str, pd.DataFrame], labels: Mapping[str, str]) -> None:
    known = {name: {one.label for text in rows["label"] for one in read_truth(text)} for name, rows in parts.items()}
    for name, classes in known.items():
        if not classes:
            raise PlatformError(
                f"no image of the {name} part has an object",
                detail=f"{len(parts[name])} images",
                fix="give more images with boxes",
                code="bad_data",
            )
    fix = "give more images of it, or name it as another one: --set 'labels={NAME: CLASS}'"
    check_known(known, "class", "classes", lambda one: fix)
