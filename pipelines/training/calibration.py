"""One temperature that makes probabilities honest; it never changes which class is likeliest."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def fit_temperature(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """The factor on the logits `scores`, shape (rows, classes), that minimises the log loss of `labels`."""
    import numpy as np
    from scipy.optimize import minimize_scalar

    def loss(log_factor: float) -> float:
        scaled = scores * np.exp(log_factor)
        peak = scaled.max(axis=1)
        total = peak + np.log(np.exp(scaled - peak[:, None]).sum(axis=1))
        return float((total - scaled[np.arange(len(labels)), labels]).mean())

    # Few rows that happen to be separable would ask for any factor; beyond e^4 nothing is gained.
    found = minimize_scalar(loss, bounds=(-3.0, 4.0), method="bounded")
    return float(np.exp(found.x))
