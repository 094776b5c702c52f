"""Two tasks of one small table, of a package beside the platform: what a house costs, and which words fit it."""

from __future__ import annotations

from typing import Any, ClassVar

from contracts.bundle import Input
from pipelines.recipes.tabular.multilabel import MultilabelRecipe
from pipelines.recipes.tabular.regression import RegressionRecipe
from pipelines.task import Column, GateConfig, TaskConfig, Threshold
from pipelines.training.boosting import LightGBMConfig

_MODEL = LightGBMConfig(rounds=150, min_leaf=10, early_stopping=20, leaves=15)


class Houses:
    """A subclass says what is predicted; rows are split in their order."""

    modality = "tabular"
    id, timestamp = "house", None
    label: str
    entities: tuple[str, ...] = ()
    classes = None
    feature_service = None
    default_recipe = "trees"
    columns: tuple[Column, ...] = (
        Column(name="house", dtype="string", unique=True),
        Column(name="area", dtype="float64", minimum=0),
        Column(name="place", dtype="string", categories=("city", "hill", "lake")),
    )

    def split(self, frame: Any, config: Any) -> Any:
        out = frame[["area", "place"]].copy()
        out["id"], out["label"], out["slice_place"] = frame["house"], frame[self.label], frame["place"]
        cut = [int(len(out) * share) for share in (0.6, 0.8)]
        return {"train": out[: cut[0]], "valid": out[cut[0] : cut[1]], "test": out[cut[1] :]}

    def inputs(self, config: Any) -> list[Input]:
        places = Input(name="place", dtype="string", categories=["city", "hill", "lake"])
        return [Input(name="area", dtype="float64"), places]

    def request(self, config: Any) -> list[Input]:
        return []


class Price(Houses):
    """A number."""

    name, title, label, problem = "price", "What is the house worth?", "price", "regression"
    columns = (*Houses.columns, Column(name="price", dtype="float64"))
    recipes: ClassVar[dict[str, TaskConfig]] = {
        "trees": RegressionRecipe(
            recipe="trees",
            model=_MODEL,
            coverage=0.8,
            unit="thousand",
            gate=GateConfig(
                primary="mae",
                thresholds=(Threshold(metric="r2", minimum=0.9), Threshold(metric="place:city:mae", maximum=40)),
                max_latency_ms=1000.0,
            ),
        )
    }


class Words(Houses):
    """Several labels a row."""

    name, title, label, problem = "words", "Which words fit the house?", "words", "multilabel"
    columns = (*Houses.columns, Column(name="words", dtype="string", nullable=True))
    recipes: ClassVar[dict[str, TaskConfig]] = {
        "trees": MultilabelRecipe(
            recipe="trees",
            model=_MODEL,
            gate=GateConfig(
                primary="micro_f1",
                thresholds=(Threshold(metric="f1:view", minimum=0.9),),
                max_latency_ms=1000.0,
            ),
        )
    }


PRICE, WORDS = Price(), Words()
