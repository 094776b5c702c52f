"""One stream of frames: which are looked at, which are dropped, what is said of each, and what it was in all."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from contracts.errors import PlatformError
from contracts.problems.detection import DetectionOutput, Detections
from contracts.video.events import Watch
from contracts.video.settings import VideoSettings
from contracts.video.tracker import Tracker

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

F = TypeVar("F")
_CELLS = 32
_PLACES = 4


class Sampler:
    """Chooses frames by time and by change, see `VideoSettings.rate` and `change`."""

    def __init__(self, settings: VideoSettings) -> None:
        self._rate, self._change = settings.rate, settings.change
        self._next = -float("inf")
        self._last: NDArray[np.int16] | None = None

    def due(self, time: float) -> bool:
        """Whether enough time has passed since the frame that was taken last."""
        if not self._rate:
            return True
        if time + 1e-9 < self._next:
            return False
        step = 1 / self._rate
        # The grid of moments stays, so that 25 frames a second give 10; after a gap it begins anew.
        self._next = self._next + step if time - self._next < step else time + step
        return True

    def changed(self, image: Image.Image) -> bool:
        """Whether a cell of the image is lighter or darker than in the image for which this was true last."""
        if not self._change:
            return True
        small = np.asarray(image.convert("L").resize((_CELLS, _CELLS), 4), np.int16)  # 4: the mean of a box
        if self._last is not None and int(np.abs(small - self._last).max()) < self._change * 255:
            return False
        self._last = small
        return True


@dataclass
class Following:
    """Follows the objects of one stream and says what is in each frame.

    Attributes:
        frames: that were looked at.
    """

    output: DetectionOutput
    settings: VideoSettings
    frames: int = 0
    labels: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._tracker, self._watch = Tracker(self.output, self.settings.track), Watch(self.settings)
        self._known: dict[int, str] = {}

    @property
    def tracks(self) -> dict[str, int]:
        """Of each class, how many objects there were."""
        return dict(sorted((self.labels + Counter(self._known.values())).items()))

    @property
    def count(self) -> int:
        """How many objects got an id."""
        return self._tracker.count

    def frame(self, time: float, found: Detections) -> dict[str, Any]:
        """The objects of the frame at `time`, seconds, with their tracks, and the events in it."""
        seen = self._tracker.step(time, found)
        self.frames += 1
        for track in self._tracker.tracks:
            if track.id:
                self._known[track.id] = self._tracker.label(track)
        ended = [track.id for track in self._tracker.ended]
        for one in ended:
            self.labels[self._known.pop(one)] += 1
        objects = [
            {"label": one.label, "score": round(one.score, _PLACES), "box": list(one.box), "track": one.track}
            for one in seen
        ]
        return {"time": round(time, 6), "objects": objects, "events": self._watch.look(seen, ended)}

    def still(self, seconds: float) -> None:
        """Nothing changed for so long, and nothing was looked at."""
        self._tracker.wait(seconds)

    def totals(self) -> dict[str, Any]:
        """Frames that were looked at, objects by class, and the counts of zones and lines."""
        return {"frames": self.frames, "tracks": self.tracks, "counts": self._watch.counts}


class FrameQueue(Generic[F]):
    """Frames that wait, at most so many; one more takes the place of the oldest, which is dropped and counted."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: deque[tuple[F, int]] = deque()
        self._lately = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether one more would cost one."""
        return len(self._waiting) >= self._most

    def put(self, frame: F) -> None:
        """Add a frame."""
        if self.full:
            _, before = self._waiting.popleft()
            self.dropped += 1
            if self._waiting:
                following, lost = self._waiting[0]
                self._waiting[0] = (following, lost + before + 1)
            else:
                self._lately += before + 1
        self._waiting.append((frame, self._lately))
        self._lately = 0

    def take(self) -> tuple[F, int]:
        """The oldest frame, and how many were dropped between the one before and it."""
        return self._waiting.popleft()


def check_places(settings: VideoSettings, width: int, height: int) -> None:
    """Refuse zones and lines that no frame of this size shows.

    Raises:
        PlatformError: ``code="bad_config"``.
    """
    places: Mapping[str, Any] = {**settings.zones, **settings.lines}
    for name, points in places.items():
        (left, top), (right, bottom) = np.min(points, axis=0), np.max(points, axis=0)
        if right < 0 or bottom < 0 or left > width or top > height:
            raise PlatformError(
                f"{name!r} lies outside the frames",
                detail=f"they have {width}x{height} pixels; it reaches from {left:g}, {top:g} to {right:g}, {bottom:g}",
                fix="give its points in pixels of the frame, from the upper left corner",
                code="bad_config",
            )
