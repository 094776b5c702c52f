"""Trying again by cause: what the network or a server that is away did to a step may pass; all else is final."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pipelines.io.events import emit, named
from pipelines.io.library_errors import TRANSIENT

T = TypeVar("T")

WAITS = (2.0, 8.0)
"""Seconds before the second and the third try; a server that is away for longer costs the pod, and it starts anew."""


def with_retries(step: str, call: Callable[..., T], *given: Any, fresh: str = "") -> T:
    """The result of ``call(*given)``; tried again, with an event ``step_retry``, while a server cannot be reached.

    What a try that broke off left at `fresh` is removed before the next.
    """
    for attempt, wait in enumerate(WAITS, 1):
        try:
            return call(*given)
        except Exception as err:
            error = named(err, step)
            if error.code not in TRANSIENT:
                raise
        emit("step_retry", step=step, attempt=attempt, error=error.as_dict(), wait=wait)
        time.sleep(wait)
        _remove(fresh)
    return call(*given)


def _remove(made: str) -> None:
    if not made:
        return
    path = Path(made)
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
