"""One process of a distributed training: dataset in, model out, by folders or ``s3://`` addresses.

``torchrun -m pipelines.steps.train_worker`` starts it, in every pod.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from contracts import storage
from pipelines.io import events
from pipelines.io.remote import folder_here
from pipelines.io.weights import HUB, hub_allowed
from pipelines.steps.train import train
from pipelines.tasks import get_task, load_config
from pipelines.training.distributed import joined


def work(task: str, config: str, dataset: str, checkpoints: str, out: str) -> None:
    """Be one process of a training. Process 0 reports events and leaves ``model/`` and ``train.json`` in `out`."""
    hub = os.environ.get(HUB, "")
    with joined() as here, folder_here(dataset, last="dataset.json") as data, tempfile.TemporaryDirectory() as scratch:
        if here.leads:
            folder = Path(scratch) / "out" if storage.is_remote(out) else Path(out)
            with events.running("train") as done:
                result = train(task, config, str(data), checkpoints, str(folder), hub=hub)
                if storage.is_remote(out):
                    storage.upload(folder, out, last="train.json")
                done({**result, "processes": here.size})
            return
        found = get_task(task)
        mine = [Path(scratch) / name for name in ("model", "checkpoints")]
        for folder in mine:
            folder.mkdir()
        with hub_allowed(hub):
            load_config(found, config).train(found, data, *mine, lambda *_, **__: None)


def main(arguments: list[str] | None = None) -> None:
    """The command line of one process."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.steps.train_worker")
    for name in ("task", "config", "dataset", "checkpoints", "out"):
        parser.add_argument(f"--{name}", required=True)
    given = parser.parse_args(arguments)
    config = storage.read_bytes(given.config).decode() if not given.config.lstrip().startswith("{") else given.config
    work(given.task, config, given.dataset, given.checkpoints, given.out)


if __name__ == "__main__":
    main()
