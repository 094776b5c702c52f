"""Pen drawings of ten things on white paper, 28x28 pixels of gray; no two have the same lines."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

NAMES = ("boat", "cup", "fish", "flower", "house", "key", "moon", "star", "tree", "umbrella")
SIDE, _FINE = 28, 8  # pixels of an image, and how much larger it is drawn

Points = Sequence[tuple[float, float]]
Line = tuple[Points, bool]  # through which points, in a square from -1 to 1, and whether what it encloses is filled


def sketches(seed: int, each: int) -> Iterator[tuple[str, bytes, str]]:
    """Name, PNG file and class of `each` drawings of every thing; the same seed gives the same pixels."""
    import numpy as np

    rng = np.random.default_rng(seed)
    for number in range(each):
        for name in NAMES:
            yield f"{name}/{number:04d}.png", _drawn(name, rng), name


def _drawn(name: str, rng: np.random.Generator) -> bytes:
    """One thing as a hand might draw it: larger or smaller, turned, moved, with a thick pen or a thin one."""
    import numpy as np
    from PIL import Image, ImageDraw

    side = SIDE * _FINE
    image = Image.new("L", (side, side), 255)
    draw = ImageDraw.Draw(image)
    turn, size = math.radians(rng.uniform(-12, 12)), side * rng.uniform(0.34, 0.44)
    across, down = side / 2 + rng.uniform(-0.05, 0.05, 2) * side
    slim = rng.uniform(0.85, 1.1)
    pen, ink = int(side * rng.uniform(0.035, 0.06)), int(rng.integers(10, 70))
    cosine, sine = math.cos(turn), math.sin(turn)
    for points, filled in _THINGS[name](rng):
        placed = [
            (across + size * (slim * x * cosine - y * sine), down + size * (slim * x * sine + y * cosine))
            for x, y in points
        ]
        if filled:
            draw.polygon(placed, fill=ink)
        draw.line(placed, fill=ink, width=pen, joint="curve")
        for x, y in (placed[0], placed[-1]):
            draw.ellipse((x - pen / 2, y - pen / 2, x + pen / 2, y + pen / 2), fill=ink)
    small = image.resize((SIDE, SIDE), Image.Resampling.BOX)
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(small)).save(buffer, "PNG")
    return buffer.getvalue()


def _ring(
    x: float, y: float, wide: float, high: float, start: float = 0.0, end: float = 360.0, many: int = 24
) -> list[tuple[float, float]]:
    """An ellipse, or the part of one from `start` to `end` degrees, which run clockwise from the right."""
    angles = [math.radians(start + (end - start) * at / many) for at in range(many + 1)]
    return [(x + wide * math.cos(angle), y + high * math.sin(angle)) for angle in angles]


def _boat(rng: np.random.Generator) -> list[Line]:
    deck, mast = rng.uniform(0.25, 0.4), rng.uniform(-0.15, 0.1)
    hull = [(-0.9, deck), (0.9, deck), (0.55, deck + 0.45), (-0.55, deck + 0.45), (-0.9, deck)]
    sail = [(mast, -0.9), (mast + rng.uniform(0.55, 0.8), deck - 0.15), (mast, deck - 0.15)]
    return [(hull, True), ([(mast, -0.9), (mast, deck)], False), ([*sail, sail[0]], False)]


def _cup(rng: np.random.Generator) -> list[Line]:
    top, foot = rng.uniform(-0.6, -0.4), rng.uniform(0.3, 0.5)
    body = [(-0.75, top), (0.45, top), (0.45 - 0.5 + foot, 0.75), (-0.75 + 0.5 - foot, 0.75), (-0.75, top)]
    return [(body, False), (_ring(0.5, (top + 0.5) / 2, 0.35, 0.33, -90, 90), False)]


def _fish(rng: np.random.Generator) -> list[Line]:
    thick, tail = rng.uniform(0.38, 0.55), rng.uniform(0.3, 0.45)
    fin = [(0.4, 0.0), (0.95, -tail), (0.95, tail), (0.4, 0.0)]
    return [(_ring(-0.2, 0, 0.68, thick), False), (fin, True), (_ring(-0.55, -0.1, 0.05, 0.05), True)]


def _flower(rng: np.random.Generator) -> list[Line]:
    petals, wide = int(rng.integers(5, 7)), rng.uniform(0.2, 0.25)
    first = rng.uniform(0, 360)
    made: list[Line] = [([(0.0, 0.2), (rng.uniform(-0.2, 0.2), 0.95)], False)]
    for at in range(petals):
        angle = math.radians(first + 360 * at / petals)
        made.append((_ring(0.38 * math.cos(angle), -0.3 + 0.38 * math.sin(angle), wide, wide), False))
    return [*made, (_ring(0, -0.3, 0.14, 0.14), True)]


def _house(rng: np.random.Generator) -> list[Line]:
    eaves, ridge = rng.uniform(-0.2, 0.05), rng.uniform(-0.95, -0.75)
    door = rng.uniform(-0.3, 0.2)
    walls = [(-0.65, eaves), (0.65, eaves), (0.65, 0.85), (-0.65, 0.85), (-0.65, eaves)]
    roof = [(-0.85, eaves), (0.0, ridge), (0.85, eaves), (-0.85, eaves)]
    return [
        (walls, False),
        (roof, True),
        ([(door, 0.85), (door, 0.35), (door + 0.28, 0.35), (door + 0.28, 0.85)], False),
    ]


def _key(rng: np.random.Generator) -> list[Line]:
    bow, end = rng.uniform(0.28, 0.38), rng.uniform(0.8, 0.95)
    teeth: list[Line] = [([(x, 0.0), (x, rng.uniform(0.28, 0.42))], False) for x in (end, end - 0.3)]
    return [(_ring(-0.95 + bow, 0, bow, bow), False), ([(-0.95 + 2 * bow, 0.0), (end, 0.0)], False), *teeth]


def _moon(rng: np.random.Generator) -> list[Line]:
    phase = rng.uniform(0.25, 0.5)
    outer, inner = _ring(0.1, 0, 0.85, 0.85, 70, 290), _ring(0.1, 0, phase, 0.8, 290, 70)
    return [([*outer, *inner, outer[0]], bool(rng.random() < 0.5))]


def _star(rng: np.random.Generator) -> list[Line]:
    waist = rng.uniform(0.36, 0.48)
    points = [
        (reach * math.sin(math.pi * at / 5), -reach * math.cos(math.pi * at / 5))
        for at, reach in enumerate([0.95, waist] * 5)
    ]
    return [([*points, points[0]], False)]


def _tree(rng: np.random.Generator) -> list[Line]:
    low, lowest = rng.uniform(-0.15, 0.0), rng.uniform(0.5, 0.6)
    upper = [(0.0, -0.95), (0.5, low), (-0.5, low), (0.0, -0.95)]
    lower = [(0.0, -0.4), (0.75, lowest), (-0.75, lowest), (0.0, -0.4)]
    return [(upper, True), (lower, True), ([(0.0, lowest), (0.0, 0.95)], False)]


def _umbrella(rng: np.random.Generator) -> list[Line]:
    edge, hook = rng.uniform(-0.1, 0.1), rng.uniform(0.15, 0.22)
    cover = _ring(0, edge, 0.9, edge + 0.9, 180, 360)
    return [
        ([*cover, cover[0]], True),
        ([(0.0, edge), (0.0, 0.7)], False),
        (_ring(-hook, 0.7, hook, 0.22, 0, 180), False),
    ]


_THINGS: dict[str, Callable[[Any], list[Line]]] = {
    "boat": _boat, "cup": _cup, "fish": _fish, "flower": _flower, "house": _house,
    "key": _key, "moon": _moon, "star": _star, "tree": _tree, "umbrella": _umbrella,
}  # fmt: skip
