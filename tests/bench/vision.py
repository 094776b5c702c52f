"""CIFAR-10 as JPEG, blood cells with boxes, video, and images that are made: ``make bench-vision``; needs the folders
image/ (two tars), weights/ and detection/BCCD/ (Pascal VOC) of FAIRLEAD_TEST_DATA, for video, drawings and the endpoint
nothing; ``ARGS="objects video"`` measures some of them, see `PARTS`. Those of `ASKED` are measured when they are named
alone: ``unet2d`` needs the library diffusers, ``finetuned-objects`` the folder weights/resnet-18 of transformers.

Networks learn from the training images alone. Their settings were chosen without looking at the test images, which
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
from time import perf_counter, process_time
from typing import Any

import numpy as np

from contracts.engines import load_engine
from tests.bench.report import Row, write
from tests.bench.vision_endpoint import endpoint
from tests.bench.vision_pretrained import pretrained
from tests.bench.vision_video import video
from tests.chain import Chain


def _precision() -> str:
    """bf16 where the processor computes with it; elsewhere it is half as fast as fp32."""
    about = Path("/proc/cpuinfo")
    flags = about.read_text() if about.exists() else ""
    return "bf16" if "avx512_bf16" in flags or "amx_bf16" in flags else "fp32"


SETTINGS = {
    "split.test_share": 0.0,
    "split.valid_share": 0.04,
    "augment.flip": True,
    "augment.color": 0.0,
    "model.widths": [24, 32, 64, 128],
    "model.blocks": [1, 1, 1],
    "model.stem": "whitened",
    "model.halve": "pool",
    "model.mirror": True,
    "training.epochs": 10,  # which fit 1,200 processor seconds
    "training.patience": 10,
    "training.batch_size": 128,
    "training.learning_rate": 0.2,
    "training.weight_decay": 0.001,
    "training.warmup": 560,
    "training.start_scale": 0.75,
    "training.precision": _precision(),
    "training.class_weights": False,
    "training.threads": int(os.environ.get("OMP_NUM_THREADS", "1")),
}


OBJECTS = {
    "split.valid_share": 0.1,
    "image.width": 320,
    "image.height": 240,
    "model.widths": [16, 24, 48, 96],
    "model.head": 48,
    "model.mirror": "both",
    "augment.upend": True,
    "training.epochs": 40,
    "training.patience": 40,
    "training.batch_size": 8,
    "training.precision": "bf16",
    "training.threads": int(os.environ.get("OMP_NUM_THREADS", "1")),
}


def data(name: str) -> str:
    file = Path(os.environ.get("FAIRLEAD_TEST_DATA", "")) / name
    if not os.environ.get("FAIRLEAD_TEST_DATA") or not file.exists():
        sys.exit(f"bench-vision needs real data: set FAIRLEAD_TEST_DATA to the folder that holds {name}")
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
    places = {"fp32": chain.path("candidate"), "int8": folder}
    engines: dict[str, Any] = {
        name: load_engine(provisional(place, fields), threads=1, device="cpu") for name, place in places.items()
    }
    pixels = engines["fp32"].decode({"image": files}, 10**9)
    for name, engine in engines.items():
        answers = engine.predict(pixels)
        right[name] = 100 * float((np.array(images.classes)[answers.argmax(axis=1)] == frame["label"]).mean())
    for _ in range(3):  # in turn, so that a machine that is busy for a while slows both
        for name, engine in engines.items():
            seconds[name] = min(seconds.get(name, np.inf), timed(partial(engine.predict, pixels)))
    case = "CIFAR-10 JPEG, int8"
    yield Row(case=case, contestant="points lost", value=right["fp32"] - right["int8"], unit="points", goal="<= 0.5")
    yield Row(case=case, contestant="faster", value=seconds["fp32"] / seconds["int8"], unit="x", goal=">= 1.8")
    decoding = timed(partial(engines["fp32"].decode, {"image": files}, 10**9))
    yield Row(case="JPEG of 32x32", contestant="decoded", value=len(files) / decoding, unit="images/s", goal=">= 3000")
    yield loaded(chain, images)


def loaded(chain: Chain, images: Any) -> Row:
    """What one core streams of the training images, decoded and changed."""
    from itertools import islice

    from pipelines.data.file_rows import shards_of
    from pipelines.training.shards import ClassReader, ShardLoader

    settings, shards = chain.settings, shards_of(chain.path("dataset") / "train.parquet")
    reader = ClassReader(images.spec, images.classes, settings.augment)
    loader = ShardLoader(list(map(str, shards)), "image", reader, size=256, seed=1, config=settings.loader)
    spent = timed(lambda: [None for _ in islice(loader.epoch(0), 40)])
    return Row(
        case="JPEG of 32x32", contestant="streamed and changed", value=40 * 256 / spent, unit="images/s", goal=">= 3000"
    )


def boxes(chain: Chain, case: str = "BCCD, boxes from scratch", recipe: str = "centernet") -> Iterator[Row]:
    """From VOC's files to the boxes of the test images, and how long an image of 640x480 takes."""
    import pandas as pd

    chain.dataset()
    folders = [chain.path(name) for name in ("dataset", "checkpoints", "model")]
    spent = timed(lambda: chain.call("train", *folders))
    yield Row(case=case, contestant=f"fairlead {recipe}, training", value=spent, unit="processor s", goal="<= 1200")
    lineage = '{"code_version": "", "data_version": "", "source": "BCCD"}'
    chain.call("evaluate", chain.path("dataset"), chain.path("model"), lineage, chain.path("candidate"))
    found = chain.evaluation()["metrics"]
    for name, metric, goal in (
        ("mAP50", "map50", ">= 90"),
        ("mAP", "map", ">= 54"),
        ("F1 of what is answered", "f1", ""),
    ):
        yield Row(case=case, contestant=f"fairlead {recipe}, {name}", value=100 * found[metric], unit="%", goal=goal)
    for label in ("Platelets", "RBC", "WBC"):
        yield Row(case=case, contestant=f"{label}, mAP50", value=100 * found[f"ap50:{label}"], unit="%")
    from pipelines.evaluation.scoring import provisional
    from pipelines.io.files import read_json

    engine: Any = load_engine(
        provisional(chain.path("candidate"), read_json(chain.path("candidate") / "candidate.json")), threads=1
    )
    files = pd.read_parquet(chain.path("dataset") / "test.parquet")["image"].to_numpy(object)
    engine.predict({"image": files[:2]})
    single = 1000 * timed(lambda: [engine.predict({"image": files[at : at + 1]}) for at in range(40)]) / 40
    yield Row(case=case, contestant="an image of 640x480, decoding included", value=single, unit="ms", goal="<= 60")


def images(folder: Path) -> Iterator[Row]:
    settings = {**SETTINGS, "split.test_source": data("image/cifar10_test_a.tar")}
    source = data("image/cifar10_train.tar")
    chain = Chain(task="images", home=folder / "images", source=source, overrides=settings)
    yield from scratch(chain)
    yield from small(chain, folder)


def weights(folder: Path) -> Iterator[Row]:
    split = {name: value for name, value in SETTINGS.items() if name.startswith("split.")}
    split["split.test_source"] = data("image/cifar10_test_a.tar")
    file = data("weights/cifar10-resnet20-12fca82f.th")
    return pretrained(folder / "pretrained", file, data("image/cifar10_train.tar"), split)


def objects(folder: Path) -> Iterator[Row]:
    lists = "detection/BCCD/ImageSets/Main"
    settings = {**OBJECTS, "split.test_source": data(f"{lists}/test.txt")}
    yield from boxes(
        Chain(task="objects", home=folder / "objects", source=data(f"{lists}/trainval.txt"), overrides=settings)
    )


def finetuned_objects(folder: Path) -> Iterator[Row]:
    """The same boxes by a pretrained network of photos, of which weights/ has no other use."""
    lists, weights = "detection/BCCD/ImageSets/Main", data("weights/resnet-18")
    kept = ("split.valid_share", "image.width", "image.height", "model.mirror", "augment.upend")
    settings = {
        name: OBJECTS[name] for name in (*kept, "training.batch_size", "training.precision", "training.threads")
    }
    settings |= {"model.backbone": weights, "split.test_source": data(f"{lists}/test.txt")}
    settings |= {"image.height": 256, "image.mean": [0.485, 0.456, 0.406], "image.std": [0.229, 0.224, 0.225]}
    source = data(f"{lists}/trainval.txt")
    chain = Chain(task="objects", recipe="finetune", home=folder / "tuned", source=source, overrides=settings)
    yield from boxes(chain, "BCCD, boxes by a pretrained network", "finetune")


def drawings(folder: Path, recipe: str = "flow") -> Iterator[Row]:
    """From the sample to images, as a recipe is, and how long 64 of them take on two threads."""
    from contracts.drawing_engine import Wish
    from pipelines.evaluation.scoring import provisional
    from pipelines.io.files import read_json

    case = "pen drawings, flow matching"
    chain = Chain(task="drawings", recipe=recipe, home=folder / recipe)
    chain.dataset()
    folders = [chain.path(name) for name in ("dataset", "checkpoints", "model")]
    spent = timed(lambda: chain.call("train", *folders))
    yield Row(case=case, contestant=f"fairlead {recipe}, training", value=spent, unit="processor s", goal="<= 1200")
    lineage = '{"code_version": "", "data_version": "", "source": "sample"}'
    chain.call("evaluate", chain.path("dataset"), chain.path("model"), lineage, chain.path("candidate"))
    found = chain.evaluation()["metrics"]
    for name, metric, goal in (
        ("label accuracy", "label_accuracy", ">= 95"),
        ("told from real ones by features", "c2st", "<= 60"),
        ("real told from real", "c2st_real", ""),
        ("precision", "precision", ""),
        ("recall", "recall", ""),
        ("copies of training images", "copied", "<= 0"),
    ):
        yield Row(case=case, contestant=f"fairlead {recipe}, {name}", value=100 * found[metric], unit="%", goal=goal)
    passed = float(chain.published()["passed"])
    yield Row(
        case=case, contestant=f"fairlead {recipe}, passed the task's own gate", value=passed, unit="", goal=">= 1"
    )
    for metric in ("kid", "kid_real"):
        yield Row(case=case, contestant=f"fairlead {recipe}, {metric}", value=found[metric], unit="")
    candidate = chain.path("candidate")
    engine: Any = load_engine(provisional(candidate, read_json(candidate / "candidate.json")), threads=2)
    usual = engine.spec
    wishes = [
        Wish(label=engine.output.labels[at % 10], seed=at, steps=usual.steps, guidance=usual.guidance)
        for at in range(64)
    ]
    start = perf_counter()
    engine.draw(wishes)
    yield Row(case=case, contestant="64 images, two threads", value=perf_counter() - start, unit="s", goal="<= 20")


PARTS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "images": images,
    "pretrained": weights,
    "objects": objects,
    "video": video,
    "drawings": drawings,
    "endpoint": endpoint,
}
ASKED: dict[str, Callable[[Path], Iterator[Row]]] = {
    "unet2d": partial(drawings, recipe="unet2d"),
    "finetuned-objects": finetuned_objects,
}


def main() -> int:
    asked = sys.argv[1:] or list(PARTS)
    with tempfile.TemporaryDirectory() as folder:
        rows = [row for name in asked for row in (PARTS | ASKED)[name](Path(folder))]
    return write("vision" if len(asked) > 1 else f"vision-{asked[0]}", "make bench-vision", rows)


if __name__ == "__main__":
    sys.exit(main())
