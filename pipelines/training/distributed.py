"""Training by several processes: each takes its share of every batch, and the gradients are averaged.

The same code is one process without ``torchrun`` and many with it. How many there are changes nothing but the order of
sums and the random numbers drawn in the model (dropout).
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from contracts.errors import PlatformError


@dataclass(frozen=True)
class Group:
    """The processes that train together. Process 0 writes what is kept."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def wrap(self, model: Any) -> Any:
        """A model whose gradients are averaged over the group in every backward pass; the same model when alone."""
        if self.size == 1:
            return model
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(model)

    def share(self, rows: Any) -> Any:
        """This process's rows of a batch; the longest run of shares differs by one row. May be empty."""
        return rows[self.rank :: self.size]

    def agree(self, metrics: dict[str, float]) -> dict[str, float]:
        """Process 0's numbers for all, so that nobody decides otherwise by a rounding."""
        if self.size == 1:
            return metrics
        import torch
        from torch import distributed

        values = torch.tensor([metrics[name] for name in sorted(metrics)], dtype=torch.float64, device=_device())
        distributed.broadcast(values, 0)
        return dict(zip(sorted(metrics), values.tolist(), strict=True))

    def sum(self, value: float) -> float:
        """The sum over all processes."""
        if self.size == 1:
            return value
        import torch
        from torch import distributed

        total = torch.tensor([value], dtype=torch.float64, device=_device())
        distributed.all_reduce(total)
        return float(total)

    def gather(self, values: Any) -> list[Any]:
        """The tensors of all processes, of one shape and kind, in the order of their ranks; on the CPU."""
        if self.size == 1:
            return [values]
        import torch
        from torch import distributed

        mine = values.to(_device())
        found = [torch.empty_like(mine) for _ in range(self.size)]
        distributed.all_gather(found, mine)
        return [one.cpu() for one in found]

    def hand_out(self, state: Any) -> Any:
        """Process 0's nested tensors and numbers (None for nothing) for all: only it reads checkpoints."""
        if self.size == 1:
            return state
        import torch
        from torch import distributed

        buffer = io.BytesIO()
        torch.save(state, buffer)
        mine = torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8).to(_device())
        length = torch.tensor([len(mine)], device=_device())
        distributed.broadcast(length, 0)
        if not self.leads:
            mine = torch.empty(int(length), dtype=torch.uint8, device=_device())
        distributed.broadcast(mine, 0)
        return torch.load(io.BytesIO(mine.cpu().numpy().tobytes()), map_location="cpu", weights_only=True)


def _device() -> str:
    """Where messages live: NCCL sends what is on a GPU, gloo what is in memory."""
    from torch import distributed

    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if distributed.get_backend() == "nccl" else "cpu"


def group() -> Group:
    """The group that this process has joined; a group of one when it has not."""
    if "torch" not in sys.modules:
        return Group()
    from torch import distributed

    if not distributed.is_available() or not distributed.is_initialized():
        return Group()
    return Group(distributed.get_rank(), distributed.get_world_size())


@contextmanager
def joined() -> Iterator[Group]:
    """Join the group that ``torchrun`` describes in the environment: NCCL between GPUs, gloo otherwise.

    Raises:
        PlatformError: ``code="no_group"``: the others cannot be reached.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Group()
        return
    import torch
    from torch import distributed

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    try:
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    except (RuntimeError, ValueError) as err:
        raise PlatformError(
            "cannot join the other processes of this training",
            detail=f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}: {str(err)[:300]}",
            fix="do network policies admit the pods of one training to each other? see: fairlead diagnose",
            code="no_group",
        ) from err
    try:
        yield group()
    finally:
        distributed.destroy_process_group()
