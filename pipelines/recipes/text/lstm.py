"""Recipe `embedding_lstm`: word vectors learned from the data, a (bi)directional LSTM, pooling; torch, then ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic.dataclasses import dataclass

from contracts.errors import PlatformError
from pipelines.federation.settings import FederationConfig
from pipelines.recipes.text.examples import Examples
from pipelines.recipes.text.neural import NeuralText
from pipelines.settings import setting
from pipelines.task import STRICT, Progress, class_output
from pipelines.training.lstm_text import LstmConfig, build_model
from pipelines.training.mitigation import Mitigation
from pipelines.training.privacy import PrivacyConfig

if TYPE_CHECKING:
    from pipelines.federation.words import Words
    from pipelines.task import Task


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LstmText(NeuralText):
    """Embedding and LSTM. mitigation: ``adversarial`` or none, for tasks with sensitive columns."""

    model: LstmConfig = field(default_factory=LstmConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    mitigation: Mitigation = field(default_factory=Mitigation)
    federation: FederationConfig = field(default_factory=FederationConfig)

    def train(self, task: Task, dataset: Path, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """As any recipe of texts; with a mitigation, one model for each strength that is tried; or by a federation.

        Raises:
            PlatformError: ``code="bad_config"``: a mitigation that weighs the rows of a table.
        """
        from pipelines.training.tradeoff import by_strength

        if self.federation.is_on:
            return self.train_by_sites(task, dataset, out, checkpoints, progress)
        if not self.mitigation.is_on:
            return super().train(task, dataset, out, checkpoints, progress)
        if {self.mitigation.method, *self.mitigation.compare} != {"adversarial"}:
            raise PlatformError(
                "texts are treated alike by an adversary, and in no other way",
                detail=f"mitigation.method is {self.mitigation.method!r}",
                fix=setting("mitigation.method", "adversarial"),
                code="bad_config",
            )
        out.mkdir(parents=True, exist_ok=True)

        def train(one: Mitigation, to: Path, kept: Path) -> dict[str, Any]:
            return replace(self, mitigation=one)._trained(task, dataset, to, kept, progress)

        classes = Examples.read(task, self, dataset, self.order).classes
        found = by_strength(task, self, classes, dataset, out, checkpoints, train)
        return {**found, "output": class_output(task, self, classes)}

    def _trained(self, task: Task, dataset: Path, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        examples = Examples.read(task, self, dataset, self.order)
        out.mkdir(parents=True, exist_ok=True)
        opponent = self.mitigation.opponent(dataset, examples.train["id"])
        found = self.learn(replace(examples, opponent=opponent), out, checkpoints, progress)
        return {"engine": "onnx", "decision": None, **found}

    def federated(self, task: Task, classes: Sequence[str]) -> Words:
        """What sites train together."""
        from pipelines.federation.words import words_of

        return words_of(self, task, classes)

    def vocabulary(self, texts: Sequence[str]) -> Any:
        """The tokenizer of `texts`."""
        from pipelines.training.tokens import train_tokenizer

        text = self.text
        return train_tokenizer(texts, unit=text.unit, vocabulary=text.vocabulary, min_frequency=text.min_frequency)

    def save(self, model: Any, factor: float, tokenizer: Any, out: Path) -> None:
        """Write tokenizer, graph and spec of a trained `build_model`; `factor` is that of its scores."""
        import numpy as np

        from pipelines.recipes.text.examples import write_spec
        from pipelines.training.onnx_text import write_lstm_graph

        tensors = {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}
        tensors["head.weight"], tensors["head.bias"] = tensors["head.weight"] * factor, tensors["head.bias"] * factor
        tokenizer.save(str(out / "tokenizer.json"), pretty=False)
        write_lstm_graph(out / "model.onnx", {name: value.astype(np.float32) for name, value in tensors.items()})
        per_token = self.model.embedding * 2 + self.model.hidden * 8
        write_spec(out, self.text, explain="occlusion", per_row=0, per_token=per_token)

    def learn(self, examples: Examples, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """See `train_lstm`."""
        return train_lstm(examples, self, out, checkpoints, progress)


def train_lstm(
    examples: Examples, config: LstmText, out: Path, checkpoints: Path, progress: Progress
) -> dict[str, Any]:
    """Train until the loss of ``valid`` stops falling, calibrate on it; write tokenizer, graph and spec to `out`.

    A private training goes to its end, is not calibrated, and takes its vocabulary from the task's own sample.
    """
    from pipelines.recipes.text.neural import Corpus, begin, fit
    from pipelines.training.batches import scores
    from pipelines.training.calibration import fit_temperature
    from pipelines.training.distributed import group
    from pipelines.training.privacy import check_settings, pay
    from pipelines.training.tokens import PAD_ID, UNKNOWN_ID

    device, texts = begin(examples, config)
    privacy, loop, rows, paid = config.privacy, config.training, len(examples.train), None
    if privacy.is_on:
        weighs = config.mitigation.is_on, "it reads the groups of rows, and pays nothing", "none"
        check_settings(privacy, rows, {"mitigation.method": weighs})
        paid = pay(privacy, rows, loop.batch_size, loop.epochs, checkpoints)
    tokenizer = config.vocabulary(config.public_texts(examples.task) if paid else texts["train"])
    limit = config.text.max_tokens
    corpus = Corpus.of(examples, texts, tokenizer, limit, pad_id=PAD_ID, unknown_id=UNKNOWN_ID)
    model = build_model(tokenizer.get_vocab_size(), len(examples.classes), config.model, bool(paid)).to(device)
    private = (privacy, paid) if paid else None
    history = fit(model, corpus, config, device, checkpoints, progress, private, examples.opponent)
    if not group().leads:
        return {"history": history, "parameters": {}, "device": device}
    held = scores(model, corpus.ids["valid"], PAD_ID, device)
    factor = 1.0 if paid else fit_temperature(held, corpus.labels["valid"])
    config.save(model, factor, tokenizer, out)
    parameters = {
        "temperature": 1 / factor,
        "vocabulary": tokenizer.get_vocab_size(),
        "epochs_run": len(history),
        "weights": sum(p.numel() for p in model.parameters()),
    }
    told = {"privacy": paid} if paid else {}
    return {"history": history, "parameters": parameters, "device": device, **told}
