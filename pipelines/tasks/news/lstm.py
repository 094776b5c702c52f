"""Recipe `embedding_lstm`: word vectors learned from the data, a (bi)directional LSTM, pooling; torch, then ONNX."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic.dataclasses import dataclass

from pipelines.tasks.base import STRICT, Progress

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.tasks.news.config import LstmNews


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LstmConfig:
    """Sizes and dropout. dropout: on word vectors and on the pooled states."""

    embedding: int = 128
    hidden: int = 64
    bidirectional: bool = True
    dropout: float = 0.5


def build_model(vocabulary: int, classes: int, config: LstmConfig) -> Any:
    """A torch module: ids (rows, tokens), padded on the right, and lengths (rows,) >= 1 -> logits (rows, classes)."""
    import torch
    from torch import nn

    class LstmClassifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(vocabulary, config.embedding)
            nn.init.normal_(self.embedding.weight, std=0.1)
            self.lstm = nn.LSTM(config.embedding, config.hidden, batch_first=True)
            if config.bidirectional:
                self.lstm_reverse = nn.LSTM(config.embedding, config.hidden, batch_first=True)
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
    train: pd.DataFrame,
    valid: pd.DataFrame,
    classes: list[str],
    config: LstmNews,
    out: Path,
    checkpoints: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Train until the loss of `valid` stops falling, calibrate on it, and write tokenizer, graph and spec to `out`."""
    import numpy as np

    from pipelines.tasks.news.export import joined_texts, label_numbers, write_spec
    from pipelines.training.calibration import fit_temperature
    from pipelines.training.device import import_torch, resolve_device
    from pipelines.training.distributed import group
    from pipelines.training.onnx_text import write_lstm_graph
    from pipelines.training.tokens import tokenise, train_tokenizer

    device = resolve_device(config.training.device)
    torch = import_torch()
    texts = {
        name: joined_texts(rows, config.text.max_characters) for name, rows in (("train", train), ("valid", valid))
    }
    tokenizer = train_tokenizer(
        texts["train"],
        unit=config.text.unit,
        vocabulary=config.text.vocabulary,
        min_frequency=config.text.min_frequency,
    )
    ids = {
        name: [np.array(row, np.int64) for row in tokenise(tokenizer, these, config.text.max_tokens)]
        for name, these in texts.items()
    }
    labels = {"train": label_numbers(train, classes), "valid": label_numbers(valid, classes)}
    torch.set_num_threads(config.training.threads)
    torch.manual_seed(config.seed)
    model = build_model(tokenizer.get_vocab_size(), len(classes), config.model).to(device)
    history = _fit(model, ids, labels, len(classes), config, device, checkpoints, progress)
    if not group().leads:
        return {"history": history, "parameters": {}, "device": device}
    factor = fit_temperature(_scores(model, ids["valid"], device), labels["valid"])
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
    return {"history": history, "parameters": parameters, "device": device}


def _fit(
    model: Any,
    ids: dict[str, list[Any]],
    labels: dict[str, Any],
    classes: int,
    config: LstmNews,
    device: str,
    checkpoints: Path,
    progress: Progress,
) -> list[dict[str, float]]:
    import numpy as np
    import torch
    from torch.nn.functional import cross_entropy

    from pipelines.training.batches import augment, bucket, pad
    from pipelines.training.checkpoint import Checkpoint
    from pipelines.training.distributed import group
    from pipelines.training.linear_text import class_weight
    from pipelines.training.loop import run_epochs
    from pipelines.training.tokens import PAD_ID, UNKNOWN_ID

    settings, here = config.training, group()
    lengths = np.array([len(row) for row in ids["train"]], np.int64)
    weight = class_weight(labels["train"], classes) if settings.class_weights else np.ones(classes)
    weight = torch.tensor(weight, dtype=torch.float32, device=device)
    # A few hundred articles would be a handful of steps an epoch; smaller batches make it at least twenty.
    batch_size = min(settings.batch_size, max(4, len(lengths) // 20))

    def batches(epoch: int) -> Any:
        rng = np.random.default_rng([config.seed, epoch])
        for rows in bucket(lengths, batch_size, rng):
            # Every process draws the same noise for all rows, and takes its share after that.
            noisy = [augment(ids["train"][at], config.augment, UNKNOWN_ID, rng) for at in rows]
            targets = torch.from_numpy(labels["train"][rows]).to(device)
            mine = here.share(np.arange(len(rows))) if len(rows) >= here.size else np.arange(len(rows))
            copies = 1 if len(rows) >= here.size else here.size  # too few to share: each does all of them
            padded, sizes = pad([noisy[at] for at in mine], PAD_ID)
            scale = here.size / copies / float(weight[targets].sum())
            inputs = torch.from_numpy(padded).to(device), torch.from_numpy(sizes).to(device)
            yield *inputs, targets[torch.from_numpy(mine).to(device)], scale

    def loss(current: Any, batch: Any) -> Any:
        """The weighted mean over the whole batch, of which this is a share."""
        return cross_entropy(current(batch[0], batch[1]), batch[2], weight=weight, reduction="sum") * batch[3]

    def evaluate(current: Any) -> dict[str, float]:
        scores = torch.from_numpy(_scores(current, ids["valid"], device))
        target = torch.from_numpy(labels["valid"])
        accuracy = float((scores.argmax(dim=1) == target).double().mean())
        return {"valid_loss": float(cross_entropy(scores, target)), "valid_accuracy": accuracy}

    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    return run_epochs(
        model,
        optimizer,
        batches=batches,
        loss=loss,
        evaluate=evaluate,
        monitor="valid_loss",
        config=settings,
        seed=config.seed,
        checkpoint=Checkpoint(checkpoints / "embedding_lstm.pt", _fingerprint(ids, labels, config, device)),
        progress=progress,
    )


def _scores(model: Any, rows: list[Any], device: str, size: int = 256) -> Any:
    """Logits, float64, shape (rows, classes), without dropout."""
    import numpy as np
    import torch

    from pipelines.training.batches import pad
    from pipelines.training.tokens import PAD_ID

    model.eval()
    order = np.argsort([len(row) for row in rows], kind="stable")
    result = [np.zeros(0)] * len(rows)
    with torch.no_grad():
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            padded, lengths = pad([rows[at] for at in chosen], PAD_ID)
            inputs = torch.from_numpy(padded).to(device), torch.from_numpy(lengths).to(device)
            scores = model(*inputs).double().cpu().numpy()
            for at, row in zip(chosen, scores, strict=True):
                result[at] = row
    return np.stack(result)


def _fingerprint(ids: dict[str, list[Any]], labels: dict[str, Any], config: LstmNews, device: str) -> str:
    """Names all that the weights depend on."""
    from pipelines.tasks import dump_config

    digest = hashlib.sha256(f"{dump_config(config)}|{device}".encode())
    for name in sorted(ids):
        digest.update(labels[name].tobytes())
        for row in ids[name]:
            digest.update(row.tobytes() + b"|")
    return digest.hexdigest()
