"""The logs of a run's pods as they are written: one ``kubectl logs -f`` per pod, each line once."""

from __future__ import annotations

import contextlib
import queue
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from deploy.cli.cluster.kube import Kube

_MOST = 16  # pods that are followed at the same time
_PAUSE = 3.0  # seconds before a log that ended too early is asked for again


@dataclass
class _Place:
    """How far the log of one pod was read."""

    stamp: str = ""  # of the last line
    same: int = 0  # lines that had this stamp
    complete: bool = False
    again: float = 0.0  # not before this moment
    child: subprocess.Popen[str] | None = None


class Streams:
    """Follows the logs of pods. A stream that breaks is taken up where it was."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._places: dict[str, _Place] = {}
        self._lines: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False

    def tend(self, pod: str, ended: bool) -> None:
        """See to it that the log of a pod is read; of one that has ended, to its end."""
        with self._lock:
            place = self._places.setdefault(pod, _Place())
            running = sum(1 for one in self._places.values() if one.child is not None)
            if place.complete or place.child or self._closed or running >= _MOST or time.monotonic() < place.again:
                return
            since = [f"--since-time={place.stamp}"] if place.stamp else []
            command = self._kube.command("logs", "-f", "--timestamps", *since, pod, "-c", "main")
            place.child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,  # Ctrl-C is ours
            )
        threading.Thread(target=self._read, args=(pod, place, place.child, ended), daemon=True).start()

    def lines(self, seconds: float) -> Iterator[tuple[str, str]]:
        """(pod, line) of what comes within `seconds`."""
        end = time.monotonic() + seconds
        while True:
            try:
                yield self._lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                return

    def complete(self, pod: str) -> bool:
        """Whether the log of a pod was read to its end."""
        with self._lock:
            place = self._places.get(pod)
            return place is not None and place.complete

    def close(self) -> None:
        """End all of it."""
        with self._lock:
            self._closed = True
            children = [place.child for place in self._places.values() if place.child is not None]
        for child in children:
            with contextlib.suppress(OSError):
                child.kill()

    def _read(self, pod: str, place: _Place, child: subprocess.Popen[str], ended: bool) -> None:
        assert child.stdout is not None
        self._pass_on(pod, place, child.stdout)
        code = child.wait()
        with self._lock:
            place.child = None
            place.complete = code == 0 and ended
            place.again = time.monotonic() + (0.0 if code == 0 else _PAUSE)

    def _pass_on(self, pod: str, place: _Place, stream: IO[str]) -> None:
        """Lines that are new: what has the stamp of the last line seen may be that line again."""
        begin, skip = place.stamp, place.same
        for line in stream:
            stamp, _, text = line.rstrip("\n").partition(" ")
            if begin and stamp < begin:
                continue
            if begin and stamp == begin and skip > 0:
                skip -= 1
                continue
            place.same = place.same + 1 if stamp == place.stamp else 1
            place.stamp = stamp
            self._lines.put((pod, text))
