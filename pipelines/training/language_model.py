"""Language models from scratch: the loop that trains a small Llama on tokens, and what it is measured by."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass as settings

from contracts.errors import PlatformError
from pipelines.search_space import Dimension
from pipelines.task import STRICT, Progress

if TYPE_CHECKING:
    from pipelines.training.checkpoint import Checkpoint
    from pipelines.training.distributed import Group

_DECAYS, _BETAS = 2, (0.9, 0.95)
_SIZES = ("size", "characters")
_ROWS = 32  # of a validation batch, at most


@settings(frozen=True, kw_only=True, config=STRICT)
class LlamaShape:
    """How large a model is.

    width: of a token's vector.  heads: of attention; width / heads has to be even.  key_heads: heads that keys and
    values have; 0 is as many.  hidden: of the gated units; 0 is 8/3 of the width, rounded up to 32.
    tied: one table for tokens that are read and for those that are written.
    """

    layers: Annotated[int, Field(ge=1)] = 4
    width: Annotated[int, Field(ge=32)] = 128
    heads: Annotated[int, Field(ge=1)] = 4
    key_heads: Annotated[int, Field(ge=0)] = 0
    hidden: Annotated[int, Field(ge=0)] = 0
    tied: bool = True

    @property
    def hidden_size(self) -> int:
        """Of the gated units."""
        return self.hidden or -(-self.width * 8 // 3 // 32) * 32


@settings(frozen=True, kw_only=True, config=STRICT)
class PretrainingConfig:
    """How a language model is trained from scratch, by AdamW.

    steps: batches.  batch_size: windows, or rows, of a step, which several processes share.
    warmup: share of the steps in which the learning rate rises; then it falls as a cosine to a tenth.
    evaluate: times that the validation part is measured, evenly over the steps; of at most about `evaluate_tokens`,
    evenly from all.
    patience: measurements without a smaller loss before it stops; the weights with the smallest are kept.
    dropout: of what enters the layers, and of what each adds.
    precision: ``auto`` is bf16 on a GPU and fp32 on a CPU; in bf16 the weights stay fp32 and products are bf16.
    gradient_checkpointing: compute activations twice, and keep few of them.
    threads: of the processor; 0 is as many as torch takes, which is all, or OMP_NUM_THREADS.
    """

    steps: Annotated[int, Field(ge=1)] = 2_000
    batch_size: Annotated[int, Field(ge=1)] = 16
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    clip: Annotated[float, Field(gt=0)] = 1.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    evaluate: Annotated[int, Field(ge=1)] = 10
    evaluate_tokens: Annotated[int, Field(ge=1)] = 50_000
    patience: Annotated[int, Field(ge=1)] = 3
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    gradient_checkpointing: bool = False
    device: str = "auto"
    threads: Annotated[int, Field(ge=0)] = 0

    SPACE: ClassVar[Mapping[str, Dimension]] = {
        "learning_rate": Dimension(low=3e-4, high=1e-2, log=True),
        "batch_size": Dimension(low=8, high=64, log=True),
        "dropout": Dimension(low=0.0, high=0.3),
    }


@dataclass(frozen=True, kw_only=True)
class Text:
    """One sequence of tokens.

    Attributes:
        ids: its tokens.  asked: how many of them only are read, and not learned.
        size, characters: of what is learned: bytes in UTF-8, and characters.
    """

    ids: Sequence[int]
    asked: int
    size: int
    characters: int


class Batches:
    """What each step learns from, by its number alone, so that a training that goes on sees what it would have seen.

    Attributes: size, characters, tokens: of all that is learned.

    With `window`, texts are one stream, of which each row is a piece of that many tokens; without, each row is a text,
    and rows of a batch are about as long as each other.

    Raises:
        PlatformError: ``code="bad_data"``: a stream that is shorter than one window.
    """

    def __init__(self, texts: Sequence[Text], window: int, part: str) -> None:
        import torch

        self._window, self._texts = window, texts
        self.size, self.characters = (max(1, sum(getattr(text, name) for text in texts)) for name in _SIZES)
        if not window:
            self._order = sorted(range(len(texts)), key=lambda at: len(texts[at].ids))
            return
        self._stream = torch.tensor([token for text in texts for token in text.ids], dtype=torch.long)
        if (most := len(self._stream) - 1) < window:
            raise PlatformError(
                f"the {part} part of the corpus is shorter than one window: {len(self._stream):,} tokens",
                detail=f"model.window is {window:,} tokens",
                fix=f"give more text, or --set model.window={max(16, 1 << max(1, most).bit_length() - 1)}",
                code="bad_data",
            )

    def draw(self, step: int, rows: int, seed: int) -> tuple[Any, Any]:
        """Tokens and the ones that follow them, shape (rows, tokens); -100 where nothing is learned."""
        rng = random.Random(f"{seed} {step}")
        if self._window:
            most = len(self._stream) - self._window - 1
            return self._cut([rng.randint(0, most) for _ in range(rows)])
        groups = -(-len(self._order) // rows)
        turn, at = divmod(step, groups)
        shuffled = random.Random(f"{seed} {turn}").sample(range(groups), groups)
        return self._padded(self._order[shuffled[at] * rows :][:rows])

    @property
    def tokens(self) -> int:
        """That are learned, or measured."""
        if self._window:
            return len(self._stream) - 1
        return sum(len(text.ids) - text.asked for text in self._texts)

    def all(self, most: int = 0) -> Iterator[tuple[Any, Any]]:
        """Each token of the part once, in batches as `draw` gives them; with `most`, about so many, evenly from all."""
        every = max(1, self.tokens // most) if most else 1
        if not self._window:
            rows = self._order[::every]
            for start in range(0, len(rows), _ROWS):
                yield self._padded(rows[start : start + _ROWS])
            return
        places = list(range(0, len(self._stream) - 1, self._window))[::every]
        whole = [at for at in places if at + self._window < len(self._stream)]
        for start in range(0, len(whole), _ROWS):
            yield self._cut(whole[start : start + _ROWS])
        if len(whole) < len(places):  # the rest is shorter
            yield self._stream[places[-1] : -1][None], self._stream[places[-1] + 1 :][None]

    def _cut(self, places: Sequence[int]) -> tuple[Any, Any]:
        import torch

        found = torch.stack([self._stream[at : at + self._window + 1] for at in places])
        return found[:, :-1], found[:, 1:]

    def _padded(self, rows: Sequence[int]) -> tuple[Any, Any]:
        import torch

        texts = [self._texts[at] for at in rows]
        longest = max(len(text.ids) for text in texts) - 1
        ids = torch.zeros(len(texts), longest, dtype=torch.long)
        wanted = torch.full_like(ids, -100)
        for line, text in enumerate(texts):
            tokens = torch.tensor(text.ids, dtype=torch.long)
            ids[line, : len(tokens) - 1] = tokens[:-1]
            wanted[line, text.asked - 1 : len(tokens) - 1] = tokens[text.asked :]
        return ids, wanted


def measured(model: Any, batches: Batches, config: PretrainingConfig, device: str, most: int = 0) -> dict[str, float]:
    """What a part costs a model: loss in nats by token, perplexity, bits per byte, and nats per character.

    most: tokens that are enough; 0 for all.
    """
    import torch

    was, nats, tokens, autocast = model.training, 0.0, 0, _autocast(config, device)
    model.eval()
    with torch.inference_mode():
        for ids, wanted in batches.all(most):
            with autocast():
                logits = model(ids.to(device))
            cost = _loss(logits, wanted.to(device), "sum")
            nats, tokens = nats + float(cost), tokens + int((wanted != -100).sum())
    model.train(was)
    mean = nats / max(1, tokens)
    return {
        "valid_loss": mean,
        "perplexity": math.exp(min(50.0, mean)),
        "bits_per_byte": mean / math.log(2) * batches.tokens / batches.size,
        "nats_per_character": mean * batches.tokens / batches.characters,
    }


def train(
    model: Any,
    parts: Mapping[str, Sequence[Text]],
    config: PretrainingConfig,
    *,
    window: int,
    device: str,
    seed: int,
    checkpoint: Checkpoint,
    progress: Progress,
) -> list[dict[str, float]]:
    """Train `model` in place, ending with the weights that had the smallest validation loss.

    Several processes share the rows of each batch, see `pipelines.training.distributed`: all end with the same weights,
    and process 0 alone reads and writes checkpoints.

    Args:
        parts: ``train`` and ``valid``.  window: of a stream; 0 where each row is a text, see `Batches`.
        checkpoint: written with every measurement; a killed training goes on from it, to the same weights on a CPU.

    Returns:
        One dict per measurement: step, train_loss since the one before, learning_rate and what `measured` gives.

    Raises:
        PlatformError: ``code="diverged"``: the loss is no number.
    """
    import torch

    from pipelines.training.distributed import group
    from pipelines.training.loop import to_hand_out

    here = group()
    optimizer = _optimizer(model, config)
    autocast = _autocast(config, device)
    learned, held = (Batches(parts[name], window, name) for name in ("train", "valid"))
    marks = sorted({-(-config.steps * at // config.evaluate) for at in range(1, config.evaluate + 1)})
    history: list[dict[str, float]] = []
    best, began = _copy(model), 0
    if found := here.hand_out(to_hand_out(checkpoint.load() if here.leads else None)):
        tensors, notes = found["tensors"], json.loads(found["notes"])
        model.load_state_dict(tensors["model"])
        optimizer.load_state_dict(tensors["optimizer"])
        best, history, began = tensors["best"], notes["history"], notes["step"]
    network = here.wrap(model)
    model.train()
    total = steps = 0

    def mean_loss(step: int) -> float:
        """Since the last measurement, of all processes, which find out together that it is no number."""
        summed = here.sum(float(total)) / here.size
        _check(summed, step)
        return summed / steps

    for step in range(began, config.steps):
        if _stalled(history, config.patience):
            break
        torch.manual_seed(seed * 1_000_003 + step + here.rank * 1_000_000_007)
        ids, wanted, scale = _shared(*learned.draw(step, config.batch_size, seed), here)
        for weights in optimizer.param_groups:
            weights["lr"] = learning_rate(config, step)
        optimizer.zero_grad(set_to_none=True)
        with autocast():
            logits = network(ids.to(device))
        cost = _loss(logits, wanted.to(device), "sum") * scale
        cost.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimizer.step()
        total, steps = total + cost.detach(), steps + 1
        if step + 1 not in marks:
            if (step + 1) % 50 == 0:
                progress(step + 1, config.steps, train_loss=round(mean_loss(step + 1), 4))
            continue
        train_loss = mean_loss(step + 1)
        shown = here.agree(measured(model, held, config, device, config.evaluate_tokens))
        _check(shown["valid_loss"], step + 1)
        history.append(
            {
                "step": float(step + 1),
                "train_loss": train_loss,
                "learning_rate": learning_rate(config, step),
                **shown,
            }
        )
        if shown["valid_loss"] <= min(one["valid_loss"] for one in history):
            best = _copy(model)
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "best": best}
        if here.leads:
            checkpoint.save(state, {"history": history, "step": step + 1})
        progress(
            step + 1, config.steps, **{key: round(value, 4) for key, value in history[-1].items() if key != "step"}
        )
        total = steps = 0
    model.load_state_dict(best)
    model.eval()
    return history


def _shared(ids: Any, wanted: Any, here: Group) -> tuple[Any, Any, float]:
    """This process's rows of a batch, and what makes the mean over all processes the loss of a token of the batch."""
    tokens = max(1, int((wanted != -100).sum()))
    if len(ids) < here.size:  # too few to share: each learns all of them
        return ids, wanted, 1 / tokens
    return here.share(ids), here.share(wanted), here.size / tokens


def learning_rate(config: PretrainingConfig, step: int) -> float:
    """Of a step (0, 1, ...): rising by a line, then falling as a cosine to a tenth."""
    rises = max(1, round(config.warmup * config.steps))
    if step < rises:
        return config.learning_rate * (step + 1) / rises
    share = (step - rises) / max(1, config.steps - rises)
    return config.learning_rate * (0.1 + 0.45 * (1 + math.cos(math.pi * share)))


def _loss(logits: Any, wanted: Any, how: str) -> Any:
    from torch.nn import functional

    return functional.cross_entropy(logits.float().flatten(0, 1), wanted.flatten(), ignore_index=-100, reduction=how)


def _optimizer(model: Any, config: PretrainingConfig) -> Any:
    """AdamW; vectors, which scale, do not decay."""
    import torch

    from pipelines.training.loop import eager

    weights = list(model.parameters())
    groups = [
        {"params": [one for one in weights if one.ndim >= _DECAYS], "weight_decay": config.weight_decay},
        {"params": [one for one in weights if one.ndim < _DECAYS], "weight_decay": 0.0},
    ]
    return eager(torch.optim.AdamW)(groups, lr=config.learning_rate, betas=_BETAS, fused=True)


def _autocast(config: PretrainingConfig, device: str) -> Any:
    import contextlib

    import torch

    if config.precision == "bf16" or (config.precision == "auto" and device.startswith("cuda")):
        return lambda: torch.autocast(device.partition(":")[0], dtype=torch.bfloat16)
    return contextlib.nullcontext


def _copy(model: Any) -> dict[str, Any]:
    return {name: values.detach().clone() for name, values in model.state_dict().items()}


def _stalled(history: Sequence[Mapping[str, float]], patience: int) -> bool:
    losses = [one["valid_loss"] for one in history]
    return bool(losses) and len(losses) - 1 - losses.index(min(losses)) >= patience


def _check(loss: float, step: int) -> None:
    if not math.isfinite(loss):
        raise PlatformError(
            f"the training diverged: the loss is no number at step {step:,}",
            detail="steps that are too large do this, and so do weights that bf16 cannot hold",
            fix="--set training.learning_rate=0.001, or --set training.precision=fp32",
            code="diverged",
        )
