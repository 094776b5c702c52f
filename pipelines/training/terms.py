"""A linear model of the terms of texts, with the probabilities that cross-validation gives it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from pipelines.task import Progress
from pipelines.training.linear_text import LinearConfig, LinearModel, choose, fit
from pipelines.training.ngrams import NgramVocabulary

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Fitted:
    """What `fit_terms` found: terms as in `NgramVocabulary`, logits that `factor` makes probabilities of."""

    terms: NDArray[np.int32]
    model: LinearModel
    factor: float
    history: list[dict[str, float]]
    parameters: dict[str, Any]


def fit_terms(
    config: LinearConfig,
    seed: int,
    texts: list[str],
    ids: list[list[int]],
    labels: NDArray[np.int64],
    classes: int,
    progress: Progress,
    *,
    unused: Collection[int],
    vectors: NDArray[np.float32] | None = None,
) -> Fitted:
    """A linear model of the terms of `ids` and of `vectors`; cross-validation chooses what `LinearConfig` leaves open.

    unused: ids that no term has, such as that of unknown words.
    """
    import numpy as np

    from pipelines.training.calibration import fit_temperature

    vocabulary = NgramVocabulary.learn(
        ids,
        longest=config.longest_ngram,
        min_documents=config.min_documents,
        max_terms=config.max_terms,
        unused=unused,
    )
    if not len(vocabulary.terms):
        raise PlatformError(
            "no term is frequent enough to learn from",
            detail=f"{len(texts)} texts; a term must be in {config.min_documents} of them",
            fix="give more texts, or --set model.min_documents=1",
            code="bad_data",
        )
    counts = vocabulary.count(ids)
    chosen, scores, history = choose(counts, labels, texts, classes, config, seed, progress, vectors)
    factor = fit_temperature(scores, labels)
    model = fit(counts, labels, classes, chosen, config, vectors)
    parameters = {**asdict(chosen), "temperature": 1 / factor, "terms": len(vocabulary.terms)}
    return Fitted(np.asarray(vocabulary.terms), model, factor, history, parameters)
