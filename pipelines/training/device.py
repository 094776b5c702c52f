"""Where to train: "auto" is resolved once, and the answer is recorded with the run."""

from __future__ import annotations

import os
from typing import Any

from contracts.errors import PlatformError


def resolve_device(wanted: str) -> str:
    """A device that torch can use on this machine: "auto" takes a GPU when there is one.

    Raises:
        PlatformError: ``code="missing_package"`` without torch, ``code="no_device"`` when `wanted` is not there.
    """
    torch = import_torch()
    there = [name for name, usable in _backends(torch).items() if usable]
    if wanted == "auto":
        number = os.environ.get("LOCAL_RANK")  # which of several processes on this machine, each with a GPU of its own
        return f"cuda:{number}" if there[0] == "cuda" and number else there[0]
    kind, _, number = wanted.partition(":")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if kind not in there or (number and not (number.isdigit() and int(number) < count)):
        raise PlatformError(
            f"cannot train on device {wanted!r}",
            detail=f"this machine has: {', '.join(there)}",
            fix="--set training.device=auto",
            code="no_device",
        )
    return wanted


def _backends(torch: Any) -> dict[str, bool]:
    return {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}


def import_torch() -> Any:
    """The torch module, or an error that says how to get it."""
    try:
        import torch
    except ImportError as err:
        raise PlatformError(
            "this recipe trains with torch, which is not installed",
            fix="pip install 'fairlead[torch]', or choose a recipe without it",
            code="missing_package",
        ) from err
    return torch
