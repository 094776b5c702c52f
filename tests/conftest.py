"""What holds for every test."""

from __future__ import annotations

import gc
import inspect
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# prometheus_client decides when it is imported whether values are in files, and `bentoml` asks for that in its process.
os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
import prometheus_client  # noqa: F401
import psutil
import pytest
from hypothesis import settings

from contracts.garbage import collect_rarely

# Modules and collected tests are no garbage, and looking for some among them takes a fifth of the time of imports.
gc.disable()

# Tests start hundreds of processes, and each would compile the same libraries anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A machine may be busy: how long an example takes says nothing about the code.
settings.register_profile("fairlead", deadline=None, max_examples=50)
settings.load_profile("fairlead")

# Tests run side by side, one a core: more threads only wait for one another.
for library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")


def temporary() -> str:
    """A folder in memory where there is much of it: a database waits for a disk hundreds of times."""
    memory = Path("/dev/shm")
    try:
        executable = not os.statvfs(memory).f_flag & os.ST_NOEXEC
        free = min(shutil.disk_usage(memory).free, psutil.virtual_memory().available)
    except OSError:
        return tempfile.gettempdir()
    return str(memory) if executable and free > 8 * 2**30 else tempfile.gettempdir()


if "TMPDIR" not in os.environ:  # a worker has it from the process that started it
    os.environ["TMPDIR"] = tempfile.tempdir = temporary()

# The list of homes of whoever runs the tests is not for theirs.
_state = tempfile.mkdtemp(prefix="fairlead-state-")
os.environ["XDG_STATE_HOME"] = _state


def _stack(context: int = 0) -> list[inspect.FrameInfo]:
    """The frames of the caller without their lines of source, for which `inspect` goes through every module."""
    found, frame = [], inspect.currentframe()
    while frame and (frame := frame.f_back):
        code = frame.f_code
        found.append(inspect.FrameInfo(frame, code.co_filename, frame.f_lineno, code.co_name, None, None))
    return found


# KFP asks for the whole stack at every setting of a task, for the name of one function.
inspect.stack = _stack

# A job in the background of a shell ignores Ctrl-C, and so would every process that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


# Files that load torch and transformers, which takes 10 s of a processor in each worker.
_TOGETHER = (
    "tests/unit/contracts/test_engine_torch.py",
    "tests/unit/pipelines/test_hub.py",
    "tests/unit/pipelines/test_news.py",
    "tests/unit/pipelines/test_news_transformer.py",
    "tests/unit/training/",
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file stays with one worker, as do files that load the same heavy library, and a worker with its folder.

    The tests of a folder need much the same libraries, and each worker loads its own: what has begun a folder goes on
    there, and then where no other worker is.
    """
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    at: dict[Any, str] = {}  # the folder of each worker

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "torch/files" if nodeid.startswith(_TOGETHER) else str(super()._split_scope(nodeid))

        def _assign_work_unit(self, node: Any) -> None:
            taken = {folder for worker, folder in at.items() if worker is not node}

            def order(scope: str) -> int:
                folder = scope.rpartition("/")[0]
                first = folder in (at.get(node), "tests/integration")  # long files are not to be last
                return 0 if first else 2 if folder in taken else 1

            scope = min(self.workqueue, key=order)  # of equals the first
            at[node] = scope.rpartition("/")[0]
            self.workqueue.move_to_end(scope, last=False)
            super()._assign_work_unit(node)

    return Scheduling(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[Any]:
    """What has been collected stays; what tests make is looked through as in the platform's own processes."""
    found = yield
    gc.freeze()
    collect_rarely()
    gc.enable()
    return found


@pytest.fixture(scope="session")
def registry_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of an empty registry, made once for all workers: MLflow takes seconds for its tables."""
    from contracts.endpoints import Endpoints
    from contracts.file_lock import file_lock
    from contracts.registry import Registry

    place = tmp_path_factory.getbasetemp()
    folder = (place.parent if "PYTEST_XDIST_WORKER" in os.environ else place) / "registry-tables"
    with file_lock(folder / ".lock"):
        if not (folder / "made").exists():
            Registry(Endpoints(home=str(folder))).prepare()
            (folder / "made").touch()
    return folder / "mlflow.db"


@pytest.fixture(scope="session")
def with_tables(registry_tables: Path) -> Callable[[Path], Path]:
    """Makes a folder a home whose registry has its tables, and gives it back."""

    def with_tables(home: Path) -> Path:
        home.mkdir(parents=True, exist_ok=True)
        shutil.copy(registry_tables, home)
        return home

    return with_tables


def pytest_unconfigure() -> None:
    """Leave nothing behind."""
    shutil.rmtree(_state, ignore_errors=True)
