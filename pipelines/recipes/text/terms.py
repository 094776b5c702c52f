"""Terms of texts for recipes that are linear in them: a tokenizer, the n-grams that count and their weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic.dataclasses import dataclass

from contracts.errors import PlatformError
from pipelines.search_space import Dimension
from pipelines.task import STRICT

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.recipes.text.settings import TextConfig, TextTaskConfig
    from pipelines.task import Task
    from pipelines.training.ngrams import NgramVocabulary
    from pipelines.training.onnx_terms import WeighedTerms


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TermsConfig:
    """Which n-grams of tokens are terms; with more than `max_terms` the most frequent ones."""

    longest_ngram: int = 2
    min_documents: int = 2
    max_terms: int = 200_000

    SPACE: ClassVar[Mapping[str, Dimension]] = {
        "longest_ngram": Dimension(low=1, high=3),
        "min_documents": Dimension(low=1, high=5),
    }


@plain_dataclass(frozen=True, kw_only=True)
class Terms:
    """What was learned of the training texts; `weights` has the idf."""

    tokenizer: Any
    vocabulary: NgramVocabulary
    weights: WeighedTerms
    max_tokens: int

    def tfidf(self, texts: list[str]) -> Any:
        """Of each text, a sparse matrix of shape (rows, terms)."""
        from pipelines.training.linear_text import tfidf
        from pipelines.training.tokens import tokenise

        return tfidf(self.vocabulary.count(tokenise(self.tokenizer, texts, self.max_tokens)), self.weights.idf)

    def save(self, out: Path, text: TextConfig, explain: Literal["terms", "occlusion"]) -> None:
        """Write tokenizer.json and text.json, and terms.npy where the terms explain an answer."""
        import numpy as np

        from pipelines.recipes.text.examples import write_spec

        self.tokenizer.save(str(out / "tokenizer.json"), pretty=False)
        if explain == "terms":
            np.save(out / "terms.npy", self.weights.terms, allow_pickle=False)
        write_spec(out, text, explain=explain, per_row=6 * len(self.weights.terms), per_token=2)


def learn_terms(texts: list[str], text: TextConfig, model: TermsConfig) -> Terms:
    """Those of `texts`.

    Raises:
        PlatformError: ``code="bad_data"``: no n-gram is in enough texts.
    """
    import numpy as np

    from pipelines.training.ngrams import NgramVocabulary
    from pipelines.training.onnx_terms import WeighedTerms
    from pipelines.training.tokens import PAD_ID, UNKNOWN_ID, tokenise, train_tokenizer

    sizes = {"vocabulary": text.vocabulary, "min_frequency": text.min_frequency}
    tokenizer = train_tokenizer(texts, unit=text.unit, boundaries=True, **sizes)
    ids = tokenise(tokenizer, texts, text.max_tokens)
    given = {"longest": model.longest_ngram, "min_documents": model.min_documents, "max_terms": model.max_terms}
    vocabulary = NgramVocabulary.learn(ids, unused=(PAD_ID, UNKNOWN_ID), **given)
    if not len(vocabulary.terms):
        raise PlatformError(
            "no term is frequent enough to learn from",
            detail=f"{len(texts)} texts; a term must be in {model.min_documents} of them",
            fix="give more texts, or --set model.min_documents=1",
            code="bad_data",
        )
    documents = np.asarray((vocabulary.count(ids) > 0).sum(axis=0)).ravel()
    idf = np.log((1 + len(texts)) / (1 + documents)) + 1
    weights = WeighedTerms(terms=np.asarray(vocabulary.terms), idf=idf)
    return Terms(tokenizer=tokenizer, vocabulary=vocabulary, weights=weights, max_tokens=text.max_tokens)


@plain_dataclass(frozen=True, kw_only=True)
class Parts:
    """The rows to learn from and those to choose by, with their texts."""

    train: pd.DataFrame
    valid: pd.DataFrame
    train_texts: list[str]
    valid_texts: list[str]


def read_parts(task: Task, config: TextTaskConfig, dataset: Path) -> Parts:
    """The parts ``train`` and ``valid`` of `dataset`."""
    import pandas as pd

    from pipelines.recipes.text.examples import joined_texts, text_fields

    fields = text_fields(task, config)
    train, valid = (pd.read_parquet(dataset / f"{name}.parquet") for name in ("train", "valid"))
    texts = [joined_texts(rows, fields, config.text.max_characters) for rows in (train, valid)]
    return Parts(train=train, valid=valid, train_texts=texts[0], valid_texts=texts[1])
