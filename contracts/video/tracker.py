"""Follows objects from frame to frame: each keeps one id while it is seen, and for a while when it is not.

Constant velocity and Kalman filters: A. Bewley et al.: Simple online and realtime tracking, 2016. Association of sure
detections first and of unsure ones with the objects that are left: Y. Zhang et al.: ByteTrack, 2022. Wider boxes for
what is still left, fast objects: F. Yang et al.: Hard to track objects with irregular motions (C-BIoU), 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from contracts.problems.detection import DetectionOutput, Detections, overlaps
from contracts.video.settings import TrackSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

STEPS = 30.0  # of the filter's clock in a second: the noise below is that of one step
_PLACE, _SPEED, _SPEED_AT_FIRST = 1 / 20, 1 / 160, 1 / 6  # standard deviations, of a box's sides
_LONGEST = 300.0  # steps that are predicted at once
_OTHER_CLASS = 0.7  # factor on the overlap with an object of another class
_UNSURE = 0.5  # least overlap of a detection that is not sure
_TENTATIVE = 0.3  # and of the second sight of an object
_WIDER = 0.3  # of its sides, by which a box grows on each side in the last try
_SAME = 0.85  # overlap of two tracks from which on they are one


@dataclass(slots=True)
class Track:
    """An object that is followed.

    Attributes:
        id: from 1 on, in the order in which objects were confirmed; 0 while it is not.
        time: seconds, when it was seen last.  hits: frames that showed it.  score: of its last detection.
        place, speed: middle and sides of its box, and what they change by in a step, shape (4,).
        spread: variance of place, covariance with speed, variance of speed, shape (3, 4).
        box: left, top, right, bottom as detected last.  votes: summed scores of each class.
    """

    place: Floats
    speed: Floats
    spread: Floats
    votes: Floats
    box: Floats
    score: float
    time: float
    id: int = 0
    hits: int = 1
    seen: bool = True

    @property
    def label(self) -> int:
        """The number of its class."""
        return int(self.votes.argmax())

    def expect(self, steps: float) -> None:
        """Move on by so many steps of the clock."""
        if not self.seen:
            self.speed[2:] = 0  # nobody knows whether it still grows
        noise = np.tile(np.maximum(self.place[2:], 1.0), 2)
        self.place += self.speed * steps
        self.place[2:] = np.maximum(self.place[2:], 1.0)
        self.spread[0] += steps * (2 * self.spread[1] + steps * self.spread[2]) + (_PLACE * noise) ** 2 * steps
        self.spread[1] += steps * self.spread[2]
        self.spread[2] += (_SPEED * noise) ** 2 * steps

    def correct(self, box: Floats, score: float, label: int, time: float) -> None:
        """Take a detection as where it is."""
        found = _middle(box)
        noise = (_PLACE * np.tile(np.maximum(found[2:], 1.0), 2)) ** 2
        gain = self.spread[:2] / (self.spread[0] + noise)
        surprise = found - self.place
        self.place += gain[0] * surprise
        self.speed += gain[1] * surprise
        self.spread[2] -= gain[1] * self.spread[1]
        self.spread[:2] *= 1 - gain[0]
        self.votes[label] += score
        self.box, self.score, self.time, self.seen = box, score, time, True
        self.hits += 1


@dataclass(frozen=True, slots=True)
class Seen:
    """An object of one frame; `track` is None before it is confirmed."""

    label: str
    score: float
    box: tuple[float, float, float, float]
    track: int | None


@dataclass
class Tracker:
    """Of one stream of frames; give each to `step`, in order.

    Attributes:
        tracks: objects that are followed now.  count: of each class, the objects that got an id.
    """

    output: DetectionOutput
    settings: TrackSettings
    tracks: list[Track] = field(default_factory=list)
    ended: list[Track] = field(default_factory=list)
    count: int = 0
    _time: float | None = None

    def step(self, time: float, found: Detections) -> list[Seen]:
        """The objects of the frame at `time` (seconds, later than the one before), the surest first.

        What is answered reaches the threshold of its class, or is an object that is known. `ended` then has the tracks
        that were given up.
        """
        first, steps = self._time is None, 0.0
        if self._time is not None:
            steps = min(max(0.0, time - self._time) * STEPS, _LONGEST)
        self._time = time
        found = single(found, self.settings.same)
        for track in self.tracks:
            track.expect(steps)
        least = np.array(self.output.thresholds)[found.classes]
        sure = np.flatnonzero(found.scores >= least)
        unsure = np.flatnonzero((found.scores < least) & (found.scores >= self.settings.low * least))
        known = [one for one in self.tracks if one.id]
        tentative = [one for one in self.tracks if not one.id]
        made: dict[int, Track] = {}
        left, sure = self._match(known, sure, found, self.settings.overlap, time, made)
        recent, old = [one for one in left if one.seen], [one for one in left if not one.seen]
        recent, _ = self._match(recent, unsure, found, _UNSURE, time, made)
        tentative, sure = self._match(tentative, sure, found, _TENTATIVE, time, made)
        left, sure = self._match([*recent, *old, *tentative], sure, found, self.settings.overlap, time, made, _WIDER)
        for at in sure:
            made[int(at)] = self._begin(found, int(at), time)
        for track in left:
            track.seen = False
        self._confirm(made, first)
        self._give_up(time)
        return [self._answer(found, at, made[at]) for at in sorted(made, key=lambda at: -found.scores[at])]

    def wait(self, seconds: float) -> None:
        """Let the clock stand for a time in which nothing was looked at since nothing changed."""
        if self._time is not None:
            self._time += seconds
            for track in self.tracks:
                track.time += seconds

    def label(self, track: Track) -> str:
        """The class of a track."""
        return self.output.labels[track.label]

    def _match(
        self,
        tracks: list[Track],
        places: NDArray[np.int64],
        found: Detections,
        least: float,
        time: float,
        made: dict[int, Track],
        wider: float = 0.0,
    ) -> tuple[list[Track], NDArray[np.int64]]:
        """Give detections to tracks, as many and as near as possible; what is left of both."""
        if not tracks or not len(places):
            return tracks, places
        expected = np.stack([_corners(one.place) for one in tracks])
        near = overlaps(_grown(expected, wider), _grown(found.boxes[places], wider))
        other = np.array([one.label for one in tracks])[:, None] != found.classes[places][None, :]
        near = np.where(other, near * _OTHER_CLASS, near)
        pairs = assign(near, least)
        for row, column in pairs:
            at = int(places[column])
            tracks[row].correct(found.boxes[at].copy(), float(found.scores[at]), int(found.classes[at]), time)
            made[at] = tracks[row]
        rows, columns = {row for row, _ in pairs}, [column for _, column in pairs]
        return [one for row, one in enumerate(tracks) if row not in rows], np.delete(places, columns)

    def _begin(self, found: Detections, at: int, time: float) -> Track:
        place = _middle(found.boxes[at])
        sides = np.tile(np.maximum(place[2:], 1.0), 2)
        spread = np.stack([(2 * _PLACE * sides) ** 2, np.zeros(4), (_SPEED_AT_FIRST * sides) ** 2])
        votes = np.zeros(len(self.output.labels))
        votes[found.classes[at]] = found.scores[at]
        made = Track(place, np.zeros(4), spread, votes, found.boxes[at].copy(), float(found.scores[at]), time)
        self.tracks.append(made)
        return made

    def _confirm(self, made: dict[int, Track], first: bool) -> None:
        for track in made.values():
            if not track.id and (first or track.hits >= self.settings.confirm):
                self.count += 1
                track.id = self.count

    def _give_up(self, time: float) -> None:
        kept, self.ended = [], []
        doubles = self._doubles()
        for track in self.tracks:
            gone = not track.seen and (not track.id or time - track.time > self.settings.patience)
            if gone or id(track) in doubles:
                if track.id:
                    self.ended.append(track)
            else:
                kept.append(track)
        self.tracks = kept

    def _doubles(self) -> set[int]:
        """Tracks that are not seen, and are expected where one is that is."""
        lost, seen = [one for one in self.tracks if not one.seen], [one for one in self.tracks if one.seen]
        if not lost or not seen:
            return set()
        both = overlaps(*(np.stack([_corners(one.place) for one in some]) for some in (lost, seen)))
        older = np.array([[one.hits < other.hits for other in seen] for one in lost])
        return {id(lost[row]) for row in np.flatnonzero(((both > _SAME) & older).any(axis=1))}

    def _answer(self, found: Detections, at: int, track: Track) -> Seen:
        left, top, right, bottom = (round(float(side), 2) for side in found.boxes[at])
        label = track.label if track.id else int(found.classes[at])
        return Seen(self.output.labels[label], float(found.scores[at]), (left, top, right, bottom), track.id or None)


def single(found: Detections, same: float) -> Detections:
    """Without the boxes that overlap a better one by more than `same`, of whatever class."""
    order = np.argsort(-found.scores, kind="stable")
    near = overlaps(found.boxes, found.boxes) > same
    kept: list[int] = []
    for at in order:
        if not near[at, kept].any():
            kept.append(int(at))
    return Detections(found.boxes[kept], found.scores[kept], found.classes[kept])


def assign(near: Floats, least: float) -> list[tuple[int, int]]:
    """Pairs of rows and columns, each once, with the largest sum of those values that reach `least`."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(np.where(near >= least, near, 0.0), maximize=True)
    return [(int(row), int(column)) for row, column in zip(rows, columns, strict=True) if near[row, column] >= least]


def _middle(box: Sequence[float] | Floats) -> Floats:
    left, top, right, bottom = (float(side) for side in box)
    return np.array([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top])


def _corners(place: Floats) -> Floats:
    half = place[2:] / 2
    return np.concatenate([place[:2] - half, place[:2] + half])


def _grown(boxes: Floats, share: float) -> Floats:
    if not share:
        return boxes
    more = (boxes[:, 2:] - boxes[:, :2]) * share
    return np.concatenate([boxes[:, :2] - more, boxes[:, 2:] + more], axis=1)
