"""Recipe `crf`: spans of texts by a linear chain of tags over hashes of tokens and of what is around them; numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from pipelines.recipes.text.tagger import SpanText, TaggerText, compared, described, read_parts
from pipelines.search_space import Dimension
from pipelines.task import STRICT, GateConfig, Progress, TaskConfig
from pipelines.training.tagger import ChangeConfig

if TYPE_CHECKING:
    from contracts.token_hashes import WordList
    from pipelines.recipes.text.cautions import Learned
    from pipelines.task import Task
    from pipelines.training.linear_crf import LinearCrf
    from pipelines.training.tagger import Texts


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CrfModel:
    """size: rows of the table of hashes; each has a number for each tag.  layout: whether hashes also tell how the text
    is set around a token: its breaks of lines, its marks and the small words beyond the nearest."""

    size: Annotated[int, Field(ge=2)] = 262_144
    layout: bool = True

    @property
    def around(self) -> int:
        """As in `contracts.token_hashes.tokenise`."""
        return 1 + self.layout


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CrfTraining:
    """rate: of the first step of each weight (AdaGrad); it falls to a twentieth by the end of the last epoch."""

    epochs: Annotated[int, Field(ge=1)] = 8
    batch_size: Annotated[int, Field(ge=1)] = 16
    rate: Annotated[float, Field(gt=0)] = 0.2

    SPACE: ClassVar[Mapping[str, Dimension]] = {"rate": Dimension(low=0.05, high=0.5, log=True)}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CrfText(SpanText):
    """The recipe `crf`: linear, so it is learned in a few passes, also of tens of thousands of texts."""

    model: CrfModel = field(default_factory=CrfModel)
    training: CrfTraining = field(default_factory=CrfTraining)
    change: ChangeConfig = field(default_factory=lambda: ChangeConfig(listed=0.01, hide=0.15))

    def train(self, task: Task, dataset: Path, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """Train for all epochs; F1 on ``valid`` chooses among them, and F-beta among `cautions`."""
        from pipelines.training.linear_crf import LinearCrf, write_crf_graph

        data, kinds, words = read_parts(task, self, dataset)
        model = LinearCrf(self.model.size, 1 + 2 * len(kinds))
        history = _fit(model, data, kinds, self, checkpoints, progress, words)
        learned = _learned(model, self, words)
        out.mkdir(parents=True, exist_ok=True)
        write_crf_graph(out / "model.onnx", model.weights, words, self.model.around)
        about = described(self, learned, data["valid"], kinds, out)
        weights = model.weights.size + model.moves.size
        return {**about, "history": history, "device": "cpu"} | {
            "parameters": {**about["parameters"], "weights": weights, "epochs_run": len(history)}
        }


def tagger_recipes(gate: GateConfig) -> Mapping[str, TaskConfig]:
    """The recipes of every task of spans, by name."""
    return {"crf": CrfText(recipe="crf", gate=gate), "tagger": TaggerText(recipe="tagger", gate=gate)}


def _learned(model: LinearCrf, config: CrfText, words: WordList | None) -> Learned:
    from pipelines.recipes.text.cautions import Learned

    return Learned(
        lambda ids, _: model.scores(ids).astype("float32"),
        model.moves,
        config.model.size,
        words,
        around=config.model.around,
    )


def _fit(
    model: LinearCrf,
    data: Mapping[str, Texts],
    kinds: Sequence[str],
    config: CrfText,
    checkpoints: Path,
    progress: Progress,
    words: WordList | None,
) -> list[dict[str, float]]:
    """Train `model` in place, ending with the weights of the best epoch; what was killed goes on after its epoch."""
    import numpy as np
    import torch

    from pipelines.recipes.text.cautions import f1_of
    from pipelines.recipes.text.tagger import fingerprint
    from pipelines.training.checkpoint import Checkpoint
    from pipelines.training.tagger import batches

    training, rows = config.training, len(data["train"].texts)
    size, seen = min(training.batch_size, max(2, rows // 20)), compared(data["valid"])
    steps = -(-rows // size) * training.epochs
    checkpoint = Checkpoint(checkpoints / f"{config.recipe}.pt", fingerprint(config, kinds, data, words))
    history, best = list[dict[str, float]](), model.kept()
    if found := checkpoint.load():
        tensors, notes = found
        model.restore({name: tensors[name].numpy() for name in model.kept(whole=True)})
        best = {name: tensors[f"best_{name}"].numpy() for name in best}
        history = notes["history"]
    for epoch in range(len(history), training.epochs):
        rng, lost, tokens = np.random.default_rng([config.seed, epoch]), 0.0, 0
        for at, batch in enumerate(
            batches(
                data["train"], kinds, config.model.size, size, config.change, rng, words, around=config.model.around
            )
        ):
            done = (epoch * steps / training.epochs + at) / steps
            loss, count = model.step(*batch, rate=training.rate * (1 - 0.95 * done))
            lost, tokens = lost + loss, tokens + count
        error = 1 - f1_of(_learned(model, config, words), seen, kinds)
        history.append({"epoch": epoch + 1, "train_loss": lost / max(1, tokens), "valid_error": error})
        if error <= min(one["valid_error"] for one in history):
            best = model.kept()
        kept = {**model.kept(whole=True), **{f"best_{name}": value for name, value in best.items()}}
        checkpoint.save({name: torch.from_numpy(value) for name, value in kept.items()}, {"history": history})
        progress(epoch + 1, training.epochs, **{k: v for k, v in history[-1].items() if k != "epoch"})
    model.restore(best)
    return history
