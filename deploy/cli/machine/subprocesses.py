"""Start and end child processes that have a process group of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def interrupts_wait() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait for the end of the block, in which a child is started that somebody must stop."""
    came: list[int] = []
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {sign: signal.getsignal(sign) for sign in (signal.SIGINT, signal.SIGTERM)}
    ours = {sign: handler for sign, handler in before.items() if callable(handler)}  # not one that is ignored
    for sign in ours:
        signal.signal(sign, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        for sign, handler in ours.items():
            signal.signal(sign, handler)
        for number in came[:1]:
            signal.raise_signal(number)


def stop_group(child: subprocess.Popen[Any], patience: float = 15.0) -> int:
    """Ask a child and its descendants to end, insist after `patience` seconds, and return its exit code.

    The group is signalled even when the child itself is gone, because its own children may not be.
    """
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, sign)
        except ProcessLookupError:
            break
        try:
            child.wait(patience)
        except subprocess.TimeoutExpired:
            continue
        if not _group_exists(child.pid):
            break
    return child.wait()


def processor_seconds(pid: int | None) -> float:
    """Seconds of processors that a process and its living descendants have used; 0 when it has ended."""
    import psutil

    total = 0.0
    try:
        first = psutil.Process(pid) if pid is not None else None
        for one in (first, *first.children(recursive=True)) if first is not None else ():
            with contextlib.suppress(psutil.NoSuchProcess):
                took = one.cpu_times()
                total += took.user + took.system
    except psutil.NoSuchProcess:
        pass
    return total


def _group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
