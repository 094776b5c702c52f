"""Task `writing`: a text of what it is to say, or one that goes on, by a language model of one's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pipelines.recipes.chat.pretrain import PretrainedWriter, WriterModel
from pipelines.recipes.text.extracts import text_recipes
from pipelines.recipes.text.task import TextGeneration
from pipelines.task import Column, GateConfig, Threshold
from pipelines.training.language_model import PretrainingConfig
from pipelines.tuning_limits import TuningLimits

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

PROMPT = "{headline}\n{facts}"
# What the sample's model reaches with room for other rows; real data deserves limits of its own.
_GATE = GateConfig(
    primary="rouge_l",
    thresholds=(
        Threshold(metric="rouge_l", minimum=0.5),
        Threshold(metric="facts_kept", minimum=0.85),
        Threshold(metric="unsupported_numbers", maximum=0.3),
        Threshold(metric="repetition", maximum=0.1),
        Threshold(metric="distinct_2", minimum=0.15),  # the reports themselves have 0.31, 20 of them over and over 0.13
        Threshold(metric="empty", maximum=0.02),
    ),
    tuning=TuningLimits(above_ngram=0.0, memorised=0.2),
    max_latency_ms=10_000.0,
)
_MODEL = WriterModel(prompt=PROMPT, begins="beginning", layers=2, width=96)
_TRAINING = PretrainingConfig(steps=900, learning_rate=4e-3, evaluate=6)


class WritingTask(TextGeneration):
    """See `pipelines.recipes.text.task`. Plain texts are a source too, see `pipelines.data.corpus`."""

    name = "writing"
    title = "What is the text of this headline and these facts?"
    modality = "chat"
    corpora = True
    columns = (
        Column(name="id", dtype="string", unique=True),
        Column(name="headline", dtype="string", nullable=True, max_length=20_000),
        Column(name="facts", dtype="string", nullable=True, max_length=20_000),
        Column(name="beginning", dtype="string", nullable=True, max_length=20_000),
        Column(name="text", dtype="string", max_length=200_000),
    )
    label = "text"
    fields: Mapping[str, str] = {
        "headline": "what the text is about",
        "facts": "what it says, a fact on each line as NAME: VALUE",
        "beginning": "how it begins; without headline and facts, any text that is to go on",
    }
    texts = "texts"
    default_recipe = "pretrain"
    recipes = {  # noqa: RUF012 - as every task has it
        "pretrain": PretrainedWriter(recipe="pretrain", gate=_GATE, model=_MODEL, training=_TRAINING),
        "characters": PretrainedWriter(
            recipe="characters",
            gate=_GATE,
            model=replace(_MODEL, unit="characters", vocabulary=8_192, window=512, max_tokens=300),
            training=replace(_TRAINING, steps=1_500),
        ),
        "lead": text_recipes(GateConfig(primary="rouge_l"))["lead"],
    }

    def default_source(self, config: Any) -> Iterator[pa.Table]:
        """Reports or verses that are made up here."""
        import pyarrow as pa

        from pipelines.tasks.writing.reports import reports
        from pipelines.tasks.writing.verses import verses

        make = verses if getattr(config, "sample", "reports") == "verses" else reports
        rows = list(make(getattr(config, "rows", 400), config.seed))
        names = [column.name for column in self.columns]
        yield pa.table({name: pa.array([row.get(name, "") for row in rows], pa.string()) for name in names})

    def keys(self, rows: pd.DataFrame) -> list[str]:
        """A document stays in one part; the pieces of a single one are told apart by their place, texts alone by what
        they say."""
        from pipelines.recipes.text.split import text_key

        names = [str(one).rpartition("#")[0] for one in rows["id"]]
        if len(set(names)) < 2:
            asked = rows["headline"] + rows["facts"] + rows["beginning"]
            texts = zip(asked, rows["label"], rows["row_key"], strict=True)
            return [key if before.strip() else text_key(text) for before, text, key in texts]
        return [name or key for name, key in zip(names, rows["row_key"], strict=True)]

    def split(self, frame: pd.DataFrame, config: Any) -> dict[str, pd.DataFrame]:
        """By headline and facts, or by document; of one document the end is held out, as its neighbours tell it."""
        import pandas as pd

        from pipelines.recipes.text.split import text_key

        parts = super().split(frame, config)
        whole = pd.concat(list(parts.values()))
        plain = (whole["headline"] + whole["facts"]).str.strip() == ""
        names = whole["id"].str.rpartition("#")
        given = config.split.test_source or config.split.valid_source
        if plain.all() and names[0].nunique() == 1 and names[2].str.isdigit().all() and not given:
            parts = _in_order(whole.iloc[names[2].astype(int).argsort()], config.split)
        for rows in parts.values():
            mine = (rows["headline"] + rows["facts"]).str.strip() == ""
            texts = rows["beginning"] + rows["label"]
            rows.loc[mine, "row_key"] = [text_key(text) for text in texts[mine]]
        return parts


def _in_order(rows: pd.DataFrame, split: Any) -> dict[str, pd.DataFrame]:
    """The first rows for training, the next ones for validation, the last for the test."""
    test = max(1, round(split.test_share * len(rows)))
    valid = max(1, round(split.valid_share * len(rows)))
    ends = {"train": (0, len(rows) - valid - test), "valid": (len(rows) - valid - test, len(rows) - test)}
    places = {**ends, "test": (len(rows) - test, len(rows))}
    return {name: rows.iloc[start:end].reset_index(drop=True) for name, (start, end) in places.items()}


TASK = WritingTask()
