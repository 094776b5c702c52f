"""Recipe `linear`: TF-IDF of words and word pairs (characters in Chinese) and a linear model, exported to ONNX."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic.dataclasses import dataclass

from contracts.errors import PlatformError
from pipelines.recipes.text.base import TextRecipe
from pipelines.tasks.base import STRICT, Progress
from pipelines.training.linear_text import LinearConfig

if TYPE_CHECKING:
    from pipelines.recipes.text.examples import Examples


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LinearText(TextRecipe):
    """TF-IDF and a linear model."""

    model: LinearConfig = field(default_factory=LinearConfig)

    def learn(self, examples: Examples, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """See `train_linear`; nothing is kept between, since it takes seconds."""
        return train_linear(examples, self, out, progress)


def train_linear(examples: Examples, config: LinearText, out: Path, progress: Progress) -> dict[str, Any]:
    """Fit on train and valid together: cross-validation over both chooses the strength and the temperature.

    Writes tokenizer.json, model.onnx, terms.npy and text.json to `out`; returns history and parameters.
    """
    import numpy as np
    import pandas as pd

    from pipelines.recipes.text.examples import joined_texts, label_numbers, write_spec
    from pipelines.training import linear_text
    from pipelines.training.calibration import fit_temperature
    from pipelines.training.ngrams import NgramVocabulary
    from pipelines.training.onnx_text import write_linear_graph
    from pipelines.training.tokens import UNKNOWN_ID, tokenise, train_tokenizer

    rows = pd.concat([examples.train, examples.valid], ignore_index=True)
    classes = len(examples.classes)
    texts = joined_texts(rows, examples.fields, config.text.max_characters)
    labels = label_numbers(rows, examples.classes)
    tokenizer = train_tokenizer(
        texts,
        unit=config.text.unit,
        vocabulary=config.text.vocabulary,
        min_frequency=config.text.min_frequency,
        boundaries=True,
    )
    ids = tokenise(tokenizer, texts, config.text.max_tokens)
    vocabulary = NgramVocabulary.learn(
        ids,
        longest=config.model.longest_ngram,
        min_documents=config.model.min_documents,
        max_terms=config.model.max_terms,
        skip_below=UNKNOWN_ID + 1,
    )
    if not len(vocabulary.terms):
        raise PlatformError(
            "no term is frequent enough to learn from",
            detail=f"{len(texts)} texts; a term must be in {config.model.min_documents} of them",
            fix="give more texts, or --set model.min_documents=1",
            code="bad_data",
        )
    counts = vocabulary.count(ids)
    strength, scores, history = linear_text.choose(counts, labels, texts, classes, config.model, config.seed, progress)
    factor = fit_temperature(scores, labels)
    model = linear_text.fit(counts, labels, classes, strength, config.model)
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    np.save(out / "terms.npy", vocabulary.terms, allow_pickle=False)
    write_linear_graph(
        out / "model.onnx",
        terms=vocabulary.terms,
        idf=model.idf,
        weights=model.weights * factor,
        bias=model.bias * factor,
    )
    write_spec(out, config.text, explain="terms", per_row=6 * len(vocabulary.terms), per_token=2)
    parameters = {"strength": strength, "temperature": 1 / factor, "terms": len(vocabulary.terms)}
    return {"history": history, "parameters": parameters, "device": "cpu"}
