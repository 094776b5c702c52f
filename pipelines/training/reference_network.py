"""The network on whose features generated images are compared with real ones: a classifier of the training part."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from contracts.images import SPEC
from pipelines.evaluation.image_reference import ABOUT, GRAPH
from pipelines.task import STRICT, Progress

if TYPE_CHECKING:
    from contracts.images import ImageSpec
    from pipelines.training.pictures import Pictures

_BATCH, _RATE = 64, 0.1


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ReferenceConfig:
    """Sizes and training of a small residual network, see `pipelines.training.image_network.residual_network`."""

    widths: Annotated[tuple[Annotated[int, Field(ge=4, le=1024)], ...], Field(min_length=2, max_length=6)] = (8, 16, 48)
    epochs: Annotated[int, Field(ge=1, le=1000)] = 8
    threads: Annotated[int, Field(ge=1, le=256)] = 1


def write_reference(
    dataset: Path, column: str, spec: ImageSpec, config: ReferenceConfig, seed: int, out: Path, progress: Progress
) -> dict[str, Any]:
    """Train on ``train.parquet``, and write `GRAPH`, `ABOUT` and image.json to `out`; returns what `ABOUT` says.

    The graph has two outputs: ``probabilities`` of the classes, and ``vector``, the features before them.
    """
    import numpy as np
    import pandas as pd
    import torch

    from pipelines.training.image_network import export, residual_network, show_vector
    from pipelines.training.loop import eager
    from pipelines.training.pictures import channel_scale, decode_part, shuffled

    torch.set_num_threads(config.threads)
    torch.manual_seed(seed)
    classes = sorted(set(pd.read_parquet(dataset / "train.parquet", columns=["label"])["label"]))
    with tempfile.TemporaryDirectory(prefix=".pixels-", dir=out) as scratch:
        train, valid = (
            decode_part(dataset / f"{name}.parquet", column, spec, classes, Path(scratch))
            for name in ("train", "valid")
        )
        mean, deviation = channel_scale(train.pixels)
        spec = spec.model_copy(update={"mean": mean, "std": deviation, "softmax": True})
        blocks = [1] * (len(config.widths) - 1)
        network = residual_network(len(classes), len(spec.mode), config.widths, blocks)
        size = min(_BATCH, max(4, len(train.labels) // 4))
        steps = config.epochs * sum(1 for _ in shuffled(len(train.labels), size, np.random.default_rng(0)))
        optimizer = eager(torch.optim.SGD)(network.parameters(), lr=_RATE, momentum=0.9, weight_decay=5e-4)
        done = 0
        for epoch in range(config.epochs):
            network.train()
            for rows in shuffled(len(train.labels), size, np.random.default_rng([seed, epoch])):
                for weights in optimizer.param_groups:
                    weights["lr"] = _RATE * min(1.0, (done + 1) / 20, (steps - done) / steps + 0.02)
                optimizer.zero_grad()
                logits = network(torch.from_numpy(spec.normalised(train.pixels[rows])))
                loss: Any = torch.nn.functional.cross_entropy(logits, torch.from_numpy(train.labels[rows]))
                loss.backward()
                optimizer.step()
                done += 1
            progress(epoch + 1, config.epochs, valid_accuracy=_accuracy(network, valid, spec))
        accuracy = _accuracy(network, valid, spec)
    graph = out / GRAPH
    graph.write_bytes(export(network, (len(spec.mode), spec.height, spec.width), 1.0))
    show_vector(graph)
    (out / SPEC).write_text(spec.model_dump_json(indent=1) + "\n", encoding="utf-8")
    widths = "-".join(map(str, config.widths))
    about = {
        "name": f"residual network {widths}, trained on {len(train.labels)} images of this run",
        "sha256": hashlib.sha256(graph.read_bytes()).hexdigest(),
        "features": config.widths[-1],
        "classes": classes,
        "valid_accuracy": accuracy,
    }
    (out / ABOUT).write_text(json.dumps(about, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return about


def _accuracy(network: Any, part: Pictures, spec: ImageSpec) -> float:
    import torch

    network.eval()
    right = 0
    with torch.no_grad():
        for at in range(0, len(part.labels), 256):
            found = network(torch.from_numpy(spec.normalised(part.pixels[at : at + 256]))).argmax(dim=1).numpy()
            right += int((found == part.labels[at : at + 256]).sum())
    return right / len(part.labels)
