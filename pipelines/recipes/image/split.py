"""From image files to the three parts of a data set: near duplicates are never in two of them.

A task of images is `pipelines.recipes.image.task.ImageTask`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from pipelines.data import forgotten
from pipelines.data.image_files import fingerprint, read_images
from pipelines.data.image_traits import near_groups
from pipelines.data.origins import source_here
from pipelines.io import events
from pipelines.recipes.text.split import assign, check_classes, check_rows, check_shares, class_labels

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.recipes.image.base import ImageRecipe

_DARK, _BRIGHT = 0.33, 0.66
_SMALL, _LARGE = 64, 512  # of the shorter side


Prepare = Callable[[Any, "pd.DataFrame", Any], "pd.DataFrame"]  # task, clean rows, configuration


def split_images(task: Any, frame: pd.DataFrame, config: ImageRecipe) -> dict[str, pd.DataFrame]:
    """``train``, ``valid`` and ``test``, each with the image, id, label, row_key and the slices.

    Raises:
        PlatformError: shares that leave nothing, a part without rows, or classes that cannot be learned or measured.
    """
    parts = parted(task, frame, config, prepare_classes, lambda rows: list(rows["label"]))
    check_classes(task, parts, config)
    check_rows(task, parts, config)
    return parts


def parted(
    task: Any, frame: pd.DataFrame, config: Any, prepare: Prepare, strata: Callable[[pd.DataFrame], Sequence[str]]
) -> dict[str, pd.DataFrame]:
    """The three parts of prepared rows, near duplicates together, each of the `strata` in all of them; not checked.

    Raises:
        PlatformError: shares that leave nothing, or a test source that cannot be read.
    """
    split = config.split
    check_shares(split)
    rows = prepare(task, frame, config)
    if not split.test_source:
        held = near_groups(rows["row_key"].tolist(), rows["look"].tolist())
        part = assign(held, strata(rows), {"test": split.test_share, "valid": split.valid_share})
        parts = {name: rows[[p == name for p in part]] for name in ("train", "valid", "test")}
    else:
        test = prepare(task, _test_source(task, config), config)
        both = near_groups([*rows["row_key"], *test["row_key"]], [*rows["look"], *test["look"]])
        theirs = set(both[len(rows) :])
        free = [key not in theirs for key in both[: len(rows)]]
        rest, left = rows[free], [key for key in both[: len(rows)] if key not in theirs]
        part = assign(left, strata(rest), {"valid": split.valid_share})
        parts = {name: rest[[p == name for p in part]] for name in ("train", "valid")} | {"test": test}
    return {name: one.drop(columns="look").reset_index(drop=True) for name, one in parts.items()}


def prepare_classes(task: Any, frame: pd.DataFrame, config: Any) -> pd.DataFrame:
    """Rows whose label is a class."""
    return prepare_images(task, frame).assign(label=class_labels(task, frame[task.label], config.labels))


def prepare_images(task: Any, frame: pd.DataFrame) -> pd.DataFrame:
    """Rows without a label."""
    out = frame[["image", "look"]].copy()
    out["id"] = frame[task.id].astype(str)
    out["row_key"] = frame["sha256"].astype(str)
    bright, side = frame["brightness"].astype(float), frame[["width", "height"]].min(axis=1)
    out["slice_brightness"] = [band(value, _DARK, _BRIGHT, ("dark", "middle", "bright")) for value in bright]
    out["slice_size"] = [band(value, _SMALL, _LARGE, ("small", "medium", "large")) for value in side]
    return out


def band(value: float, low: float, high: float, names: tuple[str, str, str]) -> str:
    """Which of three bands a value is in."""
    return names[0] if value < low else names[1] if value < high else names[2]


def _test_source(task: Any, config: Any) -> Any:
    """The images of ``split.test_source``; all of them must be readable.

    Raises:
        PlatformError: ``code="bad_source"``, naming the first that is not.
    """
    import pandas as pd

    source, data = config.split.test_source, config.split.test_data
    data = data if data.classes else replace(data, classes=config.data.classes)
    frames = []
    with source_here(source, "build_dataset") as here:
        known = fingerprint(here, task, data, events.progress("build_dataset"))
        for chunk in read_images(here, task, data, known):
            if chunk.rejected:
                bad = chunk.rejected[0]
                raise PlatformError(
                    f"test source: {bad.file} {bad.reason}", fix="correct the file, or leave it out", code="bad_source"
                )
            frames.append(forgotten.without(chunk).table.to_pandas())
    return pd.concat(frames, ignore_index=True)
