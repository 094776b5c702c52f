"""The guard of chats: what it misses, what it takes for something it is not, and how long it looks at a message.

``python -m tests.bench.language_guard CLASSIFIER [--labelled FILE.csv]``: the folder of a bundle of task guard, and
messages of one's own (columns text and class). Patterns of the built-in set that the bundle was tested on are measured;
with FAIRLEAD_TEST_DATA also what real messages, all harmless, set off.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from contracts.guard_rules import find
from pipelines.recipes.text.split import assign
from pipelines.tasks.guard import SampleConfig
from pipelines.tasks.guard.simulator import messages
from services.chat.guard import Guard
from services.settings import GuardSettings
from tests.bench.report import Row, write

CONTESTANTS = ("rules", "fairlead classifier", "fairlead both")
SEED, LIMIT = 7, 2.0  # of the task's configuration; ms a message
Labelled = list[tuple[str, str]]


def alarms(guard: Guard, text: str) -> list[set[str]]:
    """What each contestant says the text is."""
    rules = {"injection" for one in find(text, guard.before) if one.rule.group == "injection"}
    classes = {one.name.removeprefix("class:") for one in guard.judged(text)}
    return [rules, classes, rules | classes]


def measured(name: str, rows: Labelled, guard: Guard) -> list[Row]:
    """Of every contestant the share of harmless messages that set it off, and of each class the share it misses."""
    found = [(kind, alarms(guard, text)) for text, kind in rows]
    made = []
    for at, contestant in enumerate(CONTESTANTS):
        for kind in sorted({kind for kind, _ in found}):
            said = [
                bool(each[at]) if kind == "harmless" else kind not in each[at] for one, each in found if one == kind
            ]
            case = f"{name}: {'false alarms' if kind == 'harmless' else f'{kind}, missed'} ({len(said)})"
            made.append(Row(case=case, contestant=contestant, value=100 * float(np.mean(said)), unit="%"))
    return made


def held_out() -> Labelled:
    """The test part of the built-in set, as the task splits it: patterns that the training has not."""
    rows = messages(SampleConfig().each, SEED)
    part = assign(
        [name.partition("/")[0] for name, _, _ in rows], [kind for _, _, kind in rows], {"test": 0.2, "valid": 0.1}
    )
    return [(text, kind) for (_, text, kind), where in zip(rows, part, strict=True) if where == "test"]


def real(folder: Path) -> dict[str, Labelled]:
    """Messages of customers and headlines of news, of which none is meant for a model's instructions."""
    files = {"banking77": ("intent-en/banking77_test.csv", "text")}
    found = {}
    for name, (file, column) in files.items():
        if (folder / file).exists():
            with (folder / file).open(encoding="utf-8", newline="") as stream:
                found[name] = [(row[column], "harmless") for row in csv.DictReader(stream)]
    return found


def timed(guard: Guard, texts: Sequence[str]) -> list[Row]:
    """Milliseconds of the processor for a message of usual length, and one that fills a window of 2,000 tokens."""
    made = []
    for name, some in (("a message", texts), ("a message of 8,000 characters", ["".join(texts)[:8_000]] * 30)):
        took = []
        for text in some:
            began = time.thread_time()
            find(text, guard.before)
            guard.judged(text)
            took.append((time.thread_time() - began) * 1e3)
        goal = f"<= {LIMIT}" if name == "a message" else ""
        for share, word in ((50, "median"), (99, "99 %")):
            value = float(np.percentile(took, share))
            made.append(Row(case=f"{name}, {word}", contestant="fairlead both", value=value, unit="ms", goal=goal))
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("classifier")
    parser.add_argument("--labelled", type=Path)
    given = parser.parse_args()
    guard = Guard(GuardSettings.model_validate({"classifier": given.classifier}))
    built_in = held_out()
    rows = measured("built-in", built_in, guard)
    for language, word in (("en", "English"), ("zh", "Chinese")):
        some = [(text, kind) for text, kind in built_in if text.isascii() == (language == "en")]
        rows += measured(f"built-in, {word}", some, guard)
    if folder := os.environ.get("FAIRLEAD_TEST_DATA"):
        for name, some in real(Path(folder)).items():
            rows += measured(name, some, guard)
    if given.labelled:
        with given.labelled.open(encoding="utf-8", newline="") as stream:
            rows += measured(
                given.labelled.stem, [(one["text"], one["class"]) for one in csv.DictReader(stream)], guard
            )
    rows += timed(guard, [text for text, _ in built_in])
    return write("language_guard", "make bench-guard", rows)


if __name__ == "__main__":
    raise SystemExit(main())
