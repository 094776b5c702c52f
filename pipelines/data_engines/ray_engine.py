"""The engine ``ray``: pieces of work go to processes of Ray, of this machine or of pods (`pods_engine`)."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TextIO

from contracts import storage
from contracts.errors import PlatformError
from pipelines.data_engines import duckdb_limit
from pipelines.data_engines.ray_driver import TRIES
from pipelines.data_engines.ray_worker import Head, secured
from pipelines.io import events

ROWS = 1_000_000  # of a part
MOST = 64  # parts: each is a file of each share of the source
_ENDS = 20.0  # seconds that Ray may take to stop
PATIENCE = 900.0  # seconds without a worker
_LOST = {"RAY_gcs_rpc_server_reconnect_timeout_s": "10"}  # until a head that does not answer is lost
_AT_ONCE = 16  # objects that are deleted beside each other
_LOG = "driver.log"
_HEADS = 2  # that may be lost in one step, before it fails


class Driver(Protocol):
    """What speaks with Ray for a step, by lines of JSON."""

    @property
    def asks(self) -> TextIO:
        """To it."""

    @property
    def answers(self) -> TextIO:
        """From it."""

    def ended(self) -> str:
        """Why its answers have ended."""

    def stop(self) -> None:
        """End it, and with it all that works for it."""


class _Process:
    """A driver of this machine."""

    def __init__(self, asked: Mapping[str, Any], token: str) -> None:
        self._folder = tempfile.mkdtemp(prefix="fl-ray-")  # short: sockets lie in it
        settings = json.dumps({"folder": self._folder, **asked})
        with (Path(self._folder) / _LOG).open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pipelines.data_engines.ray_driver", settings],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **secured(token), **_LOST, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                start_new_session=True,  # what it starts ends with it
            )

    @property
    def asks(self) -> TextIO:
        assert isinstance(self._process.stdin, io.TextIOBase)
        return self._process.stdin

    @property
    def answers(self) -> TextIO:
        assert isinstance(self._process.stdout, io.TextIOBase)
        return self._process.stdout

    def ended(self) -> str:
        said = (Path(self._folder) / _LOG).read_text(errors="replace").strip().splitlines()
        return f"its process ended with {self._process.wait()}: {' '.join(said[-3:])[-600:]}"

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self.asks.close()
        try:
            self._process.wait(_ENDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self.answers.close()
        shutil.rmtree(self._folder, ignore_errors=True)


class RayEngine:
    """See `feature_repo.stores.parts.Engine`. Ray starts with the first work, and ends with `close`.

    Args:
        step: that is told of.  workers: processes, each with `memory` (such as 2Gi).
        place: folder, or address of S3, that all workers see.
    """

    _together = True  # the workers are of this machine

    def __init__(self, step: str, *, workers: int, memory: str, place: str, rows: int = ROWS) -> None:
        if importlib.util.find_spec("ray") is None:
            raise PlatformError(
                "ray is not installed, and data.engine is ray",
                fix="pip install 'fairlead[ray]', or leave data.engine out",
                code="missing_package",
            )
        self.workers, self.memory_limit = workers, duckdb_limit(memory, workers if self._together else 0)
        self._step, self._memory, self._place, self._rows = step, memory, place, rows
        self._driver: Driver | None = None
        if not storage.is_remote(place):
            _forget(Path(place))

    def parts(self, rows: int) -> int:
        """So many that each worker has some, and none has more than a million rows, up to 64."""
        return min(max(-(-rows // self._rows), self.workers), MOST)

    def map(self, work: str, items: Sequence[Mapping[str, Any]]) -> list[Any]:
        """See `Engine`. Work whose worker dies is done again by another one; when the head is lost, a new one starts.

        Raises:
            PlatformError: of the work itself; ``code="worker_lost"``: workers died at one piece of it, again and
                again; ``code="head_lost"``.
        """
        found: dict[int, Any] = {}
        texts = [json.dumps(item) for item in items]
        doing = work.partition(":")[2].replace("_", " ")
        report = events.progress(self._step)
        for head in range(_HEADS):
            left = [number for number in range(len(texts)) if number not in found]
            if not left:
                break
            try:
                for number, answer in self._asked([[number, work, texts[number]] for number in left]):
                    found[number] = _result(answer, doing, self._memory)
                    report(len(found), len(items), doing=doing, workers=self.workers)
            except PlatformError:
                self.close()  # what others still do is for nothing
                raise
            except _HeadLostError as err:
                self._stop()
                if head + 1 == _HEADS:
                    raise PlatformError(
                        f"the head of Ray was lost while workers did: {doing}",
                        detail=f"{len(found)} of {len(items)} pieces were done; {err}",
                        fix="see memory and disk of this machine, and run again: what is done is kept with the steps",
                        code="head_lost",
                    ) from err
                self.say(f"the head of Ray was lost: {len(items) - len(found)} pieces of work are done by a new one")
        return [found[number] for number in range(len(items))]

    @contextlib.contextmanager
    def place(self) -> Iterator[str]:
        """See `Engine`."""
        address = storage.join(self._place, f"parts-{os.getpid()}-{uuid.uuid4().hex[:8]}")
        try:
            yield address
        finally:
            if storage.is_remote(address):
                remove_below(address)
            else:
                shutil.rmtree(address, ignore_errors=True)

    def shared(self, files: Sequence[str], place: str) -> list[str]:
        """See `Engine`."""
        if not storage.is_remote(place):
            return list(files)
        found = []
        for number, file in enumerate(files):
            if storage.is_remote(file):
                found.append(file)
                continue
            found.append(storage.join(place, "given", f"{number:05d}", Path(file).name))
            storage.upload_file(Path(file), found[-1])
        return found

    def say(self, message: str) -> None:
        """As an event of the step."""
        events.emit("log", step=self._step, message=message)

    def close(self) -> None:
        """Stop Ray and all of its processes."""
        self._stop()

    def _stop(self) -> None:
        driver, self._driver = self._driver, None
        if driver is not None:
            driver.stop()

    def _alone(self, seconds: float) -> PlatformError:
        return PlatformError(
            f"no worker of Ray came within {seconds:.0f} s",
            fix="see memory of this machine, or take fewer: --set data.workers=1",
            code="no_workers",
        )

    def _asked(self, items: list[list[Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
        driver = self._started()
        try:
            driver.asks.write(json.dumps(items) + "\n")
            driver.asks.flush()
        except OSError as err:
            raise _HeadLostError(str(err)) from err
        while not (told := self._told(driver)).get("done"):
            if "alone" in told:
                raise self._alone(told["alone"])
            yield told["number"], told

    def _started(self) -> Driver:
        if self._driver is None:
            self.say(f"starting Ray with {self.workers} workers")
            token = secrets.token_hex(32)
            self._driver = self._start(token)
            self._gather(Head(address=self._told(self._driver)["address"], token=token))
        return self._driver

    def _start(self, token: str) -> Driver:
        """A head of this machine, and what speaks with it."""
        return _Process({"patience": PATIENCE, **self._of_head()}, token)

    def _of_head(self) -> dict[str, Any]:
        """Workers that the head has of itself, and its address; "" is one that others reach."""
        return {"workers": self.workers, "ip": "127.0.0.1"}

    def _gather(self, head: Head) -> None:
        """Have workers join the head, which has started."""

    def _told(self, driver: Driver) -> dict[str, Any]:
        line = ""
        with contextlib.suppress(OSError):
            line = driver.answers.readline()
        if not line.endswith("\n"):
            raise _HeadLostError(driver.ended())
        told: dict[str, Any] = json.loads(line)
        return told


class _HeadLostError(Exception):
    pass


def remove_below(address: str) -> None:
    """Delete all below an address of S3."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in pool.map(storage.remove, [item.uri for item in storage.listing(address)]):
            pass


def _result(told: Mapping[str, Any], doing: str, memory: str) -> Any:
    if "lost" in told:
        raise PlatformError(
            f"workers died {TRIES + 1} times at one piece of work: {doing}",
            detail=f"{told['lost']}: {told['why']}",
            fix=f"give each more memory than {memory} (--set data.memory=8Gi), or take fewer (--set data.workers=1)",
            code="worker_lost",
        )
    answer = json.loads(told["answer"])
    if "error" in answer:
        raise PlatformError.from_dict(answer["error"])
    return answer["result"]


def _forget(place: Path) -> None:
    """Delete what steps have left that were killed."""
    for folder in place.glob("parts-*-*"):
        if not Path("/proc", folder.name.split("-")[1]).exists():
            shutil.rmtree(folder, ignore_errors=True)
