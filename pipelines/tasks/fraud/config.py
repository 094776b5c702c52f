"""Configuration of the task and its recipes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from datetime import date

from pydantic.dataclasses import dataclass

from pipelines.gate_limits import ExplanationLimits
from pipelines.recipes.tabular.base import TabularRecipe
from pipelines.task import STRICT, DataConfig, GateConfig, TaskConfig, Threshold
from pipelines.training.boosting import LightGBMConfig
from pipelines.training.network import NetworkConfig
from pipelines.training.tabular import AnyModel, CostConfig, LogisticConfig


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SimulatorConfig:
    """The default data. `fraud_level` scales all fraud; `drift`: 0 freezes the habits of fraud, 1 changes them."""

    customers: int = 1_600
    terminals: int = 1_200
    days: int = 50
    payments_per_day: float = 1.0
    start: str = "2024-03-04"
    fraud_level: float = 1.0
    drift: float = 1.0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SplitConfig:
    """Train, wait for the labels, test: lengths in days (UTC).

    train_start: first day of training; None counts back from the last payment. valid_days: the end of the training
    days, kept for early stopping, calibration and the threshold. drop_compromised: leave out of the test the customers
    whose fraud was known on that day, since their cards are blocked.
    """

    train_start: date | None = None
    train_days: int = 24
    valid_days: int = 5
    delay_days: int = 7
    test_days: int = 7
    drop_compromised: bool = True


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FraudConfig(TabularRecipe):
    """A recipe of the task."""

    model: AnyModel = field(default_factory=lambda: LightGBMConfig(refit=True))
    split: SplitConfig = field(default_factory=SplitConfig)
    cost: CostConfig = field(default_factory=lambda: CostConfig(false_positive=10.0, false_negative="amount"))
    simulator: SimulatorConfig = field(default_factory=SimulatorConfig)


_GATE = GateConfig(
    primary="average_precision",
    thresholds=(
        Threshold(metric="average_precision", minimum=0.12),
        Threshold(metric="roc_auc", minimum=0.75),
        Threshold(metric="ece", maximum=0.02),
        Threshold(metric="time:night:average_precision", minimum=0.15),
        # Without knowledge of customer and terminal the answer is to be near the share of fraud.
        Threshold(metric="features:unknown entity:ece", maximum=0.05),
    ),
    champion_tolerance=0.02,
    explanations=ExplanationLimits(above_random=0.0),
)
# The layout and the dates of the Reproducible Machine Learning handbook's simulated data.
_HANDBOOK = DataConfig(
    columns={
        "transaction_id": "TRANSACTION_ID",
        "event_time": "TX_DATETIME",
        "customer_id": "CUSTOMER_ID",
        "terminal_id": "TERMINAL_ID",
        "amount": "TX_AMOUNT",
        "fraud": "TX_FRAUD",
    },
    # The scenario is the label in another form; the other two are the time in another form.
    drop=("TX_FRAUD_SCENARIO", "TX_TIME_SECONDS", "TX_TIME_DAYS"),
)
_HANDBOOK_SPLIT = SplitConfig(train_start=date(2018, 7, 11), train_days=7, valid_days=2, delay_days=7, test_days=7)

# Chosen on earlier weeks (train 05-16, 05-30, 06-13 or 06-27 and six days more, test two weeks later).
_TREES = LightGBMConfig(learning_rate=0.03, refit=True, rising=("amount",))
_LINEAR = LogisticConfig(c=0.1, log_scale=False)

RECIPES: Mapping[str, TaskConfig] = {
    "lightgbm": FraudConfig(recipe="lightgbm", gate=_GATE, model=LightGBMConfig(refit=True, rising=("amount",))),
    "logistic": FraudConfig(recipe="logistic", gate=_GATE, model=_LINEAR),
    "network": FraudConfig(recipe="network", gate=_GATE, model=NetworkConfig()),
    "handbook": FraudConfig(recipe="handbook", gate=_GATE, data=_HANDBOOK, split=_HANDBOOK_SPLIT, model=_TREES),
    "handbook_logistic": FraudConfig(
        recipe="handbook_logistic", gate=_GATE, data=_HANDBOOK, split=_HANDBOOK_SPLIT, model=_LINEAR
    ),
}
