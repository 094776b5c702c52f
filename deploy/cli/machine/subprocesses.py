"""End child processes that were started with a process group of their own."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import Any


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


def _group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
