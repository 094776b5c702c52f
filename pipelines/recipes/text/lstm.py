"""Recipe `embedding_lstm`: word vectors learned from the data, a (bi)directional LSTM, pooling; torch, then ONNX."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic.dataclasses import dataclass

from contracts.errors import PlatformError
from pipelines.recipes.text.examples import Examples
from pipelines.recipes.text.neural import NeuralText
from pipelines.search_space import Dimension
from pipelines.settings import setting
from pipelines.task import STRICT, Progress, class_output
from pipelines.training.mitigation import Mitigation
from pipelines.training.privacy import PrivacyConfig

if TYPE_CHECKING:
    from pipelines.task import Task


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LstmConfig:
    """Sizes and dropout. dropout: on word vectors and on the pooled states."""

    embedding: int = 128
    hidden: int = 64
    bidirectional: bool = True
    dropout: float = 0.5

    SPACE: ClassVar[Mapping[str, Dimension]] = {
        "embedding": Dimension(low=32, high=256, log=True),
        "hidden": Dimension(low=16, high=128, log=True),
        "dropout": Dimension(low=0.0, high=0.7),
    }


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LstmText(NeuralText):
    """Embedding and LSTM. mitigation: ``adversarial`` or none, for tasks with sensitive columns."""

    model: LstmConfig = field(default_factory=LstmConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    mitigation: Mitigation = field(default_factory=Mitigation)

    def train(self, task: Task, dataset: Path, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """As any recipe of texts; with a mitigation, one model for each strength that is tried.

        Raises:
            PlatformError: ``code="bad_config"``: a mitigation that weighs the rows of a table.
        """
        from pipelines.training.tradeoff import by_strength

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

    def learn(self, examples: Examples, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """See `train_lstm`."""
        return train_lstm(examples, self, out, checkpoints, progress)


def build_model(vocabulary: int, classes: int, config: LstmConfig, private: bool = False) -> Any:
    """A torch module: ids (rows, tokens), padded on the right, and lengths (rows,) >= 1 -> logits (rows, classes).

    private: of layers that give the gradient of each row, which is slower; weights have the same names.
    """
    import torch
    from torch import nn

    lstm: Any = nn.LSTM
    if private:
        from opacus.layers import DPLSTM

        lstm = DPLSTM

    class LstmClassifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(vocabulary, config.embedding)
            nn.init.normal_(self.embedding.weight, std=0.1)
            self.lstm = lstm(config.embedding, config.hidden, batch_first=True)
            if config.bidirectional:
                self.lstm_reverse = lstm(config.embedding, config.hidden, batch_first=True)
            self.dropout = nn.Dropout(config.dropout)
            states = config.hidden * (2 if config.bidirectional else 1)
            self.head = nn.Linear(2 * (states + config.embedding), classes)

        def forward(self, ids: Any, lengths: Any) -> Any:
            vectors = self.dropout(self.embedding(ids))
            places = torch.arange(ids.shape[1], device=ids.device)[None, :]
            states = self.lstm(vectors)[0]
            if config.bidirectional:
                # Each row turned round within its own length: padding stays behind the text in both directions, so
                # nothing has to be packed, which is four times faster on a CPU.
                turned = (lengths[:, None] - 1 - places).clamp(min=0)[:, :, None]
                backwards = self.lstm_reverse(vectors.gather(1, turned.expand_as(vectors)))[0]
                states = torch.cat([states, backwards.gather(1, turned.expand_as(backwards))], dim=2)
            # The word vectors themselves are pooled too: with little data they are what is learned first.
            states = torch.cat([states, vectors], dim=2)
            outside = (places >= lengths[:, None])[:, :, None]
            highest = states.masked_fill(outside, -1e9).amax(dim=1)
            mean = states.masked_fill(outside, 0.0).sum(dim=1) / lengths[:, None]
            return self.head(self.dropout(torch.cat([highest, mean], dim=1)))

    return LstmClassifier()


def train_lstm(
    examples: Examples, config: LstmText, out: Path, checkpoints: Path, progress: Progress
) -> dict[str, Any]:
    """Train until the loss of ``valid`` stops falling, calibrate on it; write tokenizer, graph and spec to `out`.

    A private training goes to its end, is not calibrated, and takes its vocabulary from the task's own sample.
    """
    import numpy as np

    from pipelines.recipes.text.examples import write_spec
    from pipelines.recipes.text.neural import Corpus, begin, fit, scores
    from pipelines.training.calibration import fit_temperature
    from pipelines.training.distributed import group
    from pipelines.training.onnx_text import write_lstm_graph
    from pipelines.training.privacy import check_settings, pay
    from pipelines.training.tokens import PAD_ID, UNKNOWN_ID, train_tokenizer

    device, texts = begin(examples, config)
    privacy, loop, rows, paid = config.privacy, config.training, len(examples.train), None
    if privacy.is_on:
        weighs = config.mitigation.is_on, "it reads the groups of rows, and pays nothing", "none"
        check_settings(privacy, rows, {"mitigation.method": weighs})
        paid = pay(privacy, rows, loop.batch_size, loop.epochs, checkpoints)
    tokenizer = train_tokenizer(
        public_texts(examples, config) if paid else texts["train"],
        unit=config.text.unit,
        vocabulary=config.text.vocabulary,
        min_frequency=config.text.min_frequency,
    )
    limit = config.text.max_tokens
    corpus = Corpus.of(examples, texts, tokenizer, limit, pad_id=PAD_ID, unknown_id=UNKNOWN_ID)
    model = build_model(tokenizer.get_vocab_size(), len(examples.classes), config.model, bool(paid)).to(device)
    private = (privacy, paid) if paid else None
    history = fit(model, corpus, config, device, checkpoints, progress, private, examples.opponent)
    if not group().leads:
        return {"history": history, "parameters": {}, "device": device}
    held = scores(model, corpus.ids["valid"], PAD_ID, device)
    factor = 1.0 if paid else fit_temperature(held, corpus.labels["valid"])
    tensors = {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}
    tensors["head.weight"], tensors["head.bias"] = tensors["head.weight"] * factor, tensors["head.bias"] * factor
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    write_lstm_graph(out / "model.onnx", {name: value.astype(np.float32) for name, value in tensors.items()})
    per_token = config.model.embedding * 2 + config.model.hidden * 8
    write_spec(out, config.text, explain="occlusion", per_row=0, per_token=per_token)
    parameters = {
        "temperature": 1 / factor,
        "vocabulary": tokenizer.get_vocab_size(),
        "epochs_run": len(history),
        "weights": sum(p.numel() for p in model.parameters()),
    }
    told = {"privacy": paid} if paid else {}
    return {"history": history, "parameters": parameters, "device": device, **told}


def public_texts(examples: Examples, config: LstmText) -> list[str]:
    """The texts of the sample that ships with the task: they are known to everybody."""
    import pandas as pd

    from pipelines.recipes.text.examples import joined_texts

    sample = pd.concat([table.to_pandas() for table in examples.task.default_source(config)])
    return joined_texts(sample.fillna(dict.fromkeys(examples.fields, "")), examples.fields, config.text.max_characters)
