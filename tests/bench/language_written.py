"""Summaries that are written, by models from random weights on real data, beside what passages reach on the same rows.

``python -m tests.bench.language_written [dialogues] [titles] --home FOLDER``: needs FAIRLEAD_TEST_DATA with
``summarization/``. In FOLDER a run that was stopped goes on; an epoch of the dialogues is four minutes of a busy core.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import process_time
from typing import Any

from tests.bench import report
from tests.bench.quality import csl, data, documents
from tests.bench.report import Row
from tests.chain import Chain

_KEEP = {"data.pii": {"document": "keep", "summary": "keep"}}
# Small, so that two cores learn in minutes: what is read of a dialogue is its beginning. Who speaks is one token.
_SPEAKERS = [mark for one in (1, 2, 3) for mark in (f"\n#Person{one}#:", f"#Person{one}#")]
_DIALOGUES = {
    "text.vocabulary": 5_000, "text.max_tokens": 192, "model.layers": 2, "model.width": 128, "model.inner": 256,
    "model.dropout": 0.15, "model.attention_dropout": 0.0, "model.whole": _SPEAKERS,
    "decoding.max_tokens": 80, "decoding.min_tokens": 15, "decoding.beams": 4, "decoding.no_repeat": 3,
    "decoding.length_penalty": 1.5,
    "training.batch_size": 20, "training.learning_rate": 0.002, "training.warmup": 300, "training.average": 0.998,
    "training.checkpoint_steps": 100, "split.valid_share": 0.04,
}  # fmt: skip
_TITLES = {
    "text.vocabulary": 4_000, "text.max_tokens": 256, "model.layers": 1, "model.width": 128, "model.inner": 256,
    "model.dropout": 0.2, "decoding.max_tokens": 40, "training.batch_size": 16, "training.learning_rate": 0.002,
    "training.warmup": 100, "training.patience": 5, "split.valid_share": 0.1, "split.test_share": 0.2,
}  # fmt: skip


def dialogues(home: Path, epochs: int) -> Iterator[Row]:
    """DialogSum: 12,460 dialogues with their speakers, the first reference of each of the 500 of the test."""
    given = _DIALOGUES | {"split.test_source": str(_dialogsum(home, "test")), "training.epochs": epochs}
    least = {"rouge_1": 0.30, "rouge_2": 0.09, "rouge_l": 0.24}
    given["gate.thresholds"] = [{"metric": name, "minimum": value} for name, value in least.items()]
    goals = {name: f">= {100 * value:g}" for name, value in least.items()}
    yield from _written(home / "dialogues", "DialogSum", str(_dialogsum(home, "train")), given, goals)


def titles(home: Path, epochs: int) -> Iterator[Row]:
    """Titles of Chinese abstracts (CSL): about 700 to learn from, and passages on the same test rows."""
    source, given = str(csl(home)), _TITLES | {"training.epochs": epochs}
    yield from _written(home / "titles", "CSL titles", source, given, {})
    kept = {name: given[name] for name in ("split.valid_share", "split.test_share")}
    for recipe, goal in (("lead", {}), ("scored", {"rouge_l": ">= 38"})):
        chain = Chain(task="summaries", recipe=recipe, home=home / recipe, source=source, overrides=kept | _KEEP)
        chain.dataset()
        start = process_time()
        chain.candidate()
        yield Row(case="CSL titles", contestant=recipe, value=process_time() - start, unit="s of processor, all")
        yield from _overlap("CSL titles", f"fairlead {recipe}", chain.evaluation()["metrics"], goal)


def _written(home: Path, case: str, source: str, given: dict[str, Any], goals: dict[str, str]) -> Iterator[Row]:
    chain = Chain(task="summaries", recipe="seq2seq", home=home, source=source, overrides=given | _KEEP)
    chain.dataset()
    start = process_time()
    chain.candidate()
    yield Row(case=case, contestant="fairlead seq2seq", value=process_time() - start, unit="s of processor, all")
    history = json.loads((chain.path("candidate") / "evaluation.json").read_text()).get("history", [])
    for one in history:
        yield Row(
            case=f"{case}, epoch {one['epoch']}", contestant="seq2seq", value=one["valid_loss"], unit="nats/token"
        )
    metrics = chain.evaluation()["metrics"]
    yield from _overlap(case, "fairlead seq2seq", metrics, goals)
    for name in ("unsupported_numbers", "repetition", "length_ratio"):
        yield Row(case=f"{case}, {name}", contestant="fairlead seq2seq", value=metrics[name], unit="share")
    chosen = json.loads((chain.path("candidate") / "candidate.json").read_text())["parameters"]
    for form in ("fp32", "int8"):
        key = f"valid_{chain.settings.gate.primary}_{form}"
        yield Row(case=f"{case}, {key}", contestant="fairlead seq2seq", value=100 * chosen[key], unit="% F1")
    decision = chain.published()
    sys.stderr.write(f"{case}: weights in {chosen['form']}; gate passed: {decision['passed']} {decision['reasons']}\n")
    yield Row(case=f"{case}, gate", contestant="fairlead seq2seq", value=float(decision["passed"]), unit="1 is passed")


def _overlap(case: str, contestant: str, metrics: dict[str, float], goals: dict[str, str]) -> Iterator[Row]:
    for metric in ("rouge_1", "rouge_2", "rouge_l"):
        value, goal = 100 * metrics[metric], goals.get(metric, "")
        yield Row(case=f"{case}, {metric}", contestant=contestant, value=value, unit="% F1", goal=goal)


def _dialogsum(home: Path, part: str) -> Path:
    rows = [json.loads(line) for line in (data() / f"summarization/dialogsum_{part}.jsonl").read_text().splitlines()]
    wanted = [row.get("summary1", row.get("summary")) for row in rows]
    home.mkdir(parents=True, exist_ok=True)
    return documents(home / f"dialogsum_{part}.csv", [row["dialogue"] for row in rows], wanted)


def main() -> int:
    """Measure, write and show; the exit status is 1 when a goal is missed."""
    parser = argparse.ArgumentParser(prog="tests.bench.language_written", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=["dialogues", "titles"], default=["dialogues", "titles"])
    parser.add_argument("--home", type=Path, default=Path(tempfile.gettempdir()) / "fairlead-language-written")
    parser.add_argument("--epochs", type=int, help="of either part; default: 10 of dialogues, 15 of titles")
    options = parser.parse_args()
    rows: list[Row] = []
    options.home.mkdir(parents=True, exist_ok=True)
    if "dialogues" in options.parts:
        rows += dialogues(options.home, options.epochs or 10)
    if "titles" in options.parts:
        rows += titles(options.home, options.epochs or 15)
    return report.write("language_written", "make bench-language-written", rows)


if __name__ == "__main__":
    raise SystemExit(main())
