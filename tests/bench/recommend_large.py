"""Fits of ten million interactions: 250,000 people, 40 each in the mean, of 50,000 items, made by a generator.

People like three of 60 kinds of items, and popular items more; the newest tenth chooses. Each recipe is fitted in a
process of its own with one value of each setting, so there are two fits: without the validation part and with it.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.report import Row

INTERACTIONS, PEOPLE, ITEMS, KINDS = 10_000_000, 250_000, 50_000, 60
SETTINGS: dict[str, dict[str, Any]] = {
    "graph_filter": {"from_item": (0.5,), "person": (0.5,), "to_item": (0.25,), "recency": (0.0,)},
    "als": {"l2": (1.0,), "confidence": (5.0,), "recency": (0.0,)},
    "two_tower": {"temperature": (0.1,)},
}


def interactions(count: int, people: int, items: int, seed: int = 11) -> Any:
    """A row for each, in the order of time."""
    import pandas as pd

    rng = np.random.default_rng(seed)
    kind = rng.integers(0, KINDS, items)
    popular = rng.pareto(1.1, items) + 0.2
    of_kind = [np.flatnonzero(kind == one) for one in range(KINDS)]
    likes = rng.integers(0, KINDS, (people, 3))
    wanted_rows, count = count, int(1.5 * count)  # many draws are of what a person has
    user = np.sort(rng.choice(people, count, p=(lambda w: w / w.sum())(rng.lognormal(0, 0.8, people))))
    wanted = likes[user, rng.integers(0, 3, count)]
    item = np.empty(count, dtype=np.int64)
    for one, there in enumerate(of_kind):
        rows = np.flatnonzero(wanted == one)
        item[rows] = rng.choice(there, len(rows), p=popular[there] / popular[there].sum())
    frame = pd.DataFrame({"user": user, "item": item}).drop_duplicates()
    frame = frame.sample(min(wanted_rows, len(frame)), random_state=seed)
    frame["seconds"] = np.sort(rng.random(len(frame)))[rng.permutation(len(frame))] * 1e7
    names = np.array([f"kind{one}" for one in kind], dtype=object)
    return frame.assign(
        label=np.char.add("i", frame["item"].to_numpy().astype(str)).astype(object),
        user=np.char.add("u", frame["user"].to_numpy().astype(str)).astype(object),
        item_attributes=names[frame["item"]],
        liked=True,
    ).sort_values("seconds", ignore_index=True)


def write_dataset(folder: Path, count: int, people: int, items: int) -> int:
    """What `build_dataset` writes, and the number of rows."""
    import pandas as pd

    frame = interactions(count, people, items)
    folder.mkdir(parents=True)
    cut = int(0.9 * len(frame))
    frame.iloc[:cut].to_parquet(folder / "train.parquet", index=False)
    frame.iloc[cut:].to_parquet(folder / "valid.parquet", index=False)
    table = frame.drop_duplicates("label")[["label", "item_attributes"]]
    table = table.rename(columns={"label": "item", "item_attributes": "attributes"}).assign(text="")
    table.to_parquet(folder / "items.parquet", index=False)
    none = pd.DataFrame({"who": [], "label": [], "unliked": []}, dtype=object)
    none.to_parquet(folder / "test.parquet", index=False)
    return len(frame)


def fit(dataset: Path, name: str) -> dict[str, float]:
    """In this process: seconds, processor seconds, the most memory in GB, and what validation says."""
    from dataclasses import replace

    from pipelines.recipes.recommend.settings import IndexConfig
    from pipelines.training.recommend import train_recommender
    from tests.bench.recommend import recipe

    config = recipe(name)
    model = replace(config.model, **SETTINGS[name])
    start, cpu = time.perf_counter(), time.process_time()
    out = train_recommender(
        dataset, model, config.list, 7, dataset / f"out-{name}", lambda *a, **k: None, index=IndexConfig()
    )
    return {
        "seconds": time.perf_counter() - start,
        "cpu": time.process_time() - cpu,
        "gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "ndcg": out["history"][0]["ndcg"],
    }


def fits(home: Path, count: int = INTERACTIONS, people: int = PEOPLE, items: int = ITEMS) -> Iterator[Row]:
    """Each recipe that is meant for so many."""
    dataset = home / "large"
    rows = write_dataset(dataset, count, people, items)
    for name in SETTINGS:
        argv = [sys.executable, "-m", "tests.bench.recommend_large", str(dataset), name]
        found = json.loads(subprocess.run(argv, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        sys.stdout.write(f"{name}, {rows:,} interactions: {found}\n")
        sys.stdout.flush()
        case = f"fit of {rows:,} interactions"
        yield Row(case=f"{case}, time", contestant=name, value=found["cpu"], unit="cpu s", goal="<= 600")
        yield Row(case=f"{case}, memory", contestant=name, value=found["gb"], unit="GB", goal="<= 8")
        yield Row(case=f"{case}, NDCG@20 of the validation part", contestant=name, value=found["ndcg"], unit="NDCG@20")


if __name__ == "__main__":
    sys.stdout.write(json.dumps(fit(Path(sys.argv[1]), sys.argv[2])) + "\n")
