"""The methods of recommending as recipes of any task whose rows say who took what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic.dataclasses import dataclass

from contracts.errors import PlatformError
from pipelines.recipes.recommend.settings import RecommendConfig
from pipelines.settings import setting
from pipelines.task import STRICT, Progress
from pipelines.training.recommenders import AlsModel, EaseModel, GraphModel, ItemKnnModel, PopularModel, TowerModel

if TYPE_CHECKING:
    from pipelines.task import Task


_TRAINED = ("ease", "als", "two_tower")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RecommendRecipe(RecommendConfig):
    """A method with the candidates for its settings."""

    def train(self, task: Task, dataset: Path, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """See `pipelines.training.recommend.train_recommender`."""
        from pipelines.training.recommend import train_recommender

        if self.list.exposure and not self.list.provider:
            raise PlatformError(
                "list.exposure evens out what providers are given, and no attribute says who they are",
                fix=f"say how such attributes begin: {setting('list.provider', 'by:')}",
                code="bad_config",
            )
        again = None
        if self.list.explore == "thompson" and self.ranker.kind == "none":
            raise PlatformError(
                "list.explore thompson draws from the last layer of a ranker, and there is none",
                fix=f"{setting('ranker.kind', 'lambdarank')}, or {setting('list.explore', 'epsilon')}",
                code="bad_config",
            )
        if self.ranker.kind != "none":
            from pipelines.training.second_stage import second_stage

            again = partial(second_stage, settings=self.ranker)
        floor = GraphModel() if self.model.method in _TRAINED and self.must_beat_default else None
        people = self.users if self.users.source else None
        asked = (dataset, self.model, self.list, self.seed, out, progress)
        return train_recommender(*asked, again, self.index, floor, people)


def recommend_recipes(base: RecommendRecipe) -> Mapping[str, RecommendRecipe]:
    """A recipe of each method by its name, with all else as `base` has it."""
    models = (GraphModel(), PopularModel(), ItemKnnModel(), EaseModel(), AlsModel(), TowerModel())
    return {model.method: replace(base, recipe=model.method, model=model) for model in models}
