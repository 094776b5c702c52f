"""Settings of every recipe that answers from documents."""

from __future__ import annotations

from dataclasses import field, replace
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from pipelines.evaluation.written import WRITTEN
from pipelines.suites.writer import WriterConfig
from pipelines.task import STRICT, TaskConfig
from pipelines.training.encoder import EncoderConfig


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DocumentsConfig:
    """Which documents are read. max_pages: of one; those of more pages are refused."""

    max_pages: Annotated[int, Field(ge=1)] = 2000


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PassagesConfig:
    """How documents are divided: paragraphs of a section, and of a page, are joined until they have `words` words (a
    Chinese character is one); a longer paragraph is divided between its sentences.
    """

    words: Annotated[int, Field(ge=10, le=2000)] = 120


@dataclass(frozen=True, kw_only=True, config=STRICT)
class QuestionsConfig:
    """Questions about the documents, by which the judge learns, and the model is measured.

    test_share, valid_share: the latter of what is not test; questions with the same evidence stay together.
    made: where none are given, so many are made of the documents themselves; they are easier than people's.
    """

    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.3
    valid_share: Annotated[float, Field(gt=0, lt=1)] = 0.3
    made: Annotated[int, Field(ge=0, le=100_000)] = 300


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VectorsConfig:
    """What passages are compared by beside their words.

    kind: ``terms``, vectors that are learned from the documents (latent semantic analysis); ``onnx``, the encoder that
    `encoder` names; ``none``.
    dimensions, terms: of ``terms``: of a vector, and how many terms have one, the commonest.
    """

    kind: Literal["none", "terms", "onnx"] = "terms"
    dimensions: Annotated[int, Field(ge=2, le=1024)] = 128
    terms: Annotated[int, Field(ge=100)] = 50_000
    encoder: EncoderConfig = field(default_factory=EncoderConfig)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RerankerConfig:
    """A cross-encoder. source: a folder or s3:// with ``model.onnx`` and ``tokenizer.json``.

    max_tokens: of a question and a passage together, which are read.
    """

    source: str = ""
    max_tokens: Annotated[int, Field(ge=8, le=8192)] = 512


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AnswerConfig:
    """How a question is answered.

    k, longest: passages that come with an answer, where a request does not say, and at most.
    pool: passages that each search gives.  judged: of those, how many are looked at more closely.
    rerank: ``learned``: the judge orders them; ``onnx``: the cross-encoder that `reranker` names does, and the judge
    says whether the best one answers; ``none``.
    sentences: of an answer, at most.
    wrong_costs: what a wrong answer costs, where a right one is worth 1; by this the threshold is chosen.
    """

    k: Annotated[int, Field(ge=1)] = 5
    longest: Annotated[int, Field(ge=1, le=1000)] = 50
    pool: Annotated[int, Field(ge=1, le=10_000)] = 50
    judged: Annotated[int, Field(ge=1, le=200)] = 12
    rerank: Literal["none", "learned", "onnx"] = "learned"
    reranker: RerankerConfig = field(default_factory=RerankerConfig)
    sentences: Annotated[int, Field(ge=1, le=10)] = 2
    wrong_costs: Annotated[float, Field(ge=0)] = 1.0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VectorIndexConfig:
    """An index of vectors. above: there is one of more passages than these.  recall: of an exact search, at least."""

    above: Annotated[int, Field(ge=0)] = 200_000
    recall: Annotated[float, Field(gt=0, le=1)] = 0.95


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AnswersConfig(TaskConfig):
    """Base of the recipes of every task that answers from documents."""

    documents: DocumentsConfig = field(default_factory=DocumentsConfig)
    passages: PassagesConfig = field(default_factory=PassagesConfig)
    questions: QuestionsConfig = field(default_factory=QuestionsConfig)
    vectors: VectorsConfig = field(default_factory=VectorsConfig)
    answer: AnswerConfig = field(default_factory=AnswerConfig)
    index: VectorIndexConfig = field(default_factory=VectorIndexConfig)
    writer: WriterConfig = field(default_factory=WriterConfig)

    @model_validator(mode="after")
    def _compared(self) -> Self:
        if self.gate.primary in WRITTEN:
            raise ValueError(
                f"gate.primary {self.gate.primary!r} is of what a chat model writes, and a champion's index is "
                "compared without one: name it in gate.thresholds, and another one as gate.primary"
            )
        return self

    def training_part(self) -> Self:
        """Without the chat model, which trains nothing."""
        return replace(super().training_part(), writer=WriterConfig())
