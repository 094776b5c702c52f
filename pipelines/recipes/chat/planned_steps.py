"""What the tuning of a chat model will take: memory by formula and by real steps, time by the tokens of all steps."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.io.record import memory_peak
from pipelines.training import tuning_memory as formula

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.task import Task
    from pipelines.training.conversations import Example

_STEPS = 4  # after the first, which has the longest batch
_BATCHES, _EPOCHS = 4, 2  # of the whole tuning that is measured, at least
_MEASURED = 6.0  # seconds of its steps, where steps are quick: few of them say little
_MANY = 10  # steps whose mean says more than their median
_SLOW = 1.0  # seconds of a step beside which what the trainer adds to it is nothing
_AROUND = 540 * 2**20  # bytes that a process holds beside the formula: libraries and what they load, measured
_ROOM = 0.9  # of the memory here that real steps may take


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """The longest of what is learned from, in tokens."""

    longest: int
    sequences: int
    batches: Sequence[int]  # of an epoch, in tokens with padding


def planned_steps(config: Any, task: Task, dataset: Path, folder: Path, limit: float) -> dict[str, Any]:
    """Forecast of a tuning, from a process that may be spent on it.

    What does not grow with the rows (measuring before and after, writing what is served, asking it) is known from a
    whole tuning of a few batches, and so is what the trainer adds to each step, and to each epoch (losses of the
    validation rows, a checkpoint).

    Args:
        folder: empty.  limit: bytes of memory that a process here may have; steps that need more are not made.

    Returns:
        seconds and memory_peak as (low, likely, high), or None where no step was made; gpu_memory, the formula's parts
        in the precision of a GPU; gpu_measured, bytes of the real steps where there is one; longest (tokens of a
        batch), steps, parameters, trained, device, less: settings that need less, with their bytes on a GPU; why:
        what kept steps from being made.
    """
    import pandas as pd

    from pipelines.recipes.chat.weights import find_trainable
    from pipelines.training import chat_tuning
    from pipelines.training.conversations import Template
    from pipelines.training.device import resolve_device
    from pipelines.training.llama_gguf import base_of

    began = time.perf_counter()
    chat_tuning.environment()
    chat_tuning.import_tuning()
    base = base_of(find_trainable(config.model.weights)).folder
    shape = formula.shape_of(base)
    from transformers import AutoTokenizer

    template = Template(AutoTokenizer.from_pretrained(str(base), local_files_only=True), config.model.system)
    frames = {name: pd.read_parquet(dataset / f"{name}.parquet") for name in ("train", "valid")}
    parts = config.examples(template, frames, dataset, lambda *_, **__: None)
    opened = time.perf_counter() - began  # libraries and rows, which the run opens too
    plan = _lengths(config, parts)
    tokens = plan.longest * plan.sequences * config.training.batch_size
    device = resolve_device(config.training.device)
    half = config.training.precision == "bf16" or (config.training.precision == "auto" and device.startswith("cuda"))
    on_gpu = formula.held(shape, config.training, config.lora, tokens, half=config.training.precision != "fp32")
    here = formula.held(shape, config.training, config.lora, tokens, half=half)
    found: dict[str, Any] = {
        "seconds": None,
        "memory_peak": None,
        "gpu_memory": on_gpu.as_dict(),
        "gpu_measured": None,
        "longest": tokens,
        "steps": config.training.epochs * len(plan.batches),
        "parameters": shape.parameters,
        "trained": formula.trained_by(shape, config.lora),
        "device": device,
        "need": here.total + (0 if device.startswith("cuda") else _AROUND),
        "less": formula.alternatives(
            shape, config.training, config.lora, plan.longest, plan.sequences, half=config.training.precision != "fp32"
        ),
        "why": "",
    }
    if config.lora.four_bits and not device.startswith("cuda"):
        return {**found, "why": "a base in 4 bits needs a GPU, and there is none here"}
    if not device.startswith("cuda") and here.total + _AROUND > _ROOM * limit:
        return {**found, "why": "by the formula, one step needs more memory than this machine has"}
    each, spread = _measured(config, base, parts["train"], plan, device, half)
    usual = sum(plan.batches) / len(plan.batches) * plan.sequences * each
    whole = _whole(config, task, dataset, folder, frames["train"], len(parts["train"]), usual)
    work = len(plan.batches) * (whole.step if whole.steps >= _MANY else max(whole.step, usual)) + whole.epoch
    seconds = opened + whole.around + config.training.epochs * work
    peak = float(memory_peak() or here.total + _AROUND)
    low, high = min(spread, 0.3), max(spread, 0.1)
    gpu = None
    if device.startswith("cuda"):
        import torch

        gpu = torch.cuda.max_memory_reserved()
    return found | {
        "seconds": (seconds * (1 - low), seconds, seconds * (1 + high)),
        "memory_peak": (0.9 * peak, peak, 1.1 * peak),
        "gpu_measured": gpu,
    }


def _lengths(config: Any, parts: dict[str, Any]) -> _Plan:
    """Every conversation in tokens; with preferences the longer of two, which are padded to one length."""
    each = {name: [_tokens(one) for one in part] for name, part in parts.items()}
    pairs = hasattr(parts["train"][0], "chosen")
    size, most = config.training.batch_size, config.training.max_tokens
    if config.training.packing and not pairs:
        rows = -(-sum(each["train"]) // most)
        batches = [min(size, rows - at) * most for at in range(0, rows, size)]
        longest = most
    else:
        order = np.random.default_rng(config.seed).permutation(each["train"])
        batches = [int(max(some) * len(some)) for some in _cut(order.tolist(), size)]
        longest = max(each["train"])
    return _Plan(longest=longest, sequences=2 if pairs else 1, batches=batches)


def _tokens(one: Any) -> int:
    return max(len(one.chosen.ids), len(one.rejected.ids)) if hasattr(one, "chosen") else len(one.ids)


def _cut(values: list[int], size: int) -> Iterator[list[int]]:
    for at in range(0, len(values), size):
        yield values[at : at + size]


@dataclass(frozen=True, kw_only=True)
class _Whole:
    """Seconds of a whole tuning: of a step, of an epoch beside its steps, and of all that is in no epoch.

    steps: how many say how long one takes.
    """

    steps: int
    step: float
    epoch: float
    around: float


def _whole(
    config: Any, task: Task, dataset: Path, folder: Path, rows: pd.DataFrame, examples: int, usual: float
) -> _Whole:
    """A whole tuning of a few batches, one of the longest rows; of pairs, which rows may lack, of all.

    Args:
        usual: seconds of a step; where they are many, one batch is tuned with.
    """
    few = 1 if usual > _SLOW else max(_BATCHES, math.ceil(_MEASURED / _EPOCHS / max(usual, 1e-3)))
    if len(rows) == examples:
        sizes, size = rows["prompt"].str.len() + rows["label"].str.len(), config.training.batch_size
        order = sizes.sort_values(ascending=False).index
        others = np.random.default_rng(config.seed).permutation(order[size:])[: (few - 1) * size]
        rows = rows.loc[[*order[:size], *others]]
    epochs = min(config.training.epochs, _EPOCHS if few > 1 else 1)
    small = folder / "dataset"
    small.mkdir()
    for file in dataset.iterdir():
        if file.name != "train.parquet":
            (small / file.name).symlink_to(file.resolve())
    rows.reset_index(drop=True).to_parquet(small / "train.parquet", index=False)
    for name in ("model", "checkpoints"):
        (folder / name).mkdir()
    once = replace(config, training=replace(config.training, epochs=epochs))
    marks: list[tuple[float, int, bool]] = []

    def mark(done: float, _: Any, **said: Any) -> None:
        if "steps" in said or "valid_loss" in said:
            marks.append((time.perf_counter(), math.ceil(done - 0.001), "steps" in said))

    began = time.perf_counter()
    once.train(task, small, folder / "model", folder / "checkpoints", mark)
    return _parts(time.perf_counter() - began, marks, usual)


def _parts(seconds: float, marks: list[tuple[float, int, bool]], usual: float) -> _Whole:
    """What a tuning of so many seconds is made of.

    Args:
        marks: moment and number of the epoch, of the end of each step (True) and of the losses of each epoch.
        usual: seconds of a step where two of one epoch are not there.
    """
    steps = [(at, epoch) for at, epoch, step in marks if step]
    within = [then[0] - at for (at, epoch), then in itertools.pairwise(steps) if then[1] == epoch]
    # The longest batch is once in each epoch, and no more in thousands of steps.
    usually = sorted(within)[: -len({epoch for _, epoch in steps})] if len(within) >= _MANY else within
    step = (mean(usually) if len(within) >= _MANY else median(within)) if within else usual
    between = [then[0] - at - step for (at, epoch), then in itertools.pairwise(steps) if then[1] != epoch]
    losses = [then[0] - at for (at, _, first), then in itertools.pairwise(marks) if first and not then[2]]
    beside = max(median(between or losses or [0.0]), 0.0)
    epochs = len({epoch for _, epoch in steps})
    return _Whole(
        steps=len(within), step=step, epoch=beside, around=max(seconds - len(steps) * step - epochs * beside, 0.0)
    )


def _measured(
    config: Any, folder: Path, examples: Sequence[Any], plan: _Plan, device: str, half: bool
) -> tuple[float, float]:
    """Real steps, one with the longest batch, then some of the usual ones: seconds per token, and how they vary."""
    import torch

    from pipelines.training import chat_tuning

    model, tokenizer, _ = chat_tuning.open_model(folder, config.training, config.lora, config.seed)
    if config.training.gradient_checkpointing:
        model.gradient_checkpointing_enable()
        if config.lora.rank:
            model.enable_input_require_grads()
    model.train()
    cuda = device.startswith("cuda")
    optimiser = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=1e-6)
    spent: list[tuple[float, int]] = []
    for at, ids in enumerate(_batches(config, examples, plan)):
        if at > _STEPS:
            break
        batch = torch.full((len(ids), max(map(len, ids))), tokenizer.pad_token_id)
        for row, one in zip(batch, ids, strict=True):
            row[: len(one)] = torch.tensor(one)
        batch = batch.to(device)
        start = time.perf_counter()
        with torch.autocast(device.partition(":")[0], dtype=torch.bfloat16, enabled=half):
            loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.training.clip)
        optimiser.step()
        optimiser.zero_grad()
        if cuda:
            torch.cuda.synchronize()
        spent.append((time.perf_counter() - start, batch.numel()))
    usual = spent[1:] or spent  # the first is slower
    each = sum(seconds for seconds, _ in usual) / sum(tokens for _, tokens in usual)
    return each, max(s / t for s, t in usual) / each - 1 if len(usual) > 1 else 0.3


def _batches(config: Any, examples: Sequence[Any], plan: _Plan) -> Iterator[list[list[int]]]:
    """Conversations as tokens: the longest together, then as they come; packed ones are rows of the same length."""
    sides: list[list[Example]] = [[one.chosen, one.rejected] if plan.sequences == 2 else [one] for one in examples]
    size = config.training.batch_size
    if config.training.packing and plan.sequences == 1:
        endless = itertools.chain.from_iterable(one.ids for side in itertools.cycle(sides) for one in side)
        while True:
            yield [list(itertools.islice(endless, plan.longest)) for _ in range(size)]
    by_length = sorted(sides, key=lambda side: -max(len(one.ids) for one in side))
    order = np.random.default_rng(config.seed).permutation(len(sides))
    usual = [[sides[at] for at in some] for some in _cut([int(at) for at in order], size)]
    for some in (by_length[:size], *usual):
        yield [one.ids for side in some for one in side]
