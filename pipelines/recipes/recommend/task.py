"""What tasks that recommend are made of: interactions of people with items, and what the items are like."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from contracts.bundle import Input
from contracts.errors import PlatformError
from pipelines.task import Column, TaskConfig

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


class RecommendTask(ABC):
    """Base of a task, see `pipelines.task.Task`; a subclass has a name, a title, recipes and the built-in data."""

    name: str
    title: str
    recipes: Mapping[str, TaskConfig]
    default_recipe: str
    columns = (
        Column(name="id", dtype="string", unique=True),
        Column(name="user", dtype="string", max_length=256),
        Column(name="item", dtype="string", max_length=256),
        Column(name="time", dtype="timestamp", nullable=True),
        Column(name="rating", dtype="float64", nullable=True, minimum=0, maximum=100),
        Column(name="attributes", dtype="string", nullable=True),
        Column(name="part", dtype="string", nullable=True),
    )
    problem = "ranking"
    modality: str = "recommend"
    label = "item"
    id = "id"
    timestamp: str | None = "time"
    entities: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    feature_service: str | None = None

    @abstractmethod
    def default_source(self, config: Any) -> Iterator[pa.Table]:
        """The built-in interactions."""

    def split(self, frame: pd.DataFrame, config: Any) -> dict[str, pd.DataFrame]:
        """See `pipelines.recipes.recommend.split`; and ``impressions``, where there are any."""
        from pipelines.recipes.recommend.impressions import split_impressions
        from pipelines.recipes.recommend.split import moments, split_interactions

        frames = split_interactions(frame, config)
        if config.impressions.source:
            frames["impressions"] = split_impressions(
                config, moments(frame, config), partial(self.default_impressions, config)
            )
        return frames

    def default_impressions(self, config: Any) -> pd.DataFrame:
        """What was shown in the built-in data, see `pipelines.recipes.recommend.impressions`.

        Raises:
            PlatformError: there is nothing of the kind.
        """
        raise PlatformError(
            f"task {self.name} has no built-in impressions",
            fix="give a table: --set impressions.source=FILE",
            code="bad_config",
        )

    def left_out(self, frame: pd.DataFrame, frames: Mapping[str, pd.DataFrame], config: Any) -> Mapping[str, Any]:
        """Interactions of the future, of rare items, and those that come again."""
        from pipelines.recipes.recommend.split import left_out

        return left_out(frame, config)

    def inputs(self, config: Any) -> list[Input]:
        """What a request may ask for."""
        from contracts.engines.recommend import request_inputs
        from contracts.recommender import RecommendSpec

        lists = config.list
        spec = RecommendSpec(method="popular", k=lists.k, longest=lists.longest, diversity=lists.diversity, everybody=1)
        return request_inputs(spec)

    def request(self, config: Any) -> list[Input]:
        """Nothing beside the inputs."""
        return []
