"""What tasks that recommend are made of: interactions of people with items, and what the items are like."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.bundle import Input
from contracts.errors import PlatformError
from pipelines.task import Column, Progress, TaskConfig

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
        Column(name="kind", dtype="string", nullable=True),
    )
    problem = "ranking"
    modality: str = "recommend"
    label = "item"
    id = "id"
    timestamp: str | None = "time"
    entities: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    feature_service: str | None = "recommend_v1"

    @abstractmethod
    def default_source(self, config: Any) -> Iterator[pa.Table]:
        """The built-in interactions."""

    def split(self, frame: pd.DataFrame, config: Any) -> dict[str, pd.DataFrame]:
        """See `pipelines.recipes.recommend.split`; and ``users`` and ``impressions``, where there are any."""
        from pipelines.data.sensitive import sensitive_of
        from pipelines.recipes.recommend.impressions import split_impressions
        from pipelines.recipes.recommend.split import moments, split_interactions
        from pipelines.recipes.recommend.users import read_users, stated

        frames = split_interactions(frame, config)
        sensitive = [one.name for one in sensitive_of(self)]
        people = read_users(config.users, frame, partial(self.default_users, config, frame), sensitive)
        if config.users.source:
            for name, part in frames.items():
                if name in ("train", "valid", "test"):
                    part["group"] = "" if people is None or name != "test" else stated(people, part["who"])
        if people is not None:
            frames["users"] = people
        if config.impressions.source:
            frames["impressions"] = split_impressions(
                config, moments(frame, config), partial(self.default_impressions, config)
            )
        return frames

    def history_config(self, config: Any) -> Mapping[str, Any] | None:
        """What the history of the feature store is made of beside the interactions; None: no ranker is told of it."""
        if config.ranker.kind == "none" or not config.ranker.windows:
            return None
        from pipelines.recipes.recommend.impressions import fingerprint

        return fingerprint(config, partial(self.default_impressions, config))

    def write_features(self, clean: Path, out: Path, progress: Progress, config: Any = None) -> None:
        """Windows of people and items, of interactions and of impressions."""
        from pyarrow import dataset

        from pipelines.recipes.recommend.impressions import read_impressions
        from pipelines.recipes.recommend.windows import write_windows

        parts = sorted(str(part) for part in clean.glob("part-*.parquet"))
        rows = dataset.dataset(parts, format="parquet").to_table(columns=["user", "item", "time", "kind"]).to_pandas()
        views = None
        if config is not None and config.impressions.source:
            views = read_impressions(config, partial(self.default_impressions, config))
        write_windows(rows, views, out, progress)

    def with_features(self, frames: dict[str, pd.DataFrame], history: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
        """The features of impressions, each at its moment, and a part with the latest of everybody and everything."""
        from pipelines.recipes.recommend.windows import joined

        return joined(frames, history) if "impressions" in frames else frames

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

    def default_users(self, config: Any, frame: pd.DataFrame) -> pd.DataFrame | None:
        """The people of the built-in data, see `pipelines.recipes.recommend.users`; None where `frame` is not these."""
        return None

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
        return request_inputs(spec, config.users.groups if config.users.source else ())

    def request(self, config: Any) -> list[Input]:
        """Nothing beside the inputs."""
        return []
