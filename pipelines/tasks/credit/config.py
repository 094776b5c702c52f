"""Configuration of the task and its recipes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from pipelines.gate_limits import ExplanationLimits
from pipelines.recipes.tabular.base import TabularRecipe
from pipelines.recipes.tabular.task import SplitConfig
from pipelines.task import STRICT, DataConfig, FairnessConfig, GateConfig, TaskConfig, Threshold
from pipelines.tasks.credit.columns import CARD_NAMES, FALLING, GERMAN_NAMES, RISING
from pipelines.training.boosting import LightGBMConfig
from pipelines.training.network import NetworkConfig
from pipelines.training.privacy import PrivacyConfig
from pipelines.training.scorecard import ScorecardConfig
from pipelines.training.tabular import AnyModel, CostConfig, LogisticConfig


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SimulatorConfig:
    """The default data. `disparity`: how far sex and origin decide about income and history; `shift`: a downturn."""

    applications: Annotated[int, Field(ge=1)] = 6_000
    disparity: Annotated[float, Field(ge=0, le=2)] = 1.0
    shift: Annotated[float, Field(ge=0, le=2)] = 0.0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CreditConfig(TabularRecipe):
    """A recipe of the task. `layout`: which columns there are; `bad`: the outcome that is a default, as written."""

    model: AnyModel = field(default_factory=ScorecardConfig)
    cost: CostConfig = field(
        # Of the amount: what a loan that is repaid earns, what one that is not loses, what a person costs who looks.
        default_factory=lambda: CostConfig(false_positive=0.15, false_negative=0.45, rule="expected", review=0.02)
    )
    split: SplitConfig = field(default_factory=SplitConfig)
    layout: Literal["own", "german", "card_defaults"] = "own"
    bad: str = "default"
    simulator: SimulatorConfig = field(default_factory=SimulatorConfig)


# Who is refused is told the reasons, so that they must be the model's.
_TRUE = ExplanationLimits(above_random=0.05, stability=0.7)
_GATE = GateConfig(
    primary="roc_auc",
    thresholds=(
        Threshold(metric="roc_auc", minimum=0.75),
        Threshold(metric="ece", maximum=0.05),
    ),
    champion_tolerance=0.02,
    # Age is shown and not judged: the years of a history are age in another form.
    fairness=FairnessConfig(columns=("sex", "origin"), selection_ratio=0.8, calibration_gap=0.08),
    explanations=_TRUE,
)
_GERMAN = DataConfig(
    columns=GERMAN_NAMES, drop=("marital-status",)
)  # whose values were joined by whoever made the file
_GERMAN_GATE = GateConfig(
    primary="roc_auc",
    thresholds=(Threshold(metric="roc_auc", minimum=0.7),),
    # 200 rows of a test: groups of 30 are judged, and of origin one has 37 of 1,000 rows.
    fairness=FairnessConfig(columns=("sex",), min_rows=30, selection_ratio=0.7),
    explanations=_TRUE,
)
_CARDS = DataConfig(columns=CARD_NAMES, drop=("EDUCATION", "MARRIAGE"))
_CARDS_GATE = GateConfig(
    primary="roc_auc",
    thresholds=(Threshold(metric="roc_auc", minimum=0.7),),
    fairness=FairnessConfig(columns=("sex",), selection_ratio=0.8),
    explanations=_TRUE,
)
_OWN_RISING = tuple(name for name in RISING if name != "installment_rate")
_CARD = ScorecardConfig(rising=_OWN_RISING, falling=FALLING)

RECIPES: Mapping[str, TaskConfig] = {
    "scorecard": CreditConfig(recipe="scorecard", gate=_GATE, model=_CARD),
    "lightgbm": CreditConfig(
        recipe="lightgbm", gate=_GATE, model=LightGBMConfig(leaves=15, rising=_OWN_RISING, falling=FALLING)
    ),
    "logistic": CreditConfig(recipe="logistic", gate=_GATE, model=LogisticConfig()),
    "network": CreditConfig(recipe="network", gate=_GATE, model=NetworkConfig(), privacy=PrivacyConfig(clip=5.0)),
    "german": CreditConfig(
        recipe="german",
        gate=_GERMAN_GATE,
        data=_GERMAN,
        layout="german",
        bad="0",
        model=ScorecardConfig(fit="steps", bins=8, min_share=0.02, c=0.005, rising=("term_months", "installment_rate")),
    ),
    "card_defaults": CreditConfig(
        recipe="card_defaults",
        gate=_CARDS_GATE,
        data=_CARDS,
        layout="card_defaults",
        bad="1",
        model=ScorecardConfig(falling=("amount",)),
    ),
}
