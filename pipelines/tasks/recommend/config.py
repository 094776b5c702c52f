"""Configuration of the task and its recipes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace

from pydantic.dataclasses import dataclass

from pipelines.gate_limits import ExplanationLimits
from pipelines.recipes.recommend.base import RecommendRecipe, recommend_recipes
from pipelines.recipes.recommend.settings import (
    ImpressionsConfig,
    ItemsConfig,
    ListConfig,
    RankerConfig,
    SplitConfig,
    UsersConfig,
)
from pipelines.task import STRICT, DataConfig, GateConfig, TaskConfig, Threshold
from pipelines.tasks.recommend.simulator import SimulatorConfig
from pipelines.training.recommenders import EaseModel, GraphModel


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RecommendTaskConfig(RecommendRecipe):
    """A recipe of the task."""

    simulator: SimulatorConfig = field(default_factory=lambda: SimulatorConfig(local=1.0))


# What the built-in data reach with room for other rows; real data deserve limits of their own.
_GATE = GateConfig(
    primary="ndcg",
    explanations=ExplanationLimits(above_random=0.0),
    thresholds=(
        Threshold(metric="ndcg", minimum=0.05),
        Threshold(metric="coverage", minimum=0.3),
        Threshold(metric="diversity", minimum=0.3),
    ),
)
_LISTS = ListConfig(diversity=0.3, penalty=0.3, new_share=0.1)
_PEOPLE = UsersConfig(source="built-in", groups=("region",))
_BASE = RecommendTaskConfig(recipe="graph_filter", gate=_GATE, list=_LISTS, users=_PEOPLE)
# The layout of MovieLens: ratings.csv, with the table of items by items.source.
_MOVIELENS = replace(
    _BASE,
    recipe="movielens",
    gate=replace(_GATE, thresholds=(Threshold(metric="ndcg", minimum=0.1), Threshold(metric="diversity", minimum=0.6))),
    model=EaseModel(),
    list=ListConfig(rerank="spread"),
    data=DataConfig(
        columns={"id": "#row", "user": "userId", "item": "movieId", "time": "timestamp"}, times={"time": "s"}
    ),
    items=ItemsConfig(data=DataConfig(columns={"item": "movieId", "attributes": "genres"})),
    users=UsersConfig(),
    split=SplitConfig(by="user", min_people=3),
)

# The layout of LightGCN's files (X. He et al., 2020): `user item item ...` in train.txt and test.txt, no moments and no
# attributes. Degrees and smoothing are those of the papers of `GraphModel`: a random part of the training rows is no
# judge of such a test, see docs/recommend.md.
_GOWALLA = replace(
    _BASE,
    recipe="gowalla",
    gate=replace(_GATE, thresholds=(Threshold(metric="ndcg", minimum=0.1), Threshold(metric="coverage", minimum=0.1))),
    model=GraphModel(from_item=(1.0,), person=(1.0,), to_item=(0.0,), smooth=(0.0, 0.6), recency=(0.0,)),
    list=ListConfig(diversity=0.0),
    data=DataConfig(adjacency=True),
    users=UsersConfig(),
    split=SplitConfig(by="part", valid_share=0.1),
)

# Popularity is one of the features: a ranker that thinks much of it has a reason.
_RANKED = replace(
    _BASE, impressions=ImpressionsConfig(source="built-in"), list=replace(_LISTS, penalty=0.0, new_share=0.05)
)

RECIPES: Mapping[str, TaskConfig] = {
    **recommend_recipes(_BASE),
    **{kind: replace(_RANKED, recipe=kind, ranker=RankerConfig(kind=kind)) for kind in ("lambdarank", "dlrm")},
    "movielens": _MOVIELENS,
    "gowalla": _GOWALLA,
}
