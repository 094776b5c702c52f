"""Language models of characters from scratch: the loss of validation after a fixed work of the processor.

``python -m tests.bench.language_corpus`` reads ``FAIRLEAD_TEST_DATA/lm``: tiny Shakespeare, of which the last tenth is
the validation, as is usual, and Tang poems, of which one in ten is, by a hash of the poem.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.training.byte_pairs import END_ID, character_tokens
from pipelines.training.checkpoint import Checkpoint
from pipelines.training.language_model import Batches, LlamaShape, PretrainingConfig, Text, measured, train
from tests.bench.report import Row, write

WINDOW, TWO_CORES = 128, 1_200  # tokens; seconds of the processor in ten minutes
PLAYS, POEMS = "tiny Shakespeare", "Tang poems"
GOALS = {PLAYS: "<= 1.75", POEMS: ""}


def corpora(folder: Path) -> dict[str, tuple[list[str], list[str]]]:
    """Training and validation texts by name."""
    plays = (folder / "tinyshakespeare.txt").read_text(encoding="utf-8")
    cut = len(plays) * 9 // 10
    poems = [
        "\n".join([one["title"], *one["paragraphs"]])
        for file in sorted((folder / "poet_tang").glob("*.json"))
        for one in json.loads(file.read_text(encoding="utf-8"))
        if one["paragraphs"]
    ]
    held = [hashlib.sha256(poem.encode()).digest()[0] < 26 for poem in poems]
    return {
        PLAYS: ([plays[:cut]], [plays[cut:]]),
        POEMS: tuple([one for one, out in zip(poems, held, strict=True) if out is apart] for apart in (False, True)),  # type: ignore[dict-item]
    }


def learned(name: str, parts: tuple[Sequence[str], Sequence[str]], config: PretrainingConfig) -> list[Row]:
    """Train, and measure all of the validation."""
    from pipelines.training.llama import Llama

    tokenizer = character_tokens(parts[0], 8_192)
    texts = {
        part: [_text(tokenizer, one) for one in some] for part, some in zip(("train", "valid"), parts, strict=True)
    }
    model = Llama(LlamaShape(), tokenizer.get_vocab_size(), WINDOW, config.dropout)
    began = time.process_time()

    def told(done: float, total: Any, **more: Any) -> None:
        if "valid_loss" in more:
            seconds = time.process_time() - began
            told = {"steps": done, "processor_s": round(seconds), **more}
            print(json.dumps({"corpus": name, **told}), file=sys.stderr, flush=True)  # noqa: T201 - the curve

    with tempfile.TemporaryDirectory() as folder:
        kept = Checkpoint(Path(folder) / "kept.pt", name)
        train(model, texts, config, window=WINDOW, device="cpu", seed=7, checkpoint=kept, progress=told)
    spent = time.process_time() - began
    found = measured(model, Batches(texts["valid"], WINDOW, "valid"), config, "cpu")
    values = {
        "nats per character": (found["nats_per_character"], "nats", GOALS[name]),
        "bits per byte": (found["bits_per_byte"], "bits", ""),
        "processor": (spent, "s", f"<= {TWO_CORES}"),
    }
    return [
        Row(case=f"{name}, {case}", contestant="fairlead", value=value, unit=unit, goal=goal)
        for case, (value, unit, goal) in values.items()
    ]


def _text(tokenizer: Any, text: str) -> Text:
    ids = [*tokenizer.encode(text).ids, END_ID]
    return Text(ids=ids, asked=0, size=len(text.encode()), characters=len(text))


def main() -> int:
    """Train on each corpus, write and show; the exit status is 1 when a goal is missed."""
    parser = argparse.ArgumentParser(prog="tests.bench.language_corpus", description=__doc__)
    parser.add_argument("--steps", type=int, default=4_000, help="of 16 windows of 128 characters")
    parser.add_argument("--only", choices=(PLAYS, POEMS))
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    if not (folder := os.environ.get("FAIRLEAD_TEST_DATA")):
        parser.error("FAIRLEAD_TEST_DATA is not set: a folder with lm/")
    config = PretrainingConfig(
        steps=given.steps, batch_size=16, evaluate=8, patience=8, evaluate_tokens=20_000, threads=given.threads
    )
    import torch

    torch.set_num_threads(given.threads)
    rows = [
        row
        for name, parts in corpora(Path(folder) / "lm").items()
        if given.only in (None, name)
        for row in learned(name, parts, config)
    ]
    return write("language_corpus", "make bench-writing", rows)


if __name__ == "__main__":
    raise SystemExit(main())
