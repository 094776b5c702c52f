"""The task `sentiment`: its sample, and reviews that are asked about by aspect."""

from __future__ import annotations

import csv
import shlex
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

import pipelines.tasks.sentiment
from contracts.errors import PlatformError
from contracts.texts import language
from pipelines.settings import parse_setting
from pipelines.tasks import get_task, recipe_config
from tests.chain import Chain

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


@pytest.mark.parametrize(
    ("order", "why"),
    [
        (["1", "2", "3", "4"], "'5' is not in it"),
        (["0", "1", "2", "3", "4", "5"], "no row is '0'"),
        (["1", "1", "2", "3", "4", "5"], "'1' stands twice"),
    ],
)
def test_a_scale_that_does_not_fit_the_labels_is_refused_with_one_that_may(
    sample: pd.DataFrame, order: list[str], why: str
) -> None:
    stars = sample.drop(columns="sentiment").rename(columns={"stars": "sentiment"})
    with pytest.raises(PlatformError, match=why) as caught:
        TASK.split(stars, recipe_config(TASK, None, {"order": order}))
    key, value = parse_setting(shlex.split(caught.value.fix.partition("--set ")[2])[0])
    assert set(TASK.split(stars, recipe_config(TASK, None, {key: value}))) == {"train", "valid", "test"}


def test_stars_are_learned_as_a_scale_and_measured_as_one(tmp_path: Path) -> None:
    given = {"data.columns": {"sentiment": "stars"}, "data.drop": ["sentiment"], "order": ["1", "2", "3", "4", "5"]}
    with pytest.raises(PlatformError, match="'quadratic_kappa' is not measured"):
        recipe_config(TASK, None, {"gate.primary": "quadratic_kappa"})
    gate = {"gate.primary": "quadratic_kappa", "gate.thresholds": [{"metric": "quadratic_kappa", "minimum": 0.2}]}
    chain = Chain(task="sentiment", home=tmp_path, source=str(SAMPLE), overrides=given | gate)
    chain.dataset()
    chain.candidate()
    found = chain.evaluation()["metrics"]
    assert 0.2 < found["quadratic_kappa"] < 1
    assert 0 < found["rank_error"] < 2
