"""A data set of images several times larger than what the process may take more of: split, written and streamed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
LIMIT = 40 << 20  # by which memory may grow
BUILD = """
import resource, sys
from pathlib import Path
import numpy as np, pandas as pd
from contracts.engines import load_engine
from contracts.images import ImageSpec
from pipelines.evaluation import scoring
from pipelines.data.file_rows import row_count, shards_of
from pipelines.steps.build_dataset import build_dataset
from pipelines.task import dump_config
from pipelines.tasks import get_task, recipe_config
from pipelines.training.pictures import AugmentConfig
from pipelines.training.shards import ClassReader, LoaderConfig, ShardLoader
from tests.image_bundle import SIGNATURE, image_source

home, rng, side, rows = Path(sys.argv[1]), np.random.default_rng(0), 320, 20
sizes = np.array([54 + 3 * side * side, 0, 54, 40, side, side], "<u4")
head = b"BM" + sizes.tobytes() + np.array([1, 24], "<u2").tobytes() + bytes(24)

def part(at):
    files = [head + rng.bytes(3 * side * side) for _ in range(rows)]
    names = [f"{at}-{row}" for row in range(rows)]
    looks = [rng.bytes(80).hex() for _ in range(rows)]
    frame = pd.DataFrame({"id": names, "image": files, "label": ["cat", "dog"] * (rows // 2), "sha256": names})
    frame = frame.assign(look=looks, width=side, height=side, brightness=0.5)
    frame.to_parquet(home / "clean" / f"part-{at:05d}.parquet", index=False)
    return sum(map(len, files))

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10

(home / "clean").mkdir()
config = dump_config(recipe_config(get_task("images"), "resnet", {}))
size = part(0) + part(1)
build_dataset("images", config, str(home / "clean"), "", str(home / "dataset"))  # what it needs for any data
before = peak()
size += sum(part(at) for at in range(2, int(sys.argv[2])))
told = build_dataset("images", config, str(home / "clean"), "", str(home / "dataset"))
built = peak()
shards = [str(one) for one in shards_of(home / "dataset" / "train.parquet")]
loader = ShardLoader(
    shards, "image", ClassReader(ImageSpec(width=16, height=16), ["cat", "dog"], AugmentConfig()), size=32, seed=1,
    config=LoaderConfig(window=64),
)
seen = sum(len(one[1]) for one in loader.epoch(0))
assert seen == told["rows"]["train"] == row_count(home / "dataset" / "train.parquet")
streamed = peak()
image_source(home / "source")
fields = {"name": "shades", "task": "images", "recipe": "r", "modality": "image", "engine": "onnx"}
fields |= {"signature": SIGNATURE, "lineage": {"code_version": "", "data_version": "", "source": "", "seed": 1}}
bundle = scoring.provisional(home / "source", {**fields, "decision": None, "parameters": {}})
rows = scoring.read_rows(home / "dataset" / "train.parquet")
answers = scoring.predict(load_engine(bundle, threads=1), scoring.columns_of(rows, bundle.document.signature.inputs),
    bundle.document)
assert len(answers) == seen
print(size, built - before, streamed - before, peak() - before, len(shards))
"""


def test_a_data_set_larger_than_memory_is_built_streamed_and_scored(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(tmp_path), "22"],
        env=environment, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    size, built, streamed, scored, shards = map(int, done.stdout.splitlines()[-1].split())
    assert size > 3 * LIMIT
    assert built < LIMIT
    assert streamed < LIMIT
    assert scored < 2 * LIMIT  # with what the engine needs for any data
    assert shards == 1
