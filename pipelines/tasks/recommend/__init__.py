"""Task `recommend`: which items does a person take next? Simulated clicks by default, any table of them as source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pipelines.recipes.recommend.task import RecommendTask
from pipelines.task import TaskConfig
from pipelines.tasks.recommend.config import RECIPES

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


class Recommend(RecommendTask):
    """See `pipelines.recipes.recommend.task`."""

    name = "recommend"
    title = "Which items does this person take next?"
    recipes: Mapping[str, TaskConfig] = RECIPES
    default_recipe = "graph_filter"

    def default_source(self, config: Any) -> Iterator[pa.Table]:
        """Simulated clicks."""
        from pipelines.tasks.recommend.simulator import simulate

        return simulate(config.simulator, config.seed)

    def default_impressions(self, config: Any) -> pd.DataFrame:
        """What was shown to those who clicked."""
        from pipelines.tasks.recommend.simulator import impressions

        return impressions(config.simulator, config.seed)

    def default_users(self, config: Any, frame: pd.DataFrame) -> pd.DataFrame | None:
        """Where those live who clicked, if these are the clicks of the simulator."""
        from pipelines.tasks.recommend.simulator import simulate, users

        known = users(config.simulator, config.seed)
        if not frame["user"].isin(known["user"]).all():
            return None
        clicks = next(simulate(config.simulator, config.seed)).select(["id", "user", "item"]).to_pandas()
        both = frame[["id", "user", "item"]].astype(str).merge(clicks, how="left", indicator=True)
        return known if (both["_merge"] == "both").all() else None


TASK = Recommend()
