"""A linear classifier of n-grams: TF-IDF weighted by how much a term favours a class, then a linear SVM per class.

Scaling every term by the (dampened) log-ratio of naive Bayes before the SVM is known as NB-SVM; it is worth about one
point of accuracy on short news. What is served is a plain linear model: ratio times weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from dataclasses import dataclass as plain_dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from pipelines.search_space import Dimension
from pipelines.task import STRICT, Progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LinearConfig:
    """What is fitted.

    strengths: candidates for the SVM's C; cross-validation on the training data in `folds` chooses.
    ratio_powers: candidates for the dampening of the naive Bayes ratio, chosen after the strength; 0 turns it off.
    ratio_smoothing: added to every count of that ratio.
    class_weights: count every class alike, however frequent.
    """

    longest_ngram: int = 2
    min_documents: int = 2
    max_terms: int = 200_000
    strengths: tuple[float, ...] = Field(default=(0.1, 0.3, 0.6, 1.2), min_length=1)
    folds: int = 5
    ratio_smoothing: float = 0.3
    ratio_powers: tuple[float, ...] = Field(default=(0.5,), min_length=1)
    class_weights: bool = True

    # The SVM's C is not searched: every training chooses it of `strengths`.
    SPACE: ClassVar[Mapping[str, Dimension]] = {
        "longest_ngram": Dimension(low=1, high=3),
        "min_documents": Dimension(low=1, high=5),
        "class_weights": Dimension(choices=(True, False)),
        "ratio_powers": Dimension(choices=((0.0,), (0.25,), (0.5,), (1.0,))),
        "ratio_smoothing": Dimension(low=0.03, high=3.0, log=True, when={"ratio_powers": ((0.25,), (0.5,), (1.0,))}),
    }


@plain_dataclass(frozen=True)
class Chosen:
    """What cross-validation chose of the candidates of a `LinearConfig`."""

    strength: float
    ratio_power: float


@plain_dataclass(frozen=True)
class LinearModel:
    """idf: shape (terms,); weights: (terms + width, classes); bias: (classes,). Scores are logits without temperature.

    width: of the vectors beside the terms, if there are any.
    """

    idf: NDArray[np.float64]
    weights: NDArray[np.float64]
    bias: NDArray[np.float64]

    def scores(self, counts: Any, vectors: NDArray[np.float32] | None = None) -> NDArray[np.float64]:
        """Logits, shape (rows, classes), of counts as `NgramVocabulary.count` gives them, and of vectors."""
        logits: NDArray[np.float64] = _beside(tfidf(counts, self.idf), vectors) @ self.weights + self.bias
        return logits


def tfidf(counts: Any, idf: NDArray[np.float64]) -> Any:
    """(1 + ln count) idf, rows scaled to length one; a sparse matrix of float64."""
    import numpy as np
    from scipy import sparse

    values = counts.astype(np.float64)
    values.data = 1 + np.log(values.data)
    values = values.multiply(idf).tocsr()
    norm = np.sqrt(np.asarray(values.multiply(values).sum(axis=1)).ravel())
    return (sparse.diags(1 / np.maximum(norm, 1e-12)) @ values).tocsr()


def _beside(terms: Any, vectors: NDArray[np.float32] | None) -> Any:
    """A sparse matrix of the terms and, to their right, the vectors."""
    from scipy import sparse

    return terms if vectors is None else sparse.hstack([terms, sparse.csr_matrix(vectors)], format="csr")


def fit(
    counts: Any,
    labels: NDArray[np.int64],
    classes: int,
    chosen: Chosen,
    config: LinearConfig,
    vectors: NDArray[np.float32] | None = None,
) -> LinearModel:
    """Fit on term counts, shape (rows, terms), and class numbers, shape (rows,). Deterministic.

    vectors: shape (rows, width), of length one; they are features beside the terms, and no ratio scales them.
    """
    import numpy as np
    from sklearn.svm import LinearSVC

    from pipelines.training.hinge import fit_hinge

    documents = np.asarray((counts > 0).sum(axis=0)).ravel()
    idf = np.log((1 + counts.shape[0]) / (1 + documents)) + 1
    features = tfidf(counts, idf)
    row_weight = class_weight(labels, classes)[labels] if config.class_weights else np.ones(len(labels))
    there = np.flatnonzero(np.bincount(labels, minlength=classes))  # a fold may miss a rare class
    scales = np.stack(
        [_ratio(counts > 0, labels == at, config.ratio_smoothing) ** chosen.ratio_power for at in there], axis=1
    )
    width = 0 if vectors is None else vectors.shape[1]
    weights, bias = np.zeros((counts.shape[1] + width, classes)), np.full(classes, -1.0)
    if vectors is None:
        for at, scale in zip(there, scales.T, strict=True):
            model = LinearSVC(C=chosen.strength, random_state=0, max_iter=3000)
            model.fit(features.multiply(scale).tocsr(), labels == at, sample_weight=row_weight)
            weights[:, at], bias[at] = model.coef_[0] * scale, model.intercept_[0]
    else:
        signs = np.where(labels[:, None] == there, 1.0, -1.0)
        weights[:, there], bias[there] = fit_hinge(features, scales, vectors, signs, row_weight, chosen.strength)
    # Softmax ignores what all classes share; without it a term's weight is for its class against the average one.
    return LinearModel(idf, weights - weights.mean(axis=1, keepdims=True), bias - bias.mean())


def class_weight(labels: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Weight of a row by its class, so that classes count alike and the mean over rows is 1; shape (classes,)."""
    import numpy as np

    count = np.bincount(labels, minlength=classes)
    return len(labels) / (max(int((count > 0).sum()), 1) * np.maximum(count, 1))


def _ratio(present: Any, inside: NDArray[np.bool_], smoothing: float) -> NDArray[np.float64]:
    """How much each term favours a class, or what is outside of it."""
    import numpy as np

    share = []
    for rows in (present[inside], present[~inside]):
        count = np.asarray(rows.sum(axis=0)).ravel() + smoothing
        share.append(np.log(count / count.sum()))
    ratio: NDArray[np.float64] = np.abs(share[0] - share[1])
    return ratio


def choose(
    counts: Any,
    labels: NDArray[np.int64],
    groups: Sequence[str],
    classes: int,
    config: LinearConfig,
    seed: int,
    progress: Progress,
    vectors: NDArray[np.float32] | None = None,
) -> tuple[Chosen, NDArray[np.float64], list[dict[str, float]]]:
    """Cross-validate every strength with the first ratio power, then the other powers with the best strength.

    Rows of one group (the same text) stay in one fold.

    Returns:
        The best of them, its out-of-fold logits, shape (rows, classes), and the accuracy of each.
    """
    import numpy as np
    from sklearn.model_selection import StratifiedGroupKFold

    folds = max(2, min(config.folds, int(np.bincount(labels, minlength=classes).min())))
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    parts = list(splitter.split(counts, labels, np.asarray(groups)))
    total = len(config.strengths) + len(config.ratio_powers) - 1
    history: list[dict[str, float]] = []
    first = config.ratio_powers[0]
    best = (-1.0, Chosen(config.strengths[0], first), np.zeros((len(labels), classes)))

    def attempt(chosen: Chosen) -> None:
        nonlocal best
        scores = np.zeros((len(labels), classes))
        for train, held in parts:
            known, other = (None, None) if vectors is None else (vectors[train], vectors[held])
            model = fit(counts[train], labels[train], classes, chosen, config, known)
            scores[held] = model.scores(counts[held], other)
        accuracy = float((scores.argmax(axis=1) == labels).mean())
        history.append({**asdict(chosen), "accuracy": accuracy})
        progress(len(history), total, cv_accuracy=accuracy, **asdict(chosen))
        if accuracy > best[0]:
            best = (accuracy, chosen, scores)

    for strength in config.strengths:
        attempt(Chosen(strength, first))
    for power in config.ratio_powers[1:]:
        attempt(Chosen(best[1].strength, power))
    return best[1], best[2], history
