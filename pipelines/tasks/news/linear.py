"""Recipe `linear`: TF-IDF of words and word pairs (characters in Chinese) and a linear model, exported to ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from pipelines.tasks.base import Progress
from pipelines.tasks.news.export import joined_texts, label_numbers, write_spec

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.tasks.news.config import LinearNews


def train_linear(
    train: pd.DataFrame, valid: pd.DataFrame, classes: list[str], config: LinearNews, out: Path, progress: Progress
) -> dict[str, Any]:
    """Fit on train and valid together: cross-validation over both chooses the strength and the temperature.

    Writes tokenizer.json, model.onnx, terms.npy and text.json to `out`; returns history and parameters.
    """
    import numpy as np
    import pandas as pd

    from pipelines.training import linear_text
    from pipelines.training.calibration import fit_temperature
    from pipelines.training.ngrams import NgramVocabulary
    from pipelines.training.onnx_text import write_linear_graph
    from pipelines.training.tokens import UNKNOWN_ID, tokenise, train_tokenizer

    rows = pd.concat([train, valid], ignore_index=True)
    texts, labels = joined_texts(rows, config.text.max_characters), label_numbers(rows, classes)
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
            detail=f"{len(texts)} articles; a term must be in {config.model.min_documents} of them",
            fix="give more articles, or --set model.min_documents=1",
            code="bad_data",
        )
    counts = vocabulary.count(ids)
    strength, scores, history = linear_text.choose(
        counts, labels, texts, len(classes), config.model, config.seed, progress
    )
    factor = fit_temperature(scores, labels)
    model = linear_text.fit(counts, labels, len(classes), strength, config.model)
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
