"""What tasks that answer from documents are made of: paragraphs of documents, and questions about them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from contracts.bundle import Input
from pipelines.task import Column, TaskConfig

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


class AnswersTask(ABC):
    """Base of a task, see `pipelines.task.Task`; a subclass has a name, a title, recipes and the built-in data.

    A row is a paragraph, which has `text`, or a question, which has `question`; see `pipelines.data.document_folder`.
    `labels` are those of who may read the document, and of who asks, separated by ``|``.
    """

    name: str
    title: str
    recipes: Mapping[str, TaskConfig]
    default_recipe: str
    columns = (
        Column(name="id", dtype="string", unique=True),
        Column(name="document", dtype="string", nullable=True, max_length=1000),
        Column(name="title", dtype="string", nullable=True),
        Column(name="section", dtype="string", nullable=True),
        Column(name="page", dtype="int64", nullable=True, minimum=1),
        Column(name="labels", dtype="string", nullable=True),
        Column(name="text", dtype="string", nullable=True),
        Column(name="question", dtype="string", nullable=True, max_length=2000),
        Column(name="answer", dtype="string", nullable=True),
        Column(name="evidence", dtype="string", nullable=True),
    )
    problem = "answering"
    modality: str = "answers"
    documents = True
    label = "text"
    id = "id"
    timestamp: str | None = None
    entities: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    feature_service: str | None = None

    @abstractmethod
    def default_source(self, config: Any) -> Iterator[pa.Table]:
        """The built-in documents and questions."""

    def split(self, frame: pd.DataFrame, config: Any) -> dict[str, pd.DataFrame]:
        """Questions in three parts, and ``paragraphs``, which all three are about."""
        from pipelines.recipes.answers.split import split_questions

        return split_questions(frame, config)

    def left_out(self, frame: pd.DataFrame, frames: Mapping[str, pd.DataFrame], config: Any) -> Mapping[str, Any]:
        """Questions that are asked again with the same labels, and paragraphs that have neither text nor question."""
        from pipelines.recipes.answers.split import left_out

        return left_out(frame)

    def inputs(self, config: Any) -> list[Input]:
        """What a request asks."""
        from contracts.engines.answers import request_inputs

        return request_inputs(config.answer.k, config.answer.longest)

    def request(self, config: Any) -> list[Input]:
        """Nothing beside the inputs."""
        return []
