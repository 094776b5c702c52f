"""The recipes `sft`, `lora`, `qlora`, `dpo` and `distill`: a chat model that goes on learning, served by llama.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import Field
from pydantic.dataclasses import dataclass

from contracts.errors import PlatformError
from pipelines.recipes.chat.pretrained import PretrainedModel
from pipelines.recipes.chat.teacher import TeacherConfig
from pipelines.recipes.text.settings import SplitConfig, TextTaskConfig
from pipelines.task import STRICT, GateConfig, Progress
from pipelines.training.chat_tuning import LoraConfig, TuningConfig
from pipelines.tuning_limits import TuningLimits

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.task import Task
    from pipelines.training.conversations import Example, Template

PREFERENCES = "preferences"  # the table of the data set with the worse answers


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TunedModel(PretrainedModel):
    """Which model is tuned, and how it is asked and served.

    format: a regular expression that a whole answer should fit; its share is measured before and after. "" for none.
    """

    format: str = ""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TunedChat(TextTaskConfig):
    """Supervised tuning on the answers of the data; with `lora.rank` 0 of all weights.

    rows: of the built-in instructions.
    """

    split: SplitConfig = field(default_factory=lambda: SplitConfig(valid_share=0.12, test_share=0.15))
    model: TunedModel = field(default_factory=TunedModel)
    training: TuningConfig = field(default_factory=TuningConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    rows: Annotated[int, Field(ge=20)] = 410

    reports: ClassVar[str] = "valid_loss"

    def training_part(self) -> Self:
        """Keeps what the form of the weights is chosen by."""
        limits = TuningLimits(quantised_bits=self.gate.tuning.quantised_bits)
        kept = GateConfig(primary=self.gate.primary, int8_tolerance=self.gate.int8_tolerance, tuning=limits)
        return replace(super().training_part(), gate=kept)

    def examples(
        self, template: Template, frames: dict[str, pd.DataFrame], dataset: Path, progress: Progress
    ) -> dict[str, Any]:
        """What is learned from, ``train`` and ``valid``."""
        return {name: _examples(template, rows, rows["label"].tolist(), self) for name, rows in frames.items()}

    def origin(self) -> dict[str, str]:
        """What is to be known of where the answers come from."""
        return {}

    def planned_steps(self, task: Task, dataset: Path, folder: Path, limit: float) -> dict[str, Any]:
        """What `fairlead plan` says of a tuning, from a few real steps; even a small one would cost too much."""
        from pipelines.recipes.chat.planned_steps import planned_steps

        return planned_steps(self, task, dataset, folder, limit)

    def train(self, task: Task, dataset: Path, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """Tune, measure before and after, and write the form that is served."""
        from pipelines.recipes.chat.tuning_run import run

        return run(self, task, dataset, out, checkpoints, progress)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PreferredChat(TunedChat):
    """Direct preference optimisation (Rafailov et al. 2023) on pairs: the answer, and a worse one in ``rejected``."""

    def examples(
        self, template: Template, frames: dict[str, pd.DataFrame], dataset: Path, progress: Progress
    ) -> dict[str, Any]:
        """Pairs; rows without a worse answer are left out.

        Raises:
            PlatformError: ``code="bad_data"``: a part has none.
        """
        import pandas as pd

        from pipelines.training.chat_tuning import Pair

        file = dataset / f"{PREFERENCES}.parquet"
        table = pd.read_parquet(file) if file.exists() else pd.DataFrame({"id": [], "rejected": []})
        worse = dict(zip(table["id"].astype(str), table["rejected"].fillna("").astype(str), strict=True))
        found = {}
        for name, rows in frames.items():
            kept = rows[[bool(worse.get(str(one))) for one in rows["id"]]]
            if kept.empty:
                raise PlatformError(
                    f"no row of the {name} part has a worse answer, and DPO learns from pairs",
                    detail=f"{len(rows)} rows; rejected is empty or missing in all of them",
                    fix="give a column rejected: --set data.columns.rejected=NAME, or take --recipe lora",
                    code="bad_data",
                )
            both = [
                _examples(template, kept, answers, self)
                for answers in (kept["label"].tolist(), [worse[str(one)] for one in kept["id"]])
            ]
            found[name] = [Pair(chosen=good, rejected=bad) for good, bad in zip(*both, strict=True)]
        return found


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DistilledChat(TunedChat):
    """Supervised tuning on a teacher's answers to the prompts of the data; the test keeps the data's own answers."""

    teacher: TeacherConfig = field(default_factory=TeacherConfig)

    def examples(
        self, template: Template, frames: dict[str, pd.DataFrame], dataset: Path, progress: Progress
    ) -> dict[str, Any]:
        """The prompts with the teacher's answers, asked by the process that leads."""
        from pipelines.recipes.chat.teacher import answers_of

        found = {}
        for name, rows in frames.items():
            answers = answers_of(
                self.teacher,
                rows["prompt"].tolist(),
                self.model.system,
                lambda done, all_: progress(0, self.training.epochs, asked=done, of=all_),
            )
            found[name] = _examples(template, rows, answers, self)
        return found

    def origin(self) -> dict[str, str]:
        """Teacher and licence."""
        return {"teacher": self.teacher.model, "teacher_licence": self.teacher.licence}


def _examples(template: Template, rows: pd.DataFrame, answers: Sequence[str], config: TunedChat) -> list[Example]:
    from pipelines.training.conversations import examples_of

    return examples_of(template, rows["prompt"].tolist(), answers, config.training.max_tokens)
