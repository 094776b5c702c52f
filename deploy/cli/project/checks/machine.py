"""Python, system libraries, disk and memory."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.cli.project.checks.finding import Finding, graded

if TYPE_CHECKING:
    from contracts.endpoints import Endpoints

GIB = 1 << 30
NEEDED_DISK, GOOD_DISK = 1 * GIB, 5 * GIB
NEEDED_MEMORY, GOOD_MEMORY = 1 * GIB, 2 * GIB


def check_machine(endpoints: Endpoints) -> Iterator[Finding]:
    """Findings about the machine itself."""
    yield python_version(sys.version_info[:2])
    yield openmp()
    yield disk(nearest(endpoints.path("home")))
    yield memory(available_memory())


def python_version(version: tuple[int, ...]) -> Finding:
    """Only the minor version that every dependency is pinned for will do."""
    fix = "install Python 3.11, then: make clean setup PYTHON=python3.11"
    return graded("Python", f"{version[0]}.{version[1]}, {sys.executable}", fix, fail=version != (3, 11))


def openmp() -> Finding:
    """LightGBM's wheel brings everything but the OpenMP runtime."""
    if sys.platform != "linux":
        return graded("OpenMP", f"not checked on {platform.system()}", "")
    try:
        ctypes.CDLL("libgomp.so.1")
    except OSError:
        return graded("OpenMP", "libgomp.so.1 is missing, LightGBM needs it", "apt-get install libgomp1", fail=True)
    return graded("OpenMP", "libgomp.so.1", "")


def disk(folder: Path) -> Finding:
    """Free space where the profile's home is or will be."""
    free = shutil.disk_usage(folder).free
    return graded(
        "disk",
        f"{free / GIB:.1f} GiB free at {folder}",
        "make room, or move the home: FAIRLEAD_HOME=/other/folder",
        fail=free < NEEDED_DISK,
        warn=free < GOOD_DISK,
    )


def memory(available: int | None) -> Finding:
    """Memory that a run can use."""
    if available is None:
        return graded("memory", f"not checked on {platform.system()}", "")
    found = f"{available / GIB:.1f} GiB available, {os.cpu_count()} cores"
    return graded(
        "memory",
        found,
        "a run takes up to 2 GiB: close other programs or raise the container's limit",
        fail=available < NEEDED_MEMORY,
        warn=available < GOOD_MEMORY,
    )


def available_memory() -> int | None:
    """Bytes that can still be used, a container's limit respected; None where /proc does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
    except (OSError, ValueError):  # no limit: the file says "max", or there is none
        return free
    return min(free, limit)


def nearest(path: Path) -> Path:
    """The path itself, or its nearest parent that exists."""
    return next(each for each in (path, *path.parents) if each.exists())
