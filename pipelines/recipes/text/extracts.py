"""Recipes of texts for texts; here those that take passages of the input: `lead`, `textrank` and `scored`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from contracts.passages import Unit
from pipelines.recipes.text.settings import SplitConfig, TextConfig, TextTaskConfig
from pipelines.task import STRICT, GateConfig, Progress, TaskConfig

if TYPE_CHECKING:
    from pipelines.task import Task


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ExtractModel:
    """How passages are taken.

    unit: of a passage; "line" suits dialogues, "clause" titles.  passages: candidates for how many are taken; every
    unit is one with "auto". The training and validation rows choose by ROUGE-L; of ``scored`` the validation rows.
    """

    method: Literal["lead", "textrank", "scored"] = "lead"
    unit: Literal["auto"] | Unit = "auto"
    passages: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (1, 2, 3)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ExtractText(TextTaskConfig):
    """A text of passages of the input; of `text` only `max_characters` applies."""

    text: TextConfig = field(default_factory=lambda: TextConfig(max_characters=50_000))
    model: ExtractModel = field(default_factory=ExtractModel)

    def train(self, task: Task, dataset: Path, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """Choose how many passages are taken, of ``scored`` also which, and write what the engine reads."""
        from contracts.engines.extractive import FILE
        from pipelines.recipes.text.terms import read_parts
        from pipelines.training.extracts import UNITS, Texts, choose, learn

        parts = read_parts(task, self, dataset)
        train = Texts(sources=parts.train_texts, wanted=list(parts.train["label"]))
        valid = Texts(sources=parts.valid_texts, wanted=list(parts.valid["label"]))
        model, most = self.model, self.text.max_characters
        units = UNITS if model.unit == "auto" else (model.unit,)
        if model.method == "scored":
            chosen, history = learn(train, valid, units, model.passages, most)
        else:
            chosen, history = choose(train + valid, model.method, units, model.passages, most)
        progress(1, 1, rouge_l=max(row["rouge_l"] for row in history))
        out.mkdir(parents=True, exist_ok=True)
        (out / FILE).write_text(chosen.model_dump_json(indent=1) + "\n", encoding="utf-8")
        return {
            "engine": "extractive",
            "output": {"problem": "generation", "max_characters": most + chosen.passages},
            "decision": None,
            "history": history,
            "parameters": {"method": chosen.method, "unit": chosen.unit, "passages": chosen.passages},
            "device": "cpu",
        }


def text_recipes(gate: GateConfig) -> Mapping[str, TaskConfig]:
    """The recipes of every task that writes a text for a text, by name: passages, a model of its own, a chat model."""
    from pipelines.recipes.text.prompted import PromptedText
    from pipelines.recipes.text.seq2seq import Seq2SeqText

    # One number is learned, so most rows are better used to measure.
    lead = ExtractText(recipe="lead", gate=gate, split=SplitConfig(valid_share=0.1, test_share=0.5))
    learned = replace(gate, tuning=replace(gate.tuning, above_passages=0.0))
    scored = ExtractModel(method="scored")
    return {
        "lead": lead,
        "textrank": replace(lead, recipe="textrank", model=ExtractModel(method="textrank")),
        "scored": ExtractText(recipe="scored", gate=learned, model=scored, split=SplitConfig(valid_share=0.15)),
        # An answer is written token by token, each of which takes a millisecond.
        "seq2seq": Seq2SeqText(recipe="seq2seq", gate=replace(learned, max_latency_ms=500.0)),
        "prompted": PromptedText(recipe="prompted", gate=replace(gate, max_latency_ms=60_000.0)),
    }
