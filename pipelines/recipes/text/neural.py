"""What the recipes that train with torch share: the loop over batches of token ids, and scores of many rows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic.dataclasses import dataclass as settings

from pipelines.recipes.text.base import TextRecipe
from pipelines.task import STRICT, Progress, class_output
from pipelines.training.batches import AugmentConfig, scores
from pipelines.training.loop import LoopConfig

if TYPE_CHECKING:
    from pipelines.recipes.text.examples import Examples
    from pipelines.task import Task
    from pipelines.training.adversary import Opponent
    from pipelines.training.privacy import PrivacyConfig


@settings(frozen=True, kw_only=True, config=STRICT)
class NeuralText(TextRecipe):
    """Base of the recipes that train with torch."""

    training: LoopConfig = field(default_factory=LoopConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    reports: ClassVar[str] = "valid_loss"

    def public_texts(self, task: Task) -> list[str]:
        """The texts of the sample that ships with the task: they are known to everybody."""
        import pandas as pd

        from pipelines.recipes.text.examples import joined_texts, text_fields

        fields = text_fields(task, self)
        sample = pd.concat([table.to_pandas() for table in task.default_source(self)])
        return joined_texts(sample.fillna(dict.fromkeys(fields, "")), fields, self.text.max_characters)

    def train_by_sites(
        self, task: Task, dataset: Path, out: Path, checkpoints: Path, progress: Progress
    ) -> dict[str, Any]:
        """Train by those of the section ``federation``, see `pipelines.federation.train.train_federated`."""
        from pipelines.federation.train import train_federated
        from pipelines.recipes.text.examples import Examples

        classes = list(task.classes or ()) or Examples.read(task, self, dataset, self.order).classes
        found = train_federated(self, task, classes, dataset, out, checkpoints, progress)
        return {**found, "output": class_output(task, self, classes)}


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Token ids and class numbers of ``train`` and ``valid``.

    pad_id, unknown_id: as the tokenizer has them.  marks: tokens at the beginning of each text that are no words.
    """

    ids: dict[str, list[Any]]
    labels: dict[str, Any]
    classes: int
    pad_id: int
    unknown_id: int
    marks: int = 0

    @classmethod
    def of(
        cls,
        examples: Examples,
        texts: dict[str, list[str]],
        tokenizer: Any,
        max_tokens: int,
        *,
        pad_id: int,
        unknown_id: int,
        marks: int = 0,
    ) -> Corpus:
        """Tokenise `texts` of the rows of `examples`."""
        import numpy as np

        from pipelines.recipes.text.examples import label_numbers
        from pipelines.training.tokens import tokenise

        ids = {
            name: [np.array(row, np.int64) for row in tokenise(tokenizer, these, max_tokens)]
            for name, these in texts.items()
        }
        labels = {name: label_numbers(getattr(examples, name), examples.classes) for name in texts}
        return cls(
            ids=ids, labels=labels, classes=len(examples.classes), pad_id=pad_id, unknown_id=unknown_id, marks=marks
        )

    def fingerprint(self, *others: str) -> str:
        """Names the texts, the labels and `others`: all that trained weights depend on."""
        digest = hashlib.sha256("|".join(others).encode())
        for name in sorted(self.ids):
            digest.update(self.labels[name].tobytes())
            for row in self.ids[name]:
                digest.update(row.tobytes() + b"|")
        return digest.hexdigest()


def begin(examples: Examples, config: NeuralText) -> tuple[str, dict[str, list[str]]]:
    """Seed torch; the device to train on, and the texts of ``train`` and ``valid``."""
    from pipelines.recipes.text.examples import joined_texts
    from pipelines.training.device import import_torch, resolve_device

    device = resolve_device(config.training.device)
    torch = import_torch()
    torch.set_num_threads(config.training.threads)
    torch.manual_seed(config.seed)
    parts = {"train": examples.train, "valid": examples.valid}
    cut = config.text.max_characters
    return device, {name: joined_texts(rows, examples.fields, cut) for name, rows in parts.items()}


def fit(
    model: Any,
    corpus: Corpus,
    config: NeuralText,
    device: str,
    checkpoints: Path,
    progress: Progress,
    private: tuple[PrivacyConfig, Mapping[str, Any]] | None = None,
    opponent: Opponent | None = None,
) -> list[dict[str, float]]:
    """Train `model`, of ids (rows, tokens) and lengths (rows,) to logits, until the loss of ``valid`` stops falling.

    private: what is asked, and what was paid for it; then, and against an opponent, to the end of all epochs.
    """
    import numpy as np
    import torch
    from torch.nn.functional import cross_entropy

    from pipelines.task import dump_config
    from pipelines.training.adversary import against, opposed
    from pipelines.training.batches import augment, bucket, pad
    from pipelines.training.checkpoint import Checkpoint
    from pipelines.training.distributed import group
    from pipelines.training.linear_text import class_weight
    from pipelines.training.loop import eager, run_epochs
    from pipelines.training.privacy import drawn, private_loop, privately, steps_of

    training, here, ids, labels = config.training, group(), corpus.ids, corpus.labels
    training = private_loop(training) if private else training
    lengths = np.array([len(row) for row in ids["train"]], np.int64)
    balanced = class_weight(labels["train"], corpus.classes) if training.class_weights else np.ones(corpus.classes)
    weight = torch.tensor(balanced, dtype=torch.float32, device=device)
    # A few hundred articles would be a handful of steps an epoch; smaller batches make it at least twenty.
    batch_size = training.batch_size if private else min(training.batch_size, max(4, len(lengths) // 20))
    share, steps = steps_of(len(lengths), batch_size)

    def noisy(row: Any, rng: np.random.Generator) -> Any:
        words = augment(row[corpus.marks :], config.augment, corpus.unknown_id, rng)
        return np.concatenate([row[: corpus.marks], words])

    def batches(epoch: int) -> Any:
        rng = np.random.default_rng([config.seed, epoch])
        for found in drawn(len(lengths), share, steps) if private else bucket(lengths, batch_size, rng):
            rows = found if len(found) else np.zeros(1, np.int64)  # a step without rows is a row that does not count
            # Every process draws the same noise for all rows, and takes its share after that.
            changed = [noisy(ids["train"][at], rng) for at in rows]
            targets = torch.from_numpy(labels["train"][rows]).to(device)
            mine = here.share(np.arange(len(rows))) if len(rows) >= here.size else np.arange(len(rows))
            copies = 1 if len(rows) >= here.size else here.size  # too few to share: each does all of them
            padded, sizes = pad([changed[at] for at in mine], corpus.pad_id)
            scale = float(len(found) > 0) if private else here.size / copies / float(weight[targets].sum())
            inputs = torch.from_numpy(padded).to(device), torch.from_numpy(sizes).to(device)
            yield inputs, targets[torch.from_numpy(mine).to(device)], scale, torch.from_numpy(rows[mine]).to(device)

    guessed = against(opponent, device)

    def loss(current: Any, batch: Any) -> Any:
        """The weighted mean over the whole batch, of which this is a share."""
        inputs, targets, scale, rows = batch
        answers, extra = guessed(current, inputs, targets, rows)
        return cross_entropy(answers, targets, weight=weight, reduction="sum") * scale + extra

    def evaluate(current: Any) -> dict[str, float]:
        found = torch.from_numpy(scores(current, ids["valid"], corpus.pad_id, device))
        target = torch.from_numpy(labels["valid"])
        accuracy = float((found.argmax(dim=1) == target).double().mean())
        return {"valid_loss": float(cross_entropy(found, target)), "valid_accuracy": accuracy}

    each = steps if private else -(-len(lengths) // batch_size)
    trained = model if opponent is None else opposed(model, opponent, corpus.classes, each * training.epochs)
    optimizer = eager(torch.optim.AdamW)(
        trained.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
    )
    paid = private[1]["id"] if private else ""
    decides = corpus.fingerprint(dump_config(config), device, paid, opponent.fingerprint() if opponent else "")
    with privately(model, optimizer, private, batch_size, "train --recipe embedding_lstm") as steps_by:
        return run_epochs(
            trained,
            steps_by,
            batches=batches,
            steps_per_epoch=each,
            loss=loss,
            evaluate=evaluate,
            monitor=None if private or opponent else "valid_loss",
            config=training,
            seed=config.seed,
            checkpoint=Checkpoint(checkpoints / f"{config.recipe}.pt", decides),
            progress=progress,
        )
