"""Settings of every recipe that recommends: how people's past is split, and how lists are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from pipelines.task import STRICT, DataConfig, TaskConfig
from pipelines.training.recommenders import GraphModel, Model

Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SplitConfig:
    """What is learned from, what chooses the settings, and what is measured.

    by: ``time``, the newest interactions of all people, so that nothing is learned from the future; ``user``, the
    newest of each person; ``leave_one_out``, the last of each person, the one before it chooses; ``part``, as the
    column `part` says (train, valid or test), where a benchmark has its own split: without valid a hash draws a share
    of each person; ``drawn``, a hash draws the test as well, for interactions whose moments nobody knows.
    valid_share: of what is not test.  min_people: items that fewer people took are left out.
    likes_from: a rating below this is no liking: it is not learned from, and the item is not listed again.
    """

    by: Literal["time", "user", "leave_one_out", "part", "drawn"] = "time"
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    valid_share: Annotated[float, Field(gt=0, lt=1)] = 0.15
    min_people: Annotated[int, Field(ge=1)] = 1
    likes_from: float | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ItemsConfig:
    """A table of the items: `source` is a file or folder, read by `data`, with the columns item, attributes and
    perhaps text.

    Recipe `two_tower` learns from the text, and lists items of the table that nobody took yet.
    """

    source: str = ""
    data: DataConfig = field(default_factory=DataConfig)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class UsersConfig:
    """A table of the people: `source` is a file or folder, read by `data`, with the column user and those of `groups`.

    source: ``built-in``: that of the built-in data, where the interactions are theirs; empty: none.
    groups: the attributes of people that may be used, such as a region, the first that says something counts. No other
    column of the table is read.  least: people that a group has at least; smaller ones leave no trace in the model.
    half_life: days after which an interaction counts half in what is popular in a group; 0: all count alike.
    prior: interactions of everybody that count in every group beside its own.
    weight: items of a history that what is popular in the group is worth, candidates; 0: it counts where nothing else
    is known.
    """

    source: str = ""
    data: DataConfig = field(default_factory=DataConfig)
    groups: tuple[str, ...] = ()
    least: Annotated[int, Field(ge=2)] = 20
    half_life: Annotated[float, Field(ge=0)] = 30.0
    prior: Annotated[float, Field(ge=0)] = 100.0
    weight: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)] = (0.0, 3.0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ImpressionsConfig:
    """A table of what was shown, a row for each place of a list, see `pipelines.recipes.recommend.impressions`.

    source: a file or folder, read by `data`; ``built-in``: that of the built-in data; empty: none.
    """

    source: str = ""
    data: DataConfig = field(default_factory=DataConfig)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RankerConfig:
    """A second stage that learns from impressions, and is served where it beats the retriever on the validation part.

    kind: ``lambdarank``, boosted trees (C. Burges, 2010); ``dlrm``, a small network (M. Naumov et al., 2019).
    candidates: of the retriever.  positions: ``estimate`` takes the bias of places out of the clicks; ``none``: clicks
    count as they are.  windows: it is told of the feature store too: views, clicks and sales of an hour, a day and a
    week, of the person and of each item, and the moment.  held_back: share of the training part's time whose
    impressions are learned from, with a retriever that has not seen it.  lists: at most, the latest.  rounds, leaves,
    rate: of the trees.  epochs, width: of the network.
    """

    kind: Literal["none", "lambdarank", "dlrm"] = "none"
    candidates: Annotated[int, Field(ge=1, le=5_000)] = 500
    positions: Literal["estimate", "none"] = "estimate"
    windows: bool = False
    held_back: Annotated[float, Field(gt=0, lt=1)] = 0.5
    lists: Annotated[int, Field(ge=1)] = 20_000
    rounds: Annotated[int, Field(ge=1)] = 80
    leaves: Annotated[int, Field(ge=2)] = 6
    rate: Annotated[float, Field(gt=0, le=1)] = 0.05
    epochs: Annotated[int, Field(ge=1)] = 8
    width: Annotated[int, Field(ge=2, le=256)] = 16


@dataclass(frozen=True, kw_only=True, config=STRICT)
class IndexConfig:
    """How candidates are found by recipes whose items have vectors (`als`, `two_tower`), see `contracts.nearest`.

    above: items from which on there is an index; all are compared with below.  recall: share of what an exact search
    finds that the index must find, or the gate refuses it.
    """

    above: Annotated[int, Field(ge=1)] = 100_000
    recall: Annotated[float, Field(gt=0, le=1)] = 0.98


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ListConfig:
    """What a list is, unless a request says otherwise; see `contracts.recommender.RecommendSpec`.

    new_share: of a list for items that are there for less than `new_days`.  deny: items that are never listed.
    ages: from which age on people are shown items with an attribute; who does not say their age is not.
    provider: how attributes begin that name who an item is from; `exposure` needs it.
    """

    k: Annotated[int, Field(ge=1)] = 20
    longest: Annotated[int, Field(ge=1, le=1_000)] = 100
    diversity: Share = 0.2
    rerank: Literal["dpp", "mmr", "calibrated", "spread"] = "dpp"
    pool: Annotated[int, Field(ge=1)] = 100
    penalty: Share = 0.0
    new_share: Share = 0.0
    new_days: Annotated[float, Field(ge=0)] = 14.0
    history: Annotated[int, Field(ge=1)] = 500
    repeat: bool = False
    deny: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    ages: Mapping[str, Annotated[float, Field(ge=0, le=150)]] = field(default_factory=dict)
    sponsored: tuple[str, ...] = ()
    sponsored_places: tuple[Annotated[int, Field(ge=1)], ...] = ()
    provider: str = ""
    exposure: Share = 0.0
    explore: Literal["none", "epsilon", "thompson"] = "none"
    epsilon: Annotated[float, Field(gt=0, lt=1)] = 0.1
    among: Annotated[int, Field(ge=1)] = 50


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RecommendConfig(TaskConfig):
    """Base of the recipes of every task that recommends.

    must_beat_default: a model that is trained (`ease`, `als`, `two_tower`) is promoted only where its NDCG of the
    validation part is above that of `graph_filter`, which is fitted for it as well.
    """

    model: Model = field(default_factory=GraphModel)
    split: SplitConfig = field(default_factory=SplitConfig)
    items: ItemsConfig = field(default_factory=ItemsConfig)
    users: UsersConfig = field(default_factory=UsersConfig)
    impressions: ImpressionsConfig = field(default_factory=ImpressionsConfig)
    ranker: RankerConfig = field(default_factory=RankerConfig)
    index: IndexConfig = field(default_factory=IndexConfig)
    list: ListConfig = field(default_factory=ListConfig)
    must_beat_default: bool = True
