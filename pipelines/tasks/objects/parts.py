"""Rendered trays: bolts, nuts and washers, turned, in the light of a workshop, some behind others, as JPEG."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from contracts.problems.detection import Truth, write_truth

if TYPE_CHECKING:
    import numpy as np
    from PIL import ImageDraw

NAMES = ("bolt", "nut", "washer")
WIDE, HIGH = 160, 128  # pixels of an image
FINE = 2  # how much larger it is drawn
_EMPTY = 0.08  # share of trays with nothing on them
_MOST = 6  # parts of a tray
_HIDDEN = 0.45  # of a part, what others may cover at most


def trays(seed: int, count: int) -> Iterator[tuple[str, bytes, str]]:
    """Name, JPEG file and objects of so many trays; the same seed gives the same pixels."""
    import numpy as np

    rng = np.random.default_rng(seed)
    for number in range(count):
        file, objects = tray(rng, 0 if rng.random() < _EMPTY else int(rng.integers(1, _MOST + 1)))
        yield f"tray{number:04d}.jpg", file, write_truth(objects)


def tray(rng: np.random.Generator, parts: int) -> tuple[bytes, list[Truth]]:
    """A tray with about so many parts, as a camera sees it from above, and where they are."""
    import numpy as np
    from PIL import Image, ImageDraw, ImageFilter

    side, other = rng.integers(90, 190, 3), rng.integers(90, 190, 3)
    ramp = np.linspace(0, 1, WIDE * FINE)[None, :, None]
    back = np.broadcast_to(side + (other - side) * ramp, (HIGH * FINE, WIDE * FINE, 3)).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(back))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(0, 4))):  # scratches
        ends = rng.uniform(0, 1, 4) * (WIDE, HIGH, WIDE, HIGH) * FINE
        draw.line(ends.tolist(), fill=tuple(int(one * 0.8) for one in side), width=int(rng.integers(1, 4)))
    objects: list[Truth] = []
    for _ in range(parts):
        name, radius = NAMES[rng.integers(len(NAMES))], float(rng.uniform(9, 19))
        middle = rng.uniform((radius, radius), (WIDE - radius, HIGH - radius))
        turn, tone = rng.uniform(0, 2 * math.pi), rng.integers(-25, 26)
        outline, hole = shape(name, radius, turn)
        corners = outline + middle
        box = (
            max(0.0, float(corners[:, 0].min())),
            max(0.0, float(corners[:, 1].min())),
            min(float(WIDE), float(corners[:, 0].max())),
            min(float(HIGH), float(corners[:, 1].max())),
        )
        if any(_covered(one.box, box) > _HIDDEN or _covered(box, one.box) > _HIDDEN for one in objects):
            continue
        bright = int(rng.integers(40, 85)) if rng.random() < 0.5 else int(rng.integers(200, 245))
        draw_part(draw, corners, middle, hole, bright, int(tone), float(rng.uniform(0.5, 2.5)), side)
        objects.append(Truth(name, tuple(round(one, 1) for one in box)))  # type: ignore[arg-type]
    soft = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 2.5)))
    seen = np.asarray(soft.resize((WIDE, HIGH), Image.Resampling.BOX), np.float32)
    pixels = seen * rng.uniform(0.6, 1.1) + rng.normal(0, rng.uniform(2, 9), seen.shape)
    buffer = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=int(rng.integers(75, 95)))
    return buffer.getvalue(), objects


def draw_part(
    draw: ImageDraw.ImageDraw, corners: Any, middle: Any, hole: float, bright: int, tone: int, shadow: float, under: Any
) -> None:
    """A part with its shadow.

    corners: of its outline, shape (corners, 2), in pixels of the finished image.  middle, hole: of its hole, 0 for
    none.  bright, tone: of its color.  shadow: pixels that it is away.  under: the color below it.
    """
    import numpy as np

    fill = tuple(int(np.clip(bright + tone * share, 0, 255)) for share in (0.2, 0.5, 1.0))
    edge = tuple(max(0, one - 35) for one in fill)
    below = (corners + shadow) * FINE
    draw.polygon([tuple(one) for one in below.tolist()], fill=tuple(int(one * 0.6) for one in under))
    draw.polygon([tuple(one) for one in (corners * FINE).tolist()], fill=fill, outline=edge, width=2)
    if hole > 0:
        around = np.concatenate([middle - hole, middle + hole]) * FINE
        draw.ellipse(around.tolist(), fill=tuple(int(one * 0.75) for one in under), outline=edge, width=2)


def shape(name: str, radius: float, turn: float) -> tuple[Any, float]:
    """The outline of a part around 0, shape (corners, 2), and the radius of its hole, 0 for none."""
    import numpy as np

    if name == "bolt":  # a head and a shaft
        points = np.array([(-1, -0.6), (-0.45, -0.6), (-0.45, -0.25), (1, -0.25), (1, 0.25), (-0.45, 0.25)])
        points = np.concatenate([points, [(-0.45, 0.6), (-1, 0.6)]])
    else:
        corners = 6 if name == "nut" else 40
        angles = 2 * math.pi * np.arange(corners) / corners
        points = np.stack([np.cos(angles), np.sin(angles)], axis=1) * 0.8
    cosine, sine = math.cos(turn), math.sin(turn)
    turned = points @ np.array([[cosine, sine], [-sine, cosine]])
    return turned * radius, 0.0 if name == "bolt" else radius * (0.3 if name == "nut" else 0.55)


def _covered(box: tuple[float, ...], by: tuple[float, ...]) -> float:
    """The share of a box that another one covers."""
    wide = max(0.0, min(box[2], by[2]) - max(box[0], by[0]))
    high = max(0.0, min(box[3], by[3]) - max(box[1], by[1]))
    return wide * high / ((box[2] - box[0]) * (box[3] - box[1]))
