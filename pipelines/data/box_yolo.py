"""Images with boxes as YOLO has them: a text file for each image, a line for each object.

A line is the number of the class, the middle of the box and its width and height as shares of the image's. Names of
classes stand in a YAML file (``names``, a list or a mapping), in ``classes.txt`` or in a file ``*.names``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contracts.errors import PlatformError
from pipelines.data.image_sources import RefusedError

_BYTES = 1 << 20
_LISTS = ("classes.txt", "_classes.txt")


def is_names(path: Path) -> bool:
    """Whether a file of a folder lists names, so that it belongs to no image."""
    return path.name.lower() in _LISTS or path.suffix.lower() in (".names", ".yaml", ".yml")


def read_names(root: Path, files: list[Path]) -> dict[int, str]:
    """The names of the classes by their numbers.

    Raises:
        PlatformError: ``code="bad_source"``: no file has them, or several that do not agree.
    """
    found: dict[Path, dict[int, str]] = {}
    for file in files:
        if is_names(file) and (names := _names(file)):
            found[file] = names
    if not found:
        raise PlatformError(
            f"no names of classes below {root}",
            detail="there are labels of YOLO, which have numbers of classes",
            fix="add data.yaml with names: [cup, pen], or classes.txt with a name in each line",
            code="bad_source",
        )
    first, *others = found
    for other in others:
        if found[other] != found[first]:
            raise PlatformError(
                f"{first.relative_to(root)} and {other.relative_to(root)} name other classes",
                fix="keep the one that is right",
                code="bad_source",
            )
    return found[first]


def objects(
    text: str, names: Mapping[int, str], size: tuple[int, int]
) -> list[tuple[str, tuple[float, float, float, float], bool]]:
    """Class, box in pixels and False of each line of a file.

    Raises:
        RefusedError: naming the first line that cannot be read, or they are larger than 1 MB.
    """
    if len(text) > _BYTES:
        raise RefusedError("has labels of more than 1 MB")
    made = []
    for at, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if len(words) != 5:
            raise RefusedError(
                f"has {len(words)} values in line {at} of its labels; expected class, middle, width and height"
            )
        try:
            number, (x, y, wide, high) = int(words[0]), map(float, words[1:])
        except ValueError:
            raise RefusedError(f"has a value that is no number in line {at} of its labels") from None
        if max(x, y, wide, high) > 1.5:  # NaN is named by the check of boxes
            raise RefusedError(f"has pixels in line {at} of its labels; expected shares of the image, from 0 to 1")
        across, down = size
        box = ((x - wide / 2) * across, (y - high / 2) * down, (x + wide / 2) * across, (y + high / 2) * down)
        made.append((names.get(number, ""), box, False))
    return made


def _names(file: Path) -> dict[int, str]:
    """What a file lists; {} where it is about something else."""
    import yaml

    text = read_bounded(file)
    if file.suffix.lower() not in (".yaml", ".yml"):
        return dict(enumerate(line.strip() for line in text.splitlines() if line.strip()))
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as err:
        raise PlatformError(
            f"{file.name} is no YAML", detail=str(err)[:200], fix="write it again", code="bad_source"
        ) from err
    names: Any = document.get("names") if isinstance(document, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict):
        return {}
    return {at: str(name) for at, name in names.items() if type(at) is int and type(name) in (str, int)}


def read_bounded(file: Path) -> str:
    """The text of a file with labels or names, no more of it than shows that it is too large."""
    with file.open("rb") as stream:
        return stream.read(_BYTES + 1).decode("utf-8", "replace")


def noted(text: str, names: Mapping[int, str]) -> str:
    """What stands for the label of an image until its size is known: its lines, and what their classes are called."""
    return json.dumps([text, sorted(names.items())])
