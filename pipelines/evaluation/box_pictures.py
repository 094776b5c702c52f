"""Images with boxes drawn on them: what was found rightly, what was missed, and what is not there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.engine import MAX_PIXELS
from contracts.images import open_image, upright
from contracts.problems.detection import Detections, Truth, kept, matches

if TYPE_CHECKING:
    from PIL import Image

    from contracts.problems.detection import DetectionOutput

HIT, MISS, ALARM = "#17a34a", "#f59e0b", "#dc2626"
_SIDE, _GAP, _HEAD = 300, 8, 18  # pixels of an example, between two, and of its title
_COLUMNS, _EACH = 3, 3  # examples in a line, and of a kind
Drawn = tuple[Sequence[float], str, str]  # box, what is written above it, colour


def drawn(image: Image.Image, boxes: Iterable[Drawn], factor: float = 1.0) -> Image.Image:
    """A copy with `boxes`, which are in pixels of the image before it was resized by `factor`."""
    from PIL import ImageDraw, ImageFont

    made = image.convert("RGB")
    line = max(1, round(min(made.size) / 200))
    font = ImageFont.load_default(max(10, round(min(made.size) / 28)))
    pen = ImageDraw.Draw(made)
    for box, text, colour in boxes:
        left, top, right, bottom = (side * factor for side in box)
        pen.rectangle((left, top, max(left, right), max(top, bottom)), outline=colour, width=line)
        if text:
            _, _, wide, high = pen.textbbox((0, 0), text, font=font)
            at = (min(max(0.0, left), max(0.0, made.width - wide - 4)), top - high - 3 if top > high + 3 else top)
            pen.rectangle((at[0], at[1], at[0] + wide + 3, at[1] + high + 2), fill=colour)
            pen.text((at[0] + 2, at[1]), text, fill="white", font=font)
    return made


def examples(
    file: Path, images: Sequence[bytes], truth: Sequence[Sequence[Truth]], answers: Any, output: DetectionOutput
) -> None:
    """Draw up to nine images: the best, those with the most misses, and those with the most false alarms."""
    from PIL import Image

    told = [_told(some, one, output) for some, one in zip(truth, answers, strict=True)]
    counts = [tuple(sum(colour == wanted for _, _, colour in some) for wanted in (HIT, MISS, ALARM)) for some in told]
    rows = range(len(told))
    kinds = (
        ("found", sorted(rows, key=lambda at: (counts[at][1] + counts[at][2], -counts[at][0]))),
        ("missed", sorted((at for at in rows if counts[at][1]), key=lambda at: -counts[at][1])),
        ("false alarms", sorted((at for at in rows if counts[at][2]), key=lambda at: -counts[at][2])),
    )
    used: set[int] = set()
    shown: list[tuple[str, int]] = []
    for name, order in kinds:
        some = [at for at in order if at not in used][:_EACH]
        used.update(some)
        shown += [(name, at) for at in some]
    pictures = []
    for name, at in shown:
        whole = upright(open_image(images[at], MAX_PIXELS)).convert("RGB")
        factor = min(_SIDE / whole.width, _SIDE / whole.height)
        small = whole.resize([max(1, round(side * factor)) for side in whole.size], Image.Resampling.BILINEAR)
        hits, misses, alarms = counts[at]
        title = f"{name}: {hits} right, {misses} missed, {alarms} false"
        pictures.append((title, drawn(small, told[at], factor)))
    lines = [pictures[at : at + _COLUMNS] for at in range(0, len(pictures), _COLUMNS)]
    heights = [_HEAD + max(picture.height for _, picture in line) + _GAP for line in lines]
    sheet, top = Image.new("RGB", (_COLUMNS * (_SIDE + _GAP), sum(heights)), "white"), 0
    for line, height in zip(lines, heights, strict=True):
        for place, (title, picture) in enumerate(line):
            _write(sheet, (place * (_SIDE + _GAP), top), title)
            sheet.paste(picture, (place * (_SIDE + _GAP), top + _HEAD))
        top += height
    # Of the ways to get along with few colours the one that keeps rare ones, such as those of boxes.
    sheet.quantize(250, Image.Quantize.MAXCOVERAGE).save(file, optimize=True)


def _write(sheet: Image.Image, place: tuple[int, int], text: str) -> None:
    from PIL import ImageDraw, ImageFont

    ImageDraw.Draw(sheet).text(place, text, fill="#22262b", font=ImageFont.load_default(13))


def _told(truth: Sequence[Truth], one: Detections, output: DetectionOutput) -> list[Drawn]:
    """What is answered and what is missed of an image, with the colours of hits, misses and false alarms."""
    places = kept(output, one)
    some = Detections(one.boxes[places], one.scores[places], one.classes[places])
    found = matches(truth, output.labels, some)
    seen = {int(at) for at in found}
    missed: list[Drawn] = [
        (item.box, item.label, MISS) for at, item in enumerate(truth) if at not in seen and not item.crowd
    ]
    return missed + [
        (some.boxes[at].tolist(), f"{output.labels[some.classes[at]]} {some.scores[at]:.2f}", HIT if it >= 0 else ALARM)
        for at, it in enumerate(found)
        if it != -2
    ]
