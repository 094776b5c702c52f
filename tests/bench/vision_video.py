"""Video for ``make bench-vision ARGS=video``: a detector that learned trays watches parts on a belt, known frame by
frame; what it costs, and how well objects keep their ids. Needs no data, but PyAV (the extra video).

Settings were chosen on other clips (seeds 1 and 2) than those that are measured.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from contracts.bundle import Bundle
from contracts.engines import load_engine
from pipelines.steps.batch_clips import ClipWork, score_clips
from pipelines.tasks.objects.parts import trays
from tests.bench.report import Row
from tests.chain import Chain
from tests.moving_parts import Known, belt, measures, write_clip

SEEDS, RATE, SECONDS = (11, 12, 13, 14), 25, 8
SETTINGS = {
    "model.widths": [16, 32, 64],
    "model.head": 48,
    "training.epochs": 20,
    "training.patience": 20,
    "training.threads": int(os.environ.get("OMP_NUM_THREADS", "1")),
    "split.test_share": 0.1,
}


def video(folder: Path) -> Iterator[Row]:
    """Train on 500 trays of 160x128 pixels; follow the parts on clips of 320x240."""
    yield from watched(trained(folder), folder)


def trained(folder: Path) -> Bundle:
    source = folder / "trays"
    source.mkdir(parents=True)
    with (source / "trays.jsonl").open("w") as lines:
        for name, file, objects in trays(seed=7, count=500):
            (source / name).write_bytes(file)
            lines.write(json.dumps({"image": name, "label": json.loads(objects)}) + "\n")
    chain = Chain(task="objects", home=folder / "chain", source=str(source / "trays.jsonl"), overrides=SETTINGS)
    chain.dataset()
    chain.candidate()
    return chain.bundle()


def watched(bundle: Bundle, folder: Path) -> Iterator[Row]:
    """How well, and how fast."""
    times = [at / RATE for at in range(RATE * SECONDS)]
    clips, truth = folder / "clips", {}
    clips.mkdir(parents=True)
    for seed in SEEDS:
        shown = list(belt(seed, times))
        truth[f"{seed}.mp4"] = [known for _, known in shown]
        write_clip(clips / f"{seed}.mp4", [image for image, _ in shown], times)
    files, engine = sorted(clips.iterdir()), load_engine(bundle, threads=2)
    spent: dict[str, tuple[float, float]] = {}
    for name, draw in (("frames", ""), ("frames, drawn too", str(folder / "drawn.mp4"))):
        began, worked = time.perf_counter(), time.process_time()
        summary = score_clips("objects", bundle, engine, files, clips, folder / f"out{bool(draw)}", ClipWork(draw=draw))
        spent[name] = (time.perf_counter() - began, time.process_time() - worked)
    rows: int = summary["rows"]
    scores = [measures(known, _said(folder / "outFalse" / f"{name}.jsonl")) for name, known in truth.items()]
    case = f"{len(SEEDS)} clips of {SECONDS} s, 320x240, known truth"
    for measure, goal in (("idf1", ">= 90"), ("hota", ""), ("deta", ""), ("assa", "")):
        value = 100 * sum(one[measure] for one in scores) / len(scores)
        worst = f", worst clip {100 * min(one[measure] for one in scores):.1f}"
        yield Row(case=case, contestant=f"{measure.upper()}{worst}", value=value, unit="%", goal=goal)
    for name, (seconds, cpu) in spent.items():
        goal = ">= 25" if name == "frames" else ""
        yield Row(case=case, contestant=f"{name}, as it was", value=rows / seconds, unit="frames/s", goal=goal)
        yield Row(case=case, contestant=f"{name}, per core", value=rows / cpu, unit="frames/processor s")


def _said(file: Path) -> list[list[Known]]:
    frames: list[dict[str, Any]] = [json.loads(line) for line in file.read_text().splitlines()]
    return [
        [Known(one["track"], one["label"], tuple(one["box"])) for one in frame["objects"] if one["track"]]
        for frame in frames
    ]
