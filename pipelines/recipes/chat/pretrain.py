"""The recipes `pretrain` and `characters`: a small language model from scratch, with a tokenizer of its own."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from pipelines.recipes.text.settings import SplitConfig, TextTaskConfig
from pipelines.task import STRICT, Progress
from pipelines.training.language_model import LlamaShape, PretrainingConfig

if TYPE_CHECKING:
    from pipelines.task import Task


@dataclass(frozen=True, kw_only=True, config=STRICT)
class WriterModel(LlamaShape):
    """How large the model is, which tokens it has, and how it is asked.

    unit: of tokens: ``pairs`` of bytes, learned from the training part, or single ``characters``.
    vocabulary: tokens at most, of which 259 are the bytes and marks.
    window: tokens that are seen together, prompt and answer.
    prompt: what is said to the model of a row, with names of inputs in braces.  begins: the input that a text goes on
    from; where the prompt comes to nothing, that is all there is.
    max_tokens: of an answer in evaluation and by /predict.
    form: of the weights that are served.
    samples: texts that are drawn for the card, at `temperature`.
    tolerance, safetensors: see `pipelines.recipes.chat.pretrained`.
    """

    unit: Literal["pairs", "characters"] = "pairs"
    vocabulary: Annotated[int, Field(ge=1, le=200_000)] = 1_000
    window: Annotated[int, Field(ge=16)] = 256
    prompt: str = ""
    begins: str = ""
    max_tokens: Annotated[int, Field(ge=1)] = 100
    form: Literal["f32", "f16", "q8_0"] = "f16"
    samples: Annotated[int, Field(ge=1, le=100)] = 8
    temperature: Annotated[float, Field(gt=0, le=2)] = 0.8
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.5
    safetensors: bool = False


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PretrainedWriter(TextTaskConfig):
    """A language model from scratch. sample: what is made up without a source, see the task.  rows: of it."""

    split: SplitConfig = field(default_factory=lambda: SplitConfig(valid_share=0.1, test_share=0.1))
    model: WriterModel = field(default_factory=WriterModel)
    training: PretrainingConfig = field(default_factory=PretrainingConfig)
    sample: Literal["reports", "verses"] = "reports"
    rows: Annotated[int, Field(ge=20)] = 1_200

    reports: ClassVar[str] = "valid_loss"

    def train(self, task: Task, dataset: Path, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """Learn tokens and weights, measure, and write what llama.cpp serves."""
        from pipelines.recipes.chat.pretrain_run import run

        return run(self, dataset, out, checkpoints, progress)
