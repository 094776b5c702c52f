"""How long a model call of a given size takes, learned from the calls that were made."""

from __future__ import annotations

_KEEP = 0.97  # weight of what was known before: the last 33 calls count


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
