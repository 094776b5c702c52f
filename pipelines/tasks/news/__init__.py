"""Task `news`: the category of an article from its title and content, in any language that its training data has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from contracts.bundle import Input
from pipelines.tasks.base import Column, Progress, TaskConfig
from pipelines.tasks.news.config import RECIPES
from pipelines.tasks.news.data import FIELDS, default_articles, split_articles

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


class NewsTask:
    """See `pipelines.tasks.base.Task`."""

    name = "news"
    title = "Which category does an article belong to?"
    modality: Literal["tabular", "text"] = "text"
    columns = (
        Column(name="id", dtype="string", unique=True),
        Column(name="category", dtype="string", max_length=200),
        Column(name="title", dtype="string", nullable=True),
        Column(name="content", dtype="string"),
    )
    label = "category"
    id = "id"
    timestamp: str | None = None
    entities: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    feature_service: str | None = None
    recipes: Mapping[str, TaskConfig] = RECIPES
    default_recipe = "linear"

    def default_source(self, config: Any) -> Iterator[pa.Table]:
        """The shipped sample."""
        yield default_articles(config, [column.name for column in self.columns])

    def write_features(self, clean: Path, out: Path, progress: Progress) -> None:
        """The task has no features beside its text."""

    def split(self, frame: pd.DataFrame, config: Any) -> dict[str, pd.DataFrame]:
        """By class and hash of the text, or with the test part of its own file."""
        return split_articles(self, frame, config)

    def left_out(self, frame: pd.DataFrame, frames: Mapping[str, pd.DataFrame], config: Any) -> Mapping[str, Any]:
        """Articles whose text stands in the test source too."""
        used = {name for part, rows in frames.items() if part != "test" for name in rows["id"]}
        overlap = ~frame["id"].astype(str).isin(used) if config.split.test_source else [False] * len(frame)
        return {"the text stands in split.test_source too": overlap}

    def inputs(self, config: Any) -> list[Input]:
        """Title and content; each may be empty."""
        about = {"title": "headline", "content": "the article, or its first paragraphs"}
        return [Input(name=name, dtype="string", default="", description=about[name]) for name in FIELDS]

    def request(self, config: Any) -> list[Input]:
        """Nothing beside the inputs."""
        return []


TASK = NewsTask()
