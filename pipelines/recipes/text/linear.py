"""Recipe `linear`: TF-IDF of words and word pairs (characters in Chinese) and a linear model, exported to ONNX."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic.dataclasses import dataclass

from pipelines.recipes.text.base import TextRecipe
from pipelines.task import STRICT, Progress
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
    """Fit on train and valid together, see `fit_terms`.

    Writes tokenizer.json, model.onnx, terms.npy and text.json to `out`; returns history and parameters.
    """
    import numpy as np
    import pandas as pd

    from pipelines.recipes.text.examples import joined_texts, label_numbers, write_spec
    from pipelines.training.onnx_text import write_linear_graph
    from pipelines.training.terms import fit_terms
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
    found = fit_terms(config.model, config.seed, texts, ids, labels, len(examples.classes), progress, unused=unused)
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
