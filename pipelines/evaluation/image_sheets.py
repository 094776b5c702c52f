"""Sheets of generated images for the card: of each class, and beside the training images that are nearest to them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipelines.evaluation.image_reference import Reference

_SIDE, _GAP, _NAME, _HEAD = 56, 4, 96, 20  # pixels of an image, between two, of a class's name, and of a title
_COLUMNS, _CLASSES = 10, 20  # images of a class, and classes
_PAIRS = 4  # of a class


def samples(file: Path, answers: Any, labels: Sequence[str]) -> None:
    """Up to ten images of each of the first classes."""
    lines = [(name, [one.pixels for one in answers if one.label == name][:_COLUMNS], ()) for name in labels[:_CLASSES]]
    _write(file, "", [line for line in lines if line[1]], _COLUMNS)


def neighbours(file: Path, answers: Any, labels: Sequence[str], reference: Reference) -> None:
    """Of each class the images that are nearest to a training image, each with that one on its right side."""
    import numpy as np

    apart, place = reference.nearest(np.stack([one.pixels for one in answers]))
    lines = []
    for name in labels[:_CLASSES]:
        rows = sorted((at for at, one in enumerate(answers) if one.label == name), key=lambda at: apart[at])[:_PAIRS]
        pictures = [one for at in rows for one in (answers[at].pixels, reference.train[place[at]])]
        if rows:
            lines.append((name, pictures, tuple(f"{apart[at]:.3f}" for at in rows)))
    _write(file, "generated | nearest training image, and how far it is (root mean square)", lines, 2 * _PAIRS)


def _write(
    file: Path, title: str, lines: Sequence[tuple[str, Sequence[NDArray[np.uint8]], Sequence[str]]], columns: int
) -> None:
    from PIL import Image, ImageDraw, ImageFont

    from contracts.storage import write_bytes

    font = ImageFont.load_default(12)
    told = 14 if any(texts for _, _, texts in lines) else 0
    step = _SIDE + _GAP + told
    head = _HEAD if title else 0
    sheet = Image.new("RGB", (_NAME + columns * (_SIDE + _GAP), head + max(1, len(lines)) * step), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((2, 2), title, fill="#22262b", font=font)
    for line, (name, pictures, texts) in enumerate(lines):
        top = head + line * step
        pen.text((2, top + _SIDE // 2 - 6), name[:14], fill="#22262b", font=font)
        for at, pixels in enumerate(pictures):
            image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).convert("RGB")
            sheet.paste(image.resize((_SIDE, _SIDE), Image.Resampling.NEAREST), (_NAME + at * (_SIDE + _GAP), top))
        for at, text in enumerate(texts):
            pen.text((_NAME + 2 * at * (_SIDE + _GAP), top + _SIDE), text, fill="#22262b", font=font)
    import io

    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    write_bytes(str(file), buffer.getvalue())
