"""CIFAR-10 as JPEG: ``make bench-vision``; needs two tars in the folder image/ of FAIRLEAD_TEST_DATA.

The network learns from the training images alone. Its settings were chosen without looking at the test images, which
are asked once. Processor seconds are those of this process with the threads of OMP_NUM_THREADS, 1 unless set.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

from contracts.engines import load_engine
from tests.bench.report import Row, write
from tests.chain import Chain

SETTINGS = {
    "split.test_share": 0.0,
    "split.valid_share": 0.04,
    "augment.flip": True,
    "augment.color": 0.0,
    "model.widths": [16, 32, 64, 128],
    "model.blocks": [1, 1, 1],
    "model.mirror": True,
    "training.epochs": 15,
    "training.patience": 15,
    "training.batch_size": 256,
    "training.learning_rate": 0.3,
    "training.warmup": 400,
    "training.precision": "bf16",
    "training.class_weights": False,
    "training.threads": int(os.environ.get("OMP_NUM_THREADS", "1")),
}


def data(name: str) -> str:
    file = Path(os.environ.get("FAIRLEAD_TEST_DATA", "")) / "image" / name
    if not os.environ.get("FAIRLEAD_TEST_DATA") or not file.exists():
        sys.exit(f"bench-vision needs real data: set FAIRLEAD_TEST_DATA to the folder that holds image/{name}")
    return str(file)


def timed(work: Callable[[], Any]) -> float:
    """Processor seconds of `work`."""
    began = process_time()
    work()
    return process_time() - began


def scratch(chain: Chain) -> Iterator[Row]:
    """From the tars to the test accuracy of what is served."""
    case = "CIFAR-10 JPEG, from scratch"
    seconds = timed(chain.dataset)
    yield Row(case=case, contestant="fairlead, ingest to data set", value=55_000 / seconds, unit="images/s")
    folders = [chain.path(name) for name in ("dataset", "checkpoints", "model")]
    spent = timed(lambda: chain.call("train", *folders))
    yield Row(case=case, contestant="fairlead resnet, training", value=spent, unit="processor s", goal="<= 1200")
    lineage = '{"code_version": "", "data_version": "", "source": "CIFAR-10"}'
    chain.call("evaluate", chain.path("dataset"), chain.path("model"), lineage, chain.path("candidate"))
    found = 100 * chain.evaluation()["metrics"]["accuracy"]
    yield Row(case=case, contestant="fairlead resnet", value=found, unit="% right", goal=">= 84")


def small(chain: Chain, home: Path) -> Iterator[Row]:
    """The same network with 8 bits: what it costs and gains, on one thread."""
    import pandas as pd

    from pipelines.evaluation.scoring import provisional
    from pipelines.io.files import read_json
    from pipelines.recipes.image.base import read_images
    from pipelines.task import Task
    from pipelines.tasks import get_task
    from pipelines.training.quantise import quantise_static

    task: Task = get_task("images")
    images = read_images(task, chain.settings, chain.path("dataset"), home)
    batches = [{"pixels": images.spec.normalised(images.train.pixels[at : at + 32])} for at in range(0, 512, 32)]
    folder = home / "int8"
    shutil.copytree(chain.path("candidate"), folder)
    graph = folder / "model" / "model.onnx"
    exact = graph.rename(folder / "exact.onnx")
    quantise_static(exact, graph, batches)
    frame = pd.read_parquet(chain.path("dataset") / "test.parquet")
    fields = read_json(chain.path("candidate") / "candidate.json")
    files, right, seconds = frame["image"].to_numpy(object), {}, {}
    for name, place in (("fp32", chain.path("candidate")), ("int8", folder)):
        engine: Any = load_engine(provisional(place, fields), threads=1, device="cpu")
        pixels = engine.decode({"image": files}, 10**9)
        answers = engine.predict(pixels)
        right[name] = 100 * float((np.array(images.classes)[answers.argmax(axis=1)] == frame["label"]).mean())
        seconds[name] = min(timed(partial(engine.predict, pixels)) for _ in range(3))
    case = "CIFAR-10 JPEG, int8"
    yield Row(case=case, contestant="points lost", value=right["fp32"] - right["int8"], unit="points", goal="<= 0.5")
    yield Row(case=case, contestant="faster", value=seconds["fp32"] / seconds["int8"], unit="x", goal=">= 1.8")
    decoding = timed(partial(engine.decode, {"image": files}, 10**9))
    yield Row(case="JPEG of 32x32", contestant="decoded", value=len(files) / decoding, unit="images/s", goal=">= 3000")


def main() -> int:
    settings = {**SETTINGS, "split.test_source": data("cifar10_test_a.tar")}
    with tempfile.TemporaryDirectory() as folder:
        chain = Chain(task="images", home=Path(folder) / "home", source=data("cifar10_train.tar"), overrides=settings)
        return write("vision", "make bench-vision", [*scratch(chain), *small(chain, Path(folder))])


if __name__ == "__main__":
    sys.exit(main())
