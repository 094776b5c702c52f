"""Task `fraud`: is a card payment genuine? Simulated payments by default, any CSV or Parquet of payments as source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.bundle import Input
from pipelines.task import Column, Progress, TaskConfig
from pipelines.tasks.fraud.config import RECIPES

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

CLASSES = ("genuine", "fraud")


class FraudTask:
    """See `pipelines.task.Task`."""

    name = "fraud"
    title = "Is this card payment a fraud?"
    modality: str = "tabular"
    columns = (
        Column(name="transaction_id", dtype="string", unique=True),
        Column(name="event_time", dtype="timestamp"),
        Column(name="customer_id", dtype="string"),
        Column(name="terminal_id", dtype="string"),
        Column(name="amount", dtype="float64", minimum=0),
        Column(name="fraud", dtype="int64", minimum=0, maximum=1),
    )
    label = "fraud"
    id = "transaction_id"
    timestamp: str | None = "event_time"
    entities = ("customer_id", "terminal_id")
    classes: tuple[str, ...] | None = CLASSES
    feature_service: str | None = "fraud_v1"
    recipes: Mapping[str, TaskConfig] = RECIPES
    default_recipe = "lightgbm"

    def default_source(self, config: Any) -> Iterator[pa.Table]:
        """Simulated payments."""
        from pipelines.tasks.fraud.simulator import simulate

        return simulate(config.simulator, config.seed)

    def write_features(self, clean: Path, out: Path, progress: Progress) -> None:
        """Windows of customers and terminals."""
        from pipelines.tasks.fraud.features import write_history

        write_history(clean, out, progress)

    def entity_rows(self, frame: pd.DataFrame, config: Any) -> pd.DataFrame:
        """The rows of `frame` that need features; the history itself is made of all."""
        from pipelines.tasks.fraud.data import needed_rows

        return needed_rows(frame, config)

    def split(self, frame: pd.DataFrame, config: Any) -> dict[str, pd.DataFrame]:
        """By day, with the delay of labels between training and test."""
        from pipelines.tasks.fraud.data import split_payments

        return split_payments(frame, config)

    def left_out(self, frame: pd.DataFrame, frames: Mapping[str, pd.DataFrame], config: Any) -> Mapping[str, Any]:
        """Payments outside the periods of the split, and of cards that were blocked."""
        from pipelines.tasks.fraud.data import left_out

        return left_out(frame, frames, config)

    def inputs(self, config: Any) -> list[Input]:
        """Amount, windows, and what is derived from both."""
        from pipelines.tasks.fraud.data import model_inputs

        return model_inputs()

    def request(self, config: Any) -> list[Input]:
        """A payment carries its amount; its moment is the timestamp."""
        return [Input(name="amount", dtype="float64", minimum=0, description="in units of currency")]


TASK = FraudTask()
