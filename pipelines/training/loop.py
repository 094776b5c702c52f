"""A training loop for torch models: early stopping, gradient clipping, averaged weights, and resume after a kill."""

from __future__ import annotations

import copy
import inspect
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass as plain
from itertools import islice
from typing import Any, ClassVar, Literal

from pydantic.dataclasses import dataclass

from contracts.errors import PlatformError
from pipelines.search_space import Dimension
from pipelines.task import STRICT, Progress
from pipelines.training.checkpoint import Checkpoint
from pipelines.training.distributed import Group, group


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LoopConfig:
    """How long and how to train.

    patience: epochs without a better `monitor` before it stops.  clip: largest norm of a gradient.
    average: decay of the running mean of the weights, which is what is evaluated and kept; it starts lower, so that the
    first weights are soon forgotten; 0 turns it off.
    weight_decay: L2 regularisation, as in AdamW.  warmup: steps in which the learning rate rises to its value.
    schedule: of the learning rate after them: ``linear`` falls to zero by the end of the last epoch.
    checkpoint_steps: steps after which a training is kept within an epoch, too; 0: after epochs alone.
    threads: of the processor; a small model gains little from more, and much is lost when other programs compete for
    them.
    """

    epochs: int = 20
    patience: int = 4
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    warmup: int = 0
    schedule: Literal["constant", "linear"] = "constant"
    clip: float = 1.0
    average: float = 0.99
    class_weights: bool = True
    checkpoint_steps: int = 0
    device: str = "auto"
    threads: int = 1

    SPACE: ClassVar[Mapping[str, Dimension]] = {
        "learning_rate": Dimension(low=0.0003, high=0.01, log=True),
        "batch_size": Dimension(low=16, high=128, log=True),
        "weight_decay": Dimension(low=0.0001, high=0.3, log=True),
    }


def eager(optimizer: Any) -> Any:
    """A torch optimizer's class without what keeps its steps from being compiled: no compiler is here.

    An optimizer loads the compiler, which takes 2 s and 100 MB, only to tell it so.
    """
    import torch

    named = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
    plain = {name: inspect.unwrap(getattr(optimizer, name)) for name in named}
    return type(optimizer.__name__, (optimizer,), {**plain, "step": torch.no_grad()(inspect.unwrap(optimizer.step))})


def run_epochs(
    model: Any,
    optimizer: Any,
    *,
    batches: Callable[[int], Iterable[Any]],
    steps_per_epoch: int,
    loss: Callable[[Any, Any], Any],
    evaluate: Callable[[Any], dict[str, float]],
    monitor: str | None,
    config: LoopConfig,
    seed: int,
    checkpoint: Checkpoint,
    progress: Progress,
) -> list[dict[str, float]]:
    """Train `model` in place, ending with the weights of its best epoch.

    Args:
        batches: of an epoch (0, 1, ...), already on the device; must depend on nothing but the epoch and, with several
            processes, be this process's share of each (see `pipelines.training.distributed`). Where it has a method
            ``from_step`` of (epoch, step), an epoch that was begun goes on by it, else what was seen is passed over.
        steps_per_epoch: how many batches an epoch has.
        loss: scalar tensor of (model, batch).  evaluate: metrics of the model on held-out data.
        monitor: the metric that decides, smaller is better; on a tie the earlier epoch wins. None: the last weights are
            taken, after all epochs, and nothing is said of the loss of the training rows, as a private model needs it.

    With several processes `loss` must be scaled so that its mean over them is the loss of the whole batch. Process 0
    alone reads and writes checkpoints.

    Random numbers are seeded anew in every epoch, therefore a run that was killed and continues gives the same bits
    as one that was not (on a CPU with the same number of threads).

    Returns:
        One dict per epoch: epoch, train_loss and the metrics.

    Raises:
        PlatformError: ``code="diverged"``: the loss is no number any more; the checkpoint of the epoch before stays.
    """
    import torch

    here = group()
    average = copy.deepcopy(model)
    history: list[dict[str, float]] = []
    best, steps, begun = copy.deepcopy(model.state_dict()), 0, _Begun()
    if found := here.hand_out(to_hand_out(checkpoint.load() if here.leads else None)):
        tensors, notes = found["tensors"], json.loads(found["notes"])
        model.load_state_dict(tensors["model"])
        average.load_state_dict(tensors["average"])
        optimizer.load_state_dict(tensors["optimizer"])
        best, history, steps = tensors["best"], notes["history"], notes["steps"]
        if "within" in notes:
            begun = _begun(here, seed, len(history), notes, tensors["random"])
    network = here.wrap(model)

    def rate(step: int) -> float:
        return _rate(config, step, config.epochs * steps_per_epoch)

    def keep(notes: Mapping[str, Any], more: Mapping[str, Any]) -> None:
        if here.leads:
            state = {"model": model.state_dict(), "average": average.state_dict(), "best": best, **more}
            checkpoint.save({**state, "optimizer": optimizer.state_dict()}, {"history": history, **notes})

    def within(done: int, so_far: float, total: int) -> None:
        losses = [float(one) for one in here.gather(torch.tensor([so_far], dtype=torch.float64))]
        random = [here.gather(one) for one in _random_state(here)]
        keep({"steps": total, "within": done, "losses": losses}, {"random": random})

    for epoch in range(len(history), config.epochs):
        if _stalled(history, monitor, config.patience):
            break
        torch.manual_seed(_seed(seed, epoch, here))
        rest = _rest(batches, epoch, begun)
        save = within if config.checkpoint_steps else None
        train_loss, steps = _one_epoch(
            network, model, average, optimizer, rest, loss, config, rate, steps, here, begun, save
        )
        begun = _Begun()
        if not math.isfinite(train_loss):
            raise _diverged(epoch + 1, train_loss)
        average.eval()
        shown = {} if monitor is None else {"train_loss": train_loss}
        history.append({"epoch": epoch + 1, **here.agree({**shown, **evaluate(average)})})
        if _best(history, monitor) == epoch:
            best = copy.deepcopy(average.state_dict())
        keep({"steps": steps}, {})
        progress(epoch + 1, config.epochs, **{k: v for k, v in history[-1].items() if k != "epoch"})
    model.load_state_dict(best)
    model.eval()
    return history


def _diverged(epoch: int, loss: float) -> PlatformError:
    return PlatformError(
        f"training diverged in epoch {epoch}",
        detail=f"the loss is {loss}",
        fix="lower training.learning_rate, or raise training.warmup; look for values in the data that are out of range",
        code="diverged",
    )


def to_hand_out(found: tuple[dict[str, Any], dict[str, Any]] | None) -> dict[str, Any] | None:
    """What a checkpoint had, tensors and notes, in the form that `Group.hand_out` takes."""
    return {"tensors": found[0], "notes": json.dumps(found[1])} if found else None


@plain(frozen=True)
class _Begun:
    """What a checkpoint says of the epoch that it was made in: steps, the sum of their losses, and random states."""

    steps: int = 0
    loss: float = 0.0
    random: Any = None


def _seed(seed: int, epoch: int, here: Group) -> int:
    return seed * 1_000_003 + epoch + here.rank * 1_000_000_007


def _begun(here: Group, seed: int, epoch: int, notes: Mapping[str, Any], random: list[list[Any]]) -> _Begun:
    """Where this process was; when there were more or fewer then, its random numbers are new ones.

    Older checkpoints are of one process: their loss stands alone, and their states are in no lists.
    """
    import torch

    if "losses" not in notes:
        notes, random = {**notes, "losses": [notes["loss"]]}, [[one] for one in random]
    losses, done = notes["losses"], notes["within"]
    if len(losses) == here.size:
        return _Begun(done, losses[here.rank], [one[here.rank] for one in random])
    generator = torch.Generator().manual_seed(_seed(seed, epoch, here) + done)
    return _Begun(done, sum(losses) / len(losses), [generator.get_state()])


def _random_state(here: Group) -> list[Any]:
    """The states of torch's generators: of the processor, and of each GPU that this process computes on."""
    import torch

    if not torch.cuda.is_available():
        return [torch.get_rng_state()]
    own = torch.cuda.get_rng_state_all() if here.size == 1 else [torch.cuda.get_rng_state()]
    return [torch.get_rng_state(), *own]


def _rest(batches: Callable[[int], Iterable[Any]], epoch: int, begun: _Begun) -> Iterable[Any]:
    """The batches of an epoch that are left, with the random numbers as they were then."""
    import torch

    if not begun.steps:
        return batches(epoch)
    first, *others = begun.random
    torch.set_rng_state(first)
    if others and len(others) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(others)
    elif len(others) == 1:  # of several processes each has one
        torch.cuda.set_rng_state(others[0])
    from_step = getattr(batches, "from_step", None)
    rest: Iterable[Any] = from_step(epoch, begun.steps) if from_step else islice(batches(epoch), begun.steps, None)
    return rest


def _one_epoch(
    network: Any,
    model: Any,
    average: Any,
    optimizer: Any,
    batches: Iterable[Any],
    loss: Callable[[Any, Any], Any],
    config: LoopConfig,
    rate: Callable[[int], float],
    steps: int,
    here: Group,
    begun: _Begun,
    save: Callable[[int, float, int], None] | None,
) -> tuple[float, int]:
    """The mean loss of an epoch, and the steps made since the first one.

    `network` is `model` as the group sees it: its backward pass averages the gradients. `begun` is what was done of it
    before; `save` is told the steps of the epoch, the sum of their losses, and all steps.
    """
    import torch

    model.train()
    total, before = begun.loss, steps - begun.steps
    for batch in batches:
        optimizer.zero_grad()
        value = loss(network, batch)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        for weights in optimizer.param_groups:
            weights["lr"] = rate(steps)
        optimizer.step()
        steps += 1
        _track(average, model, min(config.average, steps / (steps + 10)))
        total += float(value.detach())
        if save is not None and (steps - before) % config.checkpoint_steps == 0:
            save(steps - before, total, steps)
    return here.sum(total) / here.size / max(steps - before, 1), steps


def _rate(config: LoopConfig, step: int, total: int) -> float:
    """The learning rate of a step (0, 1, ...) of `total`."""
    share = min(1.0, (step + 1) / max(config.warmup, 1))
    if config.schedule == "linear":
        share = min(share, (total - step) / max(total - config.warmup, 1))
    return config.learning_rate * share


def _track(average: Any, model: Any, decay: float) -> None:
    import torch

    with torch.no_grad():
        for mean, current in zip(average.parameters(), model.parameters(), strict=True):
            mean.lerp_(current, 1 - decay)
        for kept, counted in zip(average.buffers(), model.buffers(), strict=True):  # such as those of batch norm
            kept.copy_(counted)


def _best(history: list[dict[str, float]], monitor: str | None) -> int:
    if monitor is None:
        return len(history) - 1
    values = [entry[monitor] for entry in history]
    return values.index(min(values))


def _stalled(history: list[dict[str, float]], monitor: str | None, patience: int) -> bool:
    return bool(history) and len(history) - 1 - _best(history, monitor) >= patience
