"""Clips with known truth: the parts of task `objects` on a belt that moves, and measures of tracking."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from contracts.problems.detection import overlaps
from pipelines.tasks.objects.parts import FINE, NAMES, draw_part, shape

Box = tuple[float, float, float, float]
_HIDDEN, _OUTSIDE = 0.6, 0.5  # shares of a box from which on nobody is expected to see the part


@dataclass(frozen=True)
class Known:
    """A part that is in a frame."""

    id: int
    label: str
    box: Box


@dataclass
class _Part:
    name: str
    radius: float
    begin: np.ndarray  # where it is at time 0
    speed: np.ndarray  # pixels in a second
    sway: float  # pixels that it swings beside its way
    turn: float
    spin: float
    bright: int
    tone: int

    def at(self, time: float) -> tuple[np.ndarray, np.ndarray, float]:
        """Its middle, its outline and the radius of its hole."""
        aside = np.array([-self.speed[1], self.speed[0]]) / max(1.0, float(np.hypot(*self.speed)))
        middle = self.begin + self.speed * time + aside * self.sway * math.sin(2.5 * time + self.turn)
        outline, hole = shape(self.name, self.radius, self.turn + self.spin * time)
        return middle, outline + middle, hole


def belt(
    seed: int, times: Sequence[float], size: tuple[int, int] = (320, 240), every: float = 1.1, scale: float = 2.0
) -> Iterator[tuple[Image.Image, list[Known]]]:
    """A frame for each of `times`, seconds, and the parts in it.

    Three lanes run at speeds of their own, a new part comes every so many seconds in each, and some cross all lanes;
    parts turn and swing, and are hidden by one another.
    """
    rng = np.random.default_rng(seed)
    wide, high = size
    parts: list[_Part] = []
    length = max(times, default=0.0)
    for lane in range(3):
        y, speed, start = high * (2 * lane + 1) / 6, float(rng.uniform(40, 110)) * scale / 2, -float(rng.uniform(0, 1))
        while start < length:
            parts.append(_made(rng, scale, np.array([-30.0 * scale - speed * start, y]), np.array([speed, 0.0])))
            start += every * float(rng.uniform(0.8, 1.6)) * 60 * scale / speed
    start = 1.0
    while start < length:  # across
        speed = float(rng.uniform(50, 90)) * scale / 2
        x = float(rng.uniform(0.25, 0.75)) * wide
        parts.append(_made(rng, scale, np.array([x, -30.0 * scale - speed * start]), np.array([0.0, speed])))
        start += float(rng.uniform(3, 5))
    side, other = rng.integers(90, 190, 3), rng.integers(90, 190, 3)
    ramp = np.linspace(0, 1, wide * FINE)[None, :, None]
    ground = np.broadcast_to(side + (other - side) * ramp, (high * FINE, wide * FINE, 3)).astype(np.uint8)
    blur, light, noise = rng.uniform(0.5, 2.0), rng.uniform(0.7, 1.1), rng.uniform(2, 7)
    for time in times:
        image = Image.fromarray(ground.copy())
        draw = ImageDraw.Draw(image)
        shown: list[Known] = []
        for number, part in enumerate(parts, 1):
            middle, corners, hole = part.at(time)
            (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
            if right <= 0 or bottom <= 0 or left >= wide or top >= high:
                continue
            draw_part(draw, corners, middle, hole, part.bright, part.tone, 1.0, side)
            cut = (max(0.0, left), max(0.0, top), min(float(wide), right), min(float(high), bottom))
            if _area(cut) >= _OUTSIDE * _area((left, top, right, bottom)):
                shown.append(Known(number, part.name, tuple(round(float(one), 2) for one in cut)))  # type: ignore[arg-type]
        soft = image.filter(ImageFilter.GaussianBlur(blur)).resize(size, Image.Resampling.BOX)
        pixels = np.asarray(soft, np.float32) * light + rng.normal(0, noise, (high, wide, 3))
        seen = [one for at, one in enumerate(shown) if not _hidden(one.box, [two.box for two in shown[at + 1 :]])]
        yield Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)), seen


def _made(rng: Any, scale: float, begin: np.ndarray, speed: np.ndarray) -> _Part:
    bright = int(rng.integers(40, 80)) if rng.random() < 0.5 else int(rng.integers(205, 245))
    return _Part(
        NAMES[rng.integers(3)], float(rng.uniform(10, 17)) * scale, begin, speed, float(rng.uniform(0, 4)) * scale,
        float(rng.uniform(0, 6.28)), float(rng.uniform(-0.6, 0.6)), bright, int(rng.integers(-25, 26)),
    )  # fmt: skip


def write_clip(file: Path, images: Sequence[Image.Image], times: Sequence[float], codec: str = "libvpx-vp9") -> Path:
    """A clip that shows each image from its time on; `codec` is one of PyAV's."""
    from fractions import Fraction

    import av

    with av.open(str(file), "w") as container:
        fast = {"deadline": "realtime", "cpu-used": "8", "crf": "20", "b": "0"} if codec.startswith("libvpx") else {}
        stream: Any = container.add_stream(codec, rate=30, options=fast)
        stream.width, stream.height = images[0].size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if codec == "mpeg4":
            stream.bit_rate = 2_000_000
        ticks = Fraction(1, 30 if codec == "mpeg4" else 90_000)
        stream.codec_context.time_base = ticks
        for image, time in zip(images, times, strict=True):
            frame = av.VideoFrame.from_image(image)
            frame.pts, frame.time_base = round(time / ticks), ticks
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file


def measures(truth: Sequence[Sequence[Known]], found: Sequence[Sequence[Known]]) -> dict[str, float]:
    """HOTA (J. Luiten et al., 2020) with its parts DetA and AssA, and IDF1 (E. Ristani et al., 2016), from 0 to 1, as
    TrackEval defines them; only objects of one class are alike."""
    from scipy.optimize import linear_sum_assignment

    ids, tracks = ({one.id for some in frames for one in some} for frames in (truth, found))
    row_of, column_of = ({name: at for at, name in enumerate(sorted(some))} for some in (ids, tracks))
    frames = [_alike(some, others, row_of, column_of) for some, others in zip(truth, found, strict=True)]
    shape_of = (len(ids), len(tracks))
    true, said = np.zeros(len(ids)), np.zeros(len(tracks))
    together, close = np.zeros(shape_of), np.zeros(shape_of)
    for rows, columns, alike in frames:
        true[rows] += 1
        said[columns] += 1
        both = alike.sum(axis=0)[None, :] + alike.sum(axis=1)[:, None] - alike
        together[np.ix_(rows, columns)] += np.divide(alike, both, out=np.zeros_like(alike), where=both > 0)
        close[np.ix_(rows, columns)] += alike >= 0.5
    right = close[linear_sum_assignment(close, maximize=True)].sum()
    idf1 = 2 * right / max(1.0, true.sum() + said.sum())
    aligned = together / np.maximum(true[:, None] + said[None, :] - together, 1e-12)
    alphas = np.arange(0.05, 0.99, 0.05)
    matched = np.zeros((len(alphas), *shape_of))
    for rows, columns, alike in frames:
        at, on = linear_sum_assignment(aligned[np.ix_(rows, columns)] * alike, maximize=True)
        for level, alpha in enumerate(alphas):
            good = alike[at, on] >= alpha - 1e-9
            matched[level, rows[at[good]], columns[on[good]]] += 1
    hits = matched.sum(axis=(1, 2))
    deta = hits / np.maximum(1, true.sum() + said.sum() - hits)
    kept = matched / np.maximum(1, true[None, :, None] + said[None, None, :] - matched)
    assa = (matched * kept).sum(axis=(1, 2)) / np.maximum(1, hits)
    return {
        "hota": float(np.sqrt(deta * assa).mean()),
        "deta": float(deta.mean()),
        "assa": float(assa.mean()),
        "idf1": float(idf1),
    }


def _alike(some: Sequence[Known], others: Sequence[Known], row_of: dict[int, int], column_of: dict[int, int]) -> Any:
    near = overlaps(np.array([one.box for one in some]), np.array([one.box for one in others]))
    near = near.reshape(len(some), len(others))
    other = np.array([[one.label != two.label for two in others] for one in some], bool).reshape(near.shape)
    rows = np.array([row_of[one.id] for one in some], int)
    return rows, np.array([column_of[one.id] for one in others], int), np.where(other, 0.0, near)


def _area(box: Sequence[float]) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def _hidden(box: Box, above: Sequence[Box]) -> bool:
    cut = [(max(box[0], one[0]), max(box[1], one[1]), min(box[2], one[2]), min(box[3], one[3])) for one in above]
    return any(_area(one) > _HIDDEN * _area(box) for one in cut)
