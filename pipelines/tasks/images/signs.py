"""Rendered signs: ten kinds, turned, moved, in the light of day and night, with noise, as JPEG."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Draw = Any

NAMES = (
    "ahead", "caution", "give_way", "left", "no_entry", "no_stopping", "priority", "right", "roundabout", "stop",
)  # fmt: skip
_COVERED = 0.2  # share of signs with a branch before them
_SIDE, _FINE = 32, 4  # pixels of an image, and how much larger it is drawn
_RED, _BLUE, _WHITE, _YELLOW = (190, 30, 40), (30, 70, 160), (240, 240, 240), (240, 190, 40)
_ARROW = ((0.0, -0.55), (0.45, -0.05), (0.17, -0.05), (0.17, 0.55), (-0.17, 0.55), (-0.17, -0.05), (-0.45, -0.05))
_TURNS = {"ahead": 0.0, "right": math.pi / 2, "left": -math.pi / 2}


def signs(seed: int, each: int) -> Iterator[tuple[str, bytes, str]]:
    """Name, JPEG file and class of `each` signs of every kind; the same seed gives the same pixels."""
    import numpy as np

    rng = np.random.default_rng(seed)
    for number in range(each):
        for name in NAMES:
            yield f"{name}/{number:04d}.jpg", _photo(name, rng), name


def _photo(name: str, rng: np.random.Generator) -> bytes:
    """One sign as a camera might see it."""
    import numpy as np
    from PIL import Image, ImageDraw, ImageFilter

    side = _SIDE * _FINE
    low, high = rng.integers(40, 200, 3), rng.integers(40, 200, 3)
    ramp = np.linspace(0, 1, side)[:, None, None]
    back = np.broadcast_to(low + (high - low) * ramp, (side, side, 3)).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(back))
    radius = side * rng.uniform(0.27, 0.43)
    middle = side / 2 + rng.uniform(-0.08, 0.08, 2) * side
    turn = math.radians(rng.uniform(-14, 14))
    squeeze = rng.uniform(0.8, 1.0)  # seen from the side

    def place(points: Any, scale: float = 1.0, more: float = 0.0) -> list[tuple[float, float]]:
        cosine, sine = math.cos(turn + more), math.sin(turn + more)
        return [
            (
                middle[0] + radius * scale * squeeze * (x * cosine - y * sine),
                middle[1] + radius * scale * (x * sine + y * cosine),
            )
            for x, y in points
        ]

    draw = ImageDraw.Draw(image)
    _draw(draw, name, place)
    if rng.random() < _COVERED:
        start, end = middle + rng.uniform(-1, 1, 2) * radius, middle + rng.uniform(-1, 1, 2) * radius
        draw.line([*start, *end], fill=tuple(int(one) for one in low), width=int(radius * rng.uniform(0.2, 0.7)))
    small = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 3.0))).resize((_SIDE, _SIDE), Image.Resampling.BOX)
    pixels = np.asarray(small, np.float32) * rng.uniform(0.3, 1.15) + rng.uniform(-10, 15)
    pixels += rng.normal(0, rng.uniform(2, 15), pixels.shape)
    buffer = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=int(rng.integers(70, 95)))
    return buffer.getvalue()


def _draw(draw: Draw, name: str, place: Any) -> None:
    """The sign in a circle of radius 1."""
    if name in _TURNS:
        draw.polygon(place(_corners(40)), fill=_BLUE)
        draw.polygon(place(_ARROW, 1.2, _TURNS[name]), fill=_WHITE)
    elif name in ("caution", "give_way"):
        up = math.pi if name == "give_way" else 0.0
        draw.polygon(place(_corners(3), 1.05, up), fill=_RED)
        draw.polygon(place(_corners(3), 0.66, up), fill=_WHITE)
    elif name == "no_entry":
        draw.polygon(place(_corners(40)), fill=_RED)
        draw.polygon(place(_bar(0.7, 0.17)), fill=_WHITE)
    elif name == "no_stopping":
        draw.polygon(place(_corners(40)), fill=_RED)
        draw.polygon(place(_corners(40), 0.78), fill=_BLUE)
        for angle in (math.pi / 4, -math.pi / 4):
            draw.polygon(place(_bar(0.8, 0.11), 1.0, angle), fill=_RED)
    elif name == "priority":
        draw.polygon(place(_corners(4)), fill=_WHITE)
        draw.polygon(place(_corners(4), 0.72), fill=_YELLOW)
    elif name == "roundabout":
        draw.polygon(place(_corners(40)), fill=_BLUE)
        draw.polygon(place(_corners(40), 0.62), fill=_WHITE)
        draw.polygon(place(_corners(40), 0.36), fill=_BLUE)
    else:  # stop
        draw.polygon(place(_corners(8), 1.0, math.pi / 8), fill=_RED)
        draw.polygon(place(_bar(0.6, 0.13), 1.0), fill=_WHITE)
        draw.polygon(place(_bar(0.13, 0.4), 1.0), fill=_WHITE)


def _corners(count: int) -> list[tuple[float, float]]:
    """A regular polygon whose first corner is at the top."""
    angles = [2 * math.pi * at / count for at in range(count)]
    return [(math.sin(angle), -math.cos(angle)) for angle in angles]


def _bar(wide: float, high: float) -> list[tuple[float, float]]:
    return [(-wide, -high), (wide, -high), (wide, high), (-wide, high)]
