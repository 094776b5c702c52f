"""What happens in a video: objects enter and leave zones, and cross lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from contracts.video.settings import Point, VideoSettings
from contracts.video.tracker import Seen

Event = dict[str, Any]
_BESIDE = 1.0  # pixels beside a line, where an object is on neither side


@dataclass
class _Object:
    """What is known of one track: by zone whether it is inside, and how often in a row the contrary was seen; by line
    its last place beside it."""

    label: str
    inside: dict[str, bool] = field(default_factory=dict)
    contrary: dict[str, int] = field(default_factory=dict)
    beside: dict[str, Point] = field(default_factory=dict)


class Watch:
    """Of one stream: give each frame's objects to `look`.

    Attributes:
        counts: of each zone ``entered``, ``left`` and ``inside``; of each line ``forward`` and ``backward``. Forward is
            from the left side to the right side of who walks from the line's first point to its second, as an image
            shows it.
    """

    def __init__(self, settings: VideoSettings) -> None:
        self._settings = settings
        self._objects: dict[int, _Object] = {}
        self.counts: dict[str, dict[str, int]] = {
            **{name: {"entered": 0, "left": 0, "inside": 0} for name in settings.zones},
            **{name: {"forward": 0, "backward": 0} for name in settings.lines},
        }

    def look(self, seen: Sequence[Seen], ended: Sequence[int]) -> list[Event]:
        """The events of a frame: ``entered`` and ``left`` with the zone, ``crossed`` with line and direction, each with
        track and label. Of a track that `ended` within a zone it is said that it ``left``."""
        events: list[Event] = []
        for one in seen:
            if one.track is not None:
                known = self._objects.setdefault(one.track, _Object(one.label))
                known.label = one.label
                point = anchor_of(one.box, self._settings.anchor)
                events += self._zones(one.track, known, point) + self._lines(one.track, known, point)
        for track in ended:
            gone = self._objects.pop(track, None)
            if gone is not None:
                events += [self._moved(track, gone, name, False) for name, here in gone.inside.items() if here]
        return events

    def _zones(self, track: int, known: _Object, point: Point) -> list[Event]:
        events = []
        for name, corners in self._settings.zones.items():
            was, now = known.inside.get(name, False), within_polygon(point, corners)
            if was == now:
                known.contrary[name] = 0
                continue
            known.contrary[name] = known.contrary.get(name, 0) + 1
            if known.contrary[name] >= self._settings.steady:
                known.contrary[name] = 0
                events.append(self._moved(track, known, name, now))
        return events

    def _moved(self, track: int, known: _Object, zone: str, inside: bool) -> Event:
        known.inside[zone] = inside
        word = "entered" if inside else "left"
        self.counts[zone][word] += 1
        self.counts[zone]["inside"] += 1 if inside else -1
        return {"event": word, "zone": zone, "track": track, "label": known.label}

    def _lines(self, track: int, known: _Object, point: Point) -> list[Event]:
        events = []
        for name, (start, end) in self._settings.lines.items():
            side = _side(start, end, point)
            length = ((end[0] - start[0]) ** 2 + (end[1] - start[1]) ** 2) ** 0.5
            if abs(side) <= _BESIDE * length:
                continue  # on the line: wait for which side it comes out at
            before = known.beside.get(name)
            known.beside[name] = point
            if before is None or _side(start, end, before) * side > 0 or not _crosses(before, point, start, end):
                continue
            way = "forward" if side > 0 else "backward"
            self.counts[name][way] += 1
            events.append({"event": "crossed", "line": name, "direction": way, "track": track, "label": known.label})
        return events


def anchor_of(box: Sequence[float], kind: str) -> Point:
    """The point of a box that counts."""
    left, top, right, bottom = box
    return (left + right) / 2, bottom if kind == "bottom" else (top + bottom) / 2


def within_polygon(point: Point, corners: Sequence[Point]) -> bool:
    """Whether a point lies in a polygon, by how often a ray from it crosses its sides (even-odd rule)."""
    x, y = point
    inside = False
    before = corners[-1]
    for corner in corners:
        (x0, y0), (x1, y1) = before, corner
        if (y0 > y) != (y1 > y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0):
            inside = not inside
        before = corner
    return inside


def _side(start: Point, end: Point, point: Point) -> float:
    """Above 0 on the right side of who walks from start to end, with y downwards."""
    return (end[0] - start[0]) * (point[1] - start[1]) - (end[1] - start[1]) * (point[0] - start[0])


def _crosses(before: Point, now: Point, start: Point, end: Point) -> bool:
    """Whether the way from `before` to `now`, which lie on two sides of the endless line, meets the piece of it."""
    return _side(before, now, start) * _side(before, now, end) <= 0
