"""Recipes of texts for texts; here those that take passages of the input: `lead` and `textrank`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from contracts.passages import Unit
from pipelines.recipes.text.settings import SplitConfig, TextConfig, TextTaskConfig
from pipelines.task import STRICT, GateConfig, Progress, TaskConfig

if TYPE_CHECKING:
    from contracts.engines.extractive import ExtractSpec
    from pipelines.task import Task

_COMPARED = 2_000  # rows that choose; more tell nothing new


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ExtractModel:
    """How passages are taken.

    unit: of a passage; "line" suits dialogues, "clause" titles.  passages: candidates for how many are taken; the
    training and validation rows choose by ROUGE-L.
    """

    method: Literal["lead", "textrank"] = "lead"
    unit: Unit = "sentence"
    passages: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (1, 2, 3)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ExtractText(TextTaskConfig):
    """A text of passages of the input; of `text` only `max_characters` applies."""

    text: TextConfig = field(default_factory=lambda: TextConfig(max_characters=50_000))
    model: ExtractModel = field(default_factory=ExtractModel)

    def train(self, task: Task, dataset: Path, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """Choose how many passages are taken, and write what the engine reads."""
        from contracts.engines.extractive import FILE, ExtractSpec
        from pipelines.recipes.text.terms import read_parts

        parts = read_parts(task, self, dataset)
        texts = [*parts.train_texts, *parts.valid_texts][:_COMPARED]
        wanted = [*parts.train["label"], *parts.valid["label"]][:_COMPARED]
        candidates = sorted(set(self.model.passages))
        history: list[dict[str, Any]] = []
        for at, number in enumerate(candidates):
            spec = ExtractSpec(
                method=self.model.method,
                unit=self.model.unit,
                passages=number,
                max_characters=self.text.max_characters,
            )
            history.append({"passages": number, "rouge_l": _overlap(texts, wanted, spec)})
            progress(at + 1, len(candidates), **history[-1])
        best = max(history, key=lambda one: (one["rouge_l"], -one["passages"]))
        chosen = spec.model_copy(update={"passages": best["passages"]})
        out.mkdir(parents=True, exist_ok=True)
        (out / FILE).write_text(chosen.model_dump_json(indent=1) + "\n", encoding="utf-8")
        return {
            "engine": "extractive",
            "output": {"problem": "generation", "max_characters": self.text.max_characters + best["passages"]},
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
    return {
        "lead": lead,
        "textrank": replace(lead, recipe="textrank", model=ExtractModel(method="textrank")),
        # An answer is written token by token, each of which takes a millisecond.
        "seq2seq": Seq2SeqText(recipe="seq2seq", gate=replace(gate, max_latency_ms=500.0)),
        "prompted": PromptedText(recipe="prompted", gate=replace(gate, max_latency_ms=60_000.0)),
    }


def _overlap(texts: Sequence[str], wanted: Sequence[str], spec: ExtractSpec) -> float:
    """The mean ROUGE-L of what `spec` takes of each text."""
    from contracts.engines.extractive import extract
    from pipelines.evaluation.text_measures import pair, rouge_l

    found = [rouge_l(pair(extract(text, spec), reference)) for text, reference in zip(texts, wanted, strict=True)]
    return sum(found) / max(1, len(found))
