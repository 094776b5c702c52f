"""How long a model call of a given size takes, learned from the calls that were made."""

from __future__ import annotations

import math

_KEEP = 0.97  # weight of what was known before: the last 33 calls count
_FORGET = 16  # calls after which a shortest one is nearly forgotten
_PATIENCE = (32, 4096)  # calls on threads that look short before one is tried in place; doubles with each failure


class CallTime:
    """The line ``seconds = start + each * size``, fitted by least squares with forgetting; neither part is negative."""

    def __init__(self) -> None:
        self.start = self.each = 0.0
        self._weight = self._x = self._y = self._xx = self._xy = 0.0

    @property
    def known(self) -> bool:
        """Whether a call was seen."""
        return self._weight > 0

    def __call__(self, size: float) -> float:
        """The expected seconds of a call of `size`."""
        return self.start + self.each * size

    def saw(self, size: float, seconds: float) -> None:
        """Learn from one call."""
        if self._weight > 5:  # one pause of the machine is no property of the model
            seconds = min(seconds, 5 * self(size) + 0.001)
        self._weight = _KEEP * self._weight + 1
        self._x = _KEEP * self._x + size
        self._y = _KEEP * self._y + seconds
        self._xx = _KEEP * self._xx + size * size
        self._xy = _KEEP * self._xy + size * seconds
        mean_x, mean_y = self._x / self._weight, self._y / self._weight
        spread = self._xx / self._weight - mean_x * mean_x
        slope = (self._xy / self._weight - mean_x * mean_y) / spread if spread > 1e-6 * mean_x * mean_x else 0.0
        # Calls of one size only: all of it may be the fixed part, which is the careful guess for small queues.
        self.each = min(max(slope, 0.0), mean_y / mean_x if mean_x else 0.0)
        self.start = max(mean_y - self.each * mean_x, 0.0)


class ShortCalls:
    """Which calls take less than `limit` seconds, so that a hop to a thread would cost more than it gives.

    Decided by the shortest of the recent calls of a size: a pause of the machine, a cold start or a wait for the
    interpreter makes some calls long that are not. Calls on threads wait for the interpreter whenever the loop is busy,
    perhaps all of them; when their own processor time is short, one is tried in place now and then.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._shortest: dict[int, float] = {}  # by the size's number of bits
        self._hints, self._patience = 0, _PATIENCE[0]

    def __call__(self, size: float) -> bool:
        """Whether a call of `size` is to be made in place."""
        at = int(size).bit_length()
        shortest = self._shortest.get(at)
        if shortest is None:
            shortest = self._guess(at)
        if shortest < self._limit:
            return True
        if self._hints < self._patience:
            return False
        self._hints, self._patience = 0, min(self._patience * 2, _PATIENCE[1])
        return True

    def _guess(self, at: int) -> float:
        """At most what a larger call took, and what a smaller one took times how much smaller it was."""
        known = self._shortest
        above = min((size for size in known if size > at), default=None)
        below = max((size for size in known if size < at), default=None)
        guesses = [] if above is None else [known[above]]
        if below is not None:
            guesses.append(known[below] * 2.0 ** (at - below))
        return min(guesses, default=math.inf)

    def saw(self, size: float, seconds: float) -> None:
        """Learn from a call in place."""
        at = int(size).bit_length()
        shortest = self._shortest.get(at, math.inf)
        if seconds <= shortest:
            self._shortest[at] = seconds
            if seconds < self._limit:
                self._patience = _PATIENCE[0]
        else:
            self._shortest[at] = shortest + (seconds - shortest) / _FORGET

    def saw_on_thread(self, size: float, seconds: float, processor: float) -> None:
        """Learn from a call on a thread that used the processor for `processor` of its seconds."""
        self.saw(size, seconds)
        # What waits for long is no short call that was held up, but one that waits for something else.
        if processor < self._limit <= seconds < 20 * self._limit:
            self._hints += 1


class Learned:
    """What was learned about calls of one kind."""

    __slots__ = ("short", "times")

    def __init__(self, inline: float) -> None:
        self.times, self.short = CallTime(), ShortCalls(inline)
