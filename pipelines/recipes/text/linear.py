"""Recipe `linear`: TF-IDF of words and word pairs (characters in Chinese) and a linear model, exported to ONNX."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass as plain_dataclass
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic.dataclasses import dataclass

from contracts.errors import PlatformError
from pipelines.recipes.text.base import TextRecipe
from pipelines.task import STRICT, Progress
from pipelines.training.linear_text import LinearConfig

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipelines.recipes.text.encoder import EncoderText
    from pipelines.recipes.text.examples import Examples
    from pipelines.training.linear_text import LinearModel


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LinearText(TextRecipe):
    """TF-IDF and a linear model."""

    model: LinearConfig = field(default_factory=LinearConfig)

    def learn(self, examples: Examples, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """See `train_linear`; nothing is kept between, since it takes seconds."""
        return train_linear(examples, self, out, progress)


@plain_dataclass(frozen=True)
class Fitted:
    """What `fit_terms` found: terms as in `NgramVocabulary`, logits that `factor` makes probabilities of."""

    terms: NDArray[np.int32]
    model: LinearModel
    factor: float
    history: list[dict[str, float]]
    parameters: dict[str, Any]


def fit_terms(
    config: LinearText | EncoderText,
    texts: list[str],
    ids: list[list[int]],
    labels: NDArray[np.int64],
    classes: int,
    progress: Progress,
    *,
    unused: Collection[int],
    vectors: NDArray[np.float32] | None = None,
) -> Fitted:
    """A linear model of the terms of `ids` and of `vectors`; cross-validation chooses strength and temperature.

    unused: ids that no term has, such as that of unknown words.
    """
    import numpy as np

    from pipelines.training import linear_text
    from pipelines.training.calibration import fit_temperature
    from pipelines.training.ngrams import NgramVocabulary

    vocabulary = NgramVocabulary.learn(
        ids,
        longest=config.model.longest_ngram,
        min_documents=config.model.min_documents,
        max_terms=config.model.max_terms,
        unused=unused,
    )
    if not len(vocabulary.terms):
        raise PlatformError(
            "no term is frequent enough to learn from",
            detail=f"{len(texts)} texts; a term must be in {config.model.min_documents} of them",
            fix="give more texts, or --set model.min_documents=1",
            code="bad_data",
        )
    counts = vocabulary.count(ids)
    strength, scores, history = linear_text.choose(
        counts, labels, texts, classes, config.model, config.seed, progress, vectors
    )
    factor = fit_temperature(scores, labels)
    model = linear_text.fit(counts, labels, classes, strength, config.model, vectors)
    parameters = {"strength": strength, "temperature": 1 / factor, "terms": len(vocabulary.terms)}
    return Fitted(np.asarray(vocabulary.terms), model, factor, history, parameters)


def train_linear(examples: Examples, config: LinearText, out: Path, progress: Progress) -> dict[str, Any]:
    """Fit on train and valid together, see `fit_terms`.

    Writes tokenizer.json, model.onnx, terms.npy and text.json to `out`; returns history and parameters.
    """
    import numpy as np
    import pandas as pd

    from pipelines.recipes.text.examples import joined_texts, label_numbers, write_spec
    from pipelines.training.onnx_text import write_linear_graph
    from pipelines.training.tokens import PAD_ID, UNKNOWN_ID, tokenise, train_tokenizer

    rows = pd.concat([examples.train, examples.valid], ignore_index=True)
    texts = joined_texts(rows, examples.fields, config.text.max_characters)
    tokenizer = train_tokenizer(
        texts,
        unit=config.text.unit,
        vocabulary=config.text.vocabulary,
        min_frequency=config.text.min_frequency,
        boundaries=True,
    )
    ids = tokenise(tokenizer, texts, config.text.max_tokens)
    labels = label_numbers(rows, examples.classes)
    unused = (PAD_ID, UNKNOWN_ID)
    found = fit_terms(config, texts, ids, labels, len(examples.classes), progress, unused=unused)
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    np.save(out / "terms.npy", found.terms, allow_pickle=False)
    write_linear_graph(
        out / "model.onnx",
        terms=found.terms,
        idf=found.model.idf,
        weights=found.model.weights * found.factor,
        bias=found.model.bias * found.factor,
    )
    write_spec(out, config.text, explain="terms", per_row=6 * len(found.terms), per_token=2)
    return {"history": found.history, "parameters": found.parameters, "device": "cpu"}
