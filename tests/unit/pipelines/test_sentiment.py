"""The task `sentiment`: its sample, and reviews that are asked about by aspect."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

import pipelines.tasks.sentiment
from pipelines.recipes.text.split import language
from pipelines.tasks import get_task, recipe_config

TASK = get_task("sentiment")
SAMPLE = Path(pipelines.tasks.sentiment.__file__).with_name("sample.csv")


@pytest.fixture(scope="module")
def sample() -> pd.DataFrame:
    with SAMPLE.open(encoding="utf-8", newline="") as file:
        return pd.DataFrame(list(csv.DictReader(file)))


def test_the_sample_is_half_english_and_its_stars_agree_with_its_labels(sample: pd.DataFrame) -> None:
    assert list(sample.columns) == ["id", "text", "aspect", "sentiment", "stars"]
    assert Counter(map(language, sample["text"])) == {"en": 150, "zh": 150}
    assert not sample.duplicated(["text", "aspect"]).any()
    assert sample["id"].is_unique
    assert min(Counter(sample["sentiment"]).values()) > 140
    assert set(sample.loc[sample["stars"] > "3", "sentiment"]) == {"positive"}
    assert set(sample.loc[sample["stars"] < "3", "sentiment"]) == {"negative"}


def test_the_built_in_data_has_the_columns_of_the_task_alone(sample: pd.DataFrame) -> None:
    (table,) = TASK.default_source(recipe_config(TASK))
    assert table.column_names == [column.name for column in TASK.columns]
    assert table.num_rows == len(sample)


def test_all_aspects_of_a_review_are_in_one_part(sample: pd.DataFrame) -> None:
    parts = TASK.split(sample, recipe_config(TASK))
    where = pd.concat([rows.assign(part=name) for name, rows in parts.items()])
    assert (where.groupby("text")["part"].nunique() == 1).all()
    assert (where.groupby("text").size() > 1).any()
    assert where["row_key"].is_unique


def test_data_may_have_no_aspects(sample: pd.DataFrame) -> None:
    frame = sample.drop(columns="aspect").drop_duplicates("text").assign(aspect=None)
    parts = TASK.split(frame, recipe_config(TASK))
    assert {value for rows in parts.values() for value in rows["aspect"]} == {""}
