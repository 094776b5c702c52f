"""Several labels of a text: a logistic regression of its terms for each, with the threshold of its best F1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.task import Progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MOST = 1e-6  # a probability is no nearer to 0 or 1 in the loss


@dataclass(frozen=True, kw_only=True)
class LabelsModel:
    """weights: shape (terms, labels); bias, thresholds: shape (labels,); losses: of the validation rows by strength."""

    weights: NDArray[np.float64]
    bias: NDArray[np.float64]
    thresholds: list[float]
    strength: float
    history: list[dict[str, float]]


def fit_text_labels(
    train: Any,
    valid: Any,
    y_train: NDArray[np.bool_],
    y_valid: NDArray[np.bool_],
    strengths: Sequence[float],
    progress: Progress,
) -> LabelsModel:
    """Fit on TF-IDF, shape (rows, terms), and labels, shape (rows, labels), which no label has everywhere or nowhere.

    The strength is that of the least log loss on the validation rows, and thresholds are chosen there too.
    """
    import numpy as np

    from pipelines.training.labels import best_threshold

    history: list[dict[str, float]] = []
    best: tuple[float, float, Any] | None = None
    for done, strength in enumerate(strengths):
        weights, bias = _fit(train, y_train, strength)
        said = np.clip(1 / (1 + np.exp(-(valid @ weights + bias))), _MOST, 1 - _MOST)
        loss = float(-np.where(y_valid, np.log(said), np.log(1 - said)).mean())
        history.append({"strength": strength, "valid_loss": loss})
        progress(done + 1, len(strengths), valid_loss=loss, strength=strength)
        if best is None or loss < best[0]:
            best = (loss, strength, (weights, bias, said))
    assert best is not None  # a configuration has a strength
    weights, bias, said = best[2]
    limits = [best_threshold(said[:, at], y_valid[:, at]) for at in range(y_valid.shape[1])]
    return LabelsModel(weights=weights, bias=bias, thresholds=limits, strength=best[1], history=history)


def _fit(features: Any, labels: NDArray[np.bool_], strength: float) -> tuple[Any, Any]:
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    weights, bias = np.zeros((features.shape[1], labels.shape[1])), np.zeros(labels.shape[1])
    for at in range(labels.shape[1]):
        model = LogisticRegression(C=strength, solver="liblinear", random_state=0, max_iter=300)
        model.fit(features, labels[:, at])
        weights[:, at], bias[at] = model.coef_[0], model.intercept_[0]
    return weights, bias
