"""What a step tells its surroundings: one JSON line per event on stdout, the same locally and in a pod's log."""

from __future__ import annotations

import errno
import gc
import json
import os
import select
import stat
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from contracts.errors import PlatformError
from contracts.garbage import collect_rarely
from pipelines.io.library_errors import is_final, meaning
from pipelines.io.record import Record, cpu_seconds, memory_peak, now, open_record
from pipelines.run import Run

_MIN_INTERVAL = 0.2  # seconds between two progress events of one step
DISK_FULL = {errno.ENOSPC, errno.EDQUOT}


def emit(event: str, **fields: Any) -> None:
    """Print one event; values must be JSON or have a readable str()."""
    line = json.dumps({"event": event, **fields, "time": round(time.time(), 3)}, default=str)
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def progress(step: str) -> Callable[..., None]:
    """A ``progress(done, total, **metrics)`` for `step`; it leaves events out so that there are at most 5 a second."""
    last = 0.0

    def report(done: float, total: float | None = None, **metrics: Any) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _MIN_INTERVAL or (total is not None and done >= total):
            last = now
            emit("progress", step=step, done=done, total=total, **metrics)

    return report


def notes(step: str) -> Callable[[str], None]:
    """What tells people a message of `step`."""
    return lambda message: emit("note", step=step, message=message)


@contextmanager
def running(step: str, about: Run | None = None) -> Iterator[Callable[[Any], None]]:
    """Report start and end of `step`; what it yields takes the step's result for the last event.

    A PlatformError ends the process with exit code 1 and its structured form as ``step_failed``, without a traceback;
    any other exception is reported the same way and passes on. On a cluster the run's record says the same, and a step
    that has failed for good in an earlier try of its pod fails again at once; `about` is what the run was asked, for
    a record that does not say it yet.
    """
    collect_rarely()
    began = time.perf_counter()
    result: list[Any] = []
    telling = _Telling(step, open_record(os.environ))
    emit("step_started", step=step, pid=os.getpid())
    telling.started(about or Run())
    _end_with_reader()
    try:
        telling.fail_again()
        yield result.append
    except PlatformError as err:
        telling.failed(err, began)
        raise SystemExit(1) from err
    except Exception as err:
        telling.failed(named(err, step), began)
        raise
    finally:
        # The process ends after this: searching for garbage once more would only cost time (0.7 s with MLflow loaded).
        gc.freeze()
    telling.finished(result[0] if result else None, began)


def cached(step: str, result: Any, seconds: float = 0.0) -> None:
    """Report that `step` has been done before with the same code, settings and inputs, with the result it had then."""
    emit("step_cached", step=step, seconds=seconds, result=result)
    if record := open_record(os.environ):
        record.write_step(step, "cached", started=now(), seconds=seconds, result=result)
        record.close()


class _Telling:
    """The events of one step, and the same in the run's record where there is one."""

    def __init__(self, step: str, record: Record | None) -> None:
        self.step, self.record, self.at = step, record, now()
        self._cpu = cpu_seconds()

    def started(self, asked: Run) -> None:
        if self.record:
            self.record.write_run(asked, {"started": self.at})
            if self.record.attempt == 1:  # later, what the try before said is read first
                self.record.write_step(self.step, "running", started=self.at)

    def fail_again(self) -> None:
        if self.record and self.record.attempt > 1:
            if error := self.record.ended_before(self.step):
                raise error
            self.record.write_step(self.step, "running", started=self.at)

    def finished(self, result: Any, began: float) -> None:
        seconds = round(time.perf_counter() - began, 3)
        emit("step_finished", step=self.step, seconds=seconds, **(used := self._used()), result=result)
        if self.record:
            took = {"seconds": seconds, "cpu": used["cpu_seconds"]}
            self.record.write_step(self.step, "finished", started=self.at, **took, result=result)
            self.record.close()

    def _used(self) -> dict[str, Any]:
        """Bytes of memory at most, and seconds of processor, of this step."""
        return {"memory_peak": memory_peak(), "cpu_seconds": round(cpu_seconds() - self._cpu, 3)}

    def failed(self, error: PlatformError, began: float) -> None:
        seconds, said = round(time.perf_counter() - began, 3), error.as_dict()
        emit("step_failed", step=self.step, seconds=seconds, **(used := self._used()), error=said)
        if self.record:
            final = is_final(error)
            took = {"seconds": seconds, "cpu": used["cpu_seconds"]}
            self.record.write_step(self.step, "failed", started=self.at, **took, error=said, final=final)
            self.record.close()


def named(err: BaseException, doing: str) -> PlatformError:
    """Any exception as the error that people see."""
    if isinstance(err, PlatformError):
        return err
    return from_os_error(err, doing) if isinstance(err, OSError) else unexpected(err, doing)


def unexpected(err: BaseException, doing: str) -> PlatformError:
    """What an exception of a library means, or a defect: kind, message and the innermost lines of the traceback."""
    if known := meaning(err, doing):
        return known
    frames = traceback.extract_tb(err.__traceback__)[-3:]
    where = " <- ".join(f"{os.path.basename(f.filename)}:{f.lineno} {f.name}" for f in reversed(frames))
    return PlatformError(
        f"{doing} failed: {type(err).__name__}: {str(err)[:500]}",
        detail=f"at {where}",
        fix="this is not an expected failure: see the step's output in the run's log.txt",
        code="unexpected",
    )


def from_os_error(err: OSError, doing: str) -> PlatformError:
    """What the operating system refused, with a cure where there is one."""
    place = str(err.filename or "the disk")
    if err.errno in DISK_FULL:
        return PlatformError(
            f"no space left on the disk: {doing} could not write",
            detail=f"writing to {place}",
            fix="free some space and run again: finished parts are kept, nothing half-written is visible",
            code="disk_full",
        )
    if err.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return PlatformError(
            f"{doing} may not use {place}",
            detail=str(err),
            fix="give this user the right to read and write there, or set another folder",
            code="no_access",
        )
    return unexpected(err, doing)


def _end_with_reader() -> None:
    """End this process when nobody reads its stdout any more: its run was killed, and must not go on unseen."""
    try:
        number = sys.stdout.fileno()
        if not stat.S_ISFIFO(os.fstat(number).st_mode) or not hasattr(select, "poll"):
            return
    except (OSError, ValueError, AttributeError):
        return

    def wait() -> None:
        poll = select.poll()
        poll.register(number, select.POLLERR)
        poll.poll()
        os._exit(1)

    threading.Thread(target=wait, name="end-with-reader", daemon=True).start()
