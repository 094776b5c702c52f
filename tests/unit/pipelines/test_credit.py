"""Task credit: its simulator, its layouts, and what is said of every input."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from contracts.errors import PlatformError
from pipelines.tasks import get_task, recipe_config
from pipelines.tasks.credit.columns import CARD_NAMES, GERMAN_NAMES

TASK: Any = get_task("credit")


def applications(**settings: Any) -> pd.DataFrame:
    config = recipe_config(TASK, "scorecard", {f"simulator.{key}": value for key, value in settings.items()})
    found: pd.DataFrame = pa.concat_tables(TASK.default_source(config)).to_pandas()
    return found


def test_the_same_seed_gives_the_same_applications_and_more_rows_leave_the_first_as_they_are() -> None:
    few, many = applications(applications=1500), applications(applications=3000)
    assert len(many) == 3000
    assert many["application_id"].is_unique
    pd.testing.assert_frame_equal(few, many.head(1500))


def test_a_downturn_means_lower_incomes_and_more_defaults() -> None:
    good, bad = applications(applications=2000), applications(applications=2000, shift=1.0)
    assert bad["income"].mean() < 0.95 * good["income"].mean()
    assert (bad["outcome"] == "default").mean() > (good["outcome"] == "default").mean() + 0.05


def test_without_disparity_origin_tells_nothing_of_income() -> None:
    def gap(**settings: Any) -> float:
        means = applications(applications=4000, **settings).groupby("origin")["income"].mean()
        return float(means["domestic"] / means["foreign"] - 1)

    assert abs(gap(disparity=0.0)) < 0.06
    assert gap(disparity=1.0) > 0.1


@pytest.mark.parametrize("recipe", TASK.recipes)
def test_every_input_is_a_column_has_texts_and_is_not_sensitive(recipe: str) -> None:
    names = [item.name for item in TASK.inputs(recipe_config(TASK, recipe))]
    columns = {column.name for column in TASK.columns}
    assert set(names) <= columns
    assert not set(names) & {one.name for one in TASK.sensitive}
    assert all(
        TASK.reason_texts[name]["en"].isascii() and not TASK.reason_texts[name]["zh"].isascii() for name in names
    )


def test_layouts_name_columns_of_the_task_and_changes_its_inputs() -> None:
    columns = {column.name for column in TASK.columns}
    assert set(GERMAN_NAMES) <= columns
    assert set(CARD_NAMES) <= columns
    assert set(TASK.changes) <= {item.name for item in TASK.inputs(recipe_config(TASK))}


def test_an_outcome_that_is_never_there_is_named() -> None:
    config = recipe_config(TASK, "scorecard", {"bad": "1"})
    with pytest.raises(PlatformError, match="no outcome is '1'") as caught:
        TASK.split(applications(applications=50), config)
    assert "outcomes: default, repaid" in str(caught.value.detail)


def test_a_recipe_whose_review_costs_more_than_an_answer_is_refused(tmp_path: Any) -> None:
    config = recipe_config(TASK, "scorecard", {"cost.review": 0.5, "simulator.applications": 1000})
    for name, frame in TASK.split(applications(applications=1000), config).items():
        frame.to_parquet(tmp_path / f"{name}.parquet")
    with pytest.raises(PlatformError, match="a review that is cheaper than either"):
        config.train(TASK, tmp_path, tmp_path / "out", tmp_path / "checkpoints", lambda *_, **__: None)
