"""Task `credit`: will this loan be repaid? Simulated applications by default; German credit or cards by mapping."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from contracts.bundle import Input
from contracts.errors import PlatformError
from pipelines.recipes.tabular.task import TabularTask
from pipelines.settings import setting
from pipelines.task import TaskConfig
from pipelines.tasks.credit.columns import SENSITIVE, columns, inputs_of
from pipelines.tasks.credit.config import RECIPES
from pipelines.tasks.credit.reasons import TEXTS

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


class CreditTask(TabularTask):
    """See `pipelines.task.Task`."""

    name = "credit"
    title = "Will this loan be repaid?"
    columns = columns()
    label = "outcome"
    id = "application_id"
    classes = ("repaid", "default")
    favourable = "repaid"
    sensitive = SENSITIVE
    reason_texts = TEXTS
    # What an applicant may change before asking again; the past cannot be changed.
    changes: Mapping[str, str] = {
        "income": "up",
        "payment_share": "down",
        "debts": "down",
        "checking": "any",
        "savings": "any",
    }
    slices = ("purpose",)
    recipes: Mapping[str, TaskConfig] = RECIPES
    default_recipe = "scorecard"

    def default_source(self, config: Any) -> Iterator[pa.Table]:
        """Simulated applications."""
        from pipelines.tasks.credit.simulator import simulate

        return simulate(config.simulator, config.seed)

    def inputs(self, config: Any) -> list[Input]:
        """Those of the layout; sex, age and origin are none."""
        return inputs_of(config.layout)

    def split(self, frame: pd.DataFrame, config: Any) -> dict[str, pd.DataFrame]:
        """By a hash of the id; the label is a default where the outcome is ``bad``.

        Raises:
            PlatformError: ``code="bad_config"``: no outcome is.
        """
        import numpy as np

        outcome = frame["outcome"].astype(str).str.strip()
        if not (outcome == config.bad).any():
            seen = sorted(outcome.unique())[:5]
            raise PlatformError(
                f"no outcome is {config.bad!r}, so no loan would be in default",
                detail=f"outcomes: {', '.join(seen)}",
                fix=f"say which one is a default: {setting('bad', seen[-1])}",
                code="bad_config",
            )
        return super().split(frame.assign(outcome=np.where(outcome == config.bad, "default", "repaid")), config)


TASK = CreditTask()
