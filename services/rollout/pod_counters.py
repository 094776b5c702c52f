"""Counters of a version that many pods answer for: each pod's own are followed, and what they grew by is added up.

A pod that ends takes its counters away, and a new one begins at zero; the sum of what is there would fall, which looks
as if everything began anew.
"""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from services.rollout.observation import Counts, read_counts

_PATIENCE = 2.0


def addresses(name: str) -> list[str]:
    """Addresses of the ready pods behind a headless Service; none where it has none."""
    try:
        return sorted({str(found[4][0]) for found in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)})
    except OSError:
        return []


def fetched(urls: Iterable[str]) -> dict[str, str]:
    """What is served at each address that answers."""

    def read(url: str) -> str | None:
        try:
            with urllib.request.urlopen(url, timeout=_PATIENCE) as answer:
                return str(answer.read().decode())
        except OSError:
            return None

    with ThreadPoolExecutor(8) as pool:
        wanted = list(urls)
        return {url: text for url, text in zip(wanted, pool.map(read, wanted), strict=True) if text is not None}


def at(address: str, port: int, path: str) -> str:
    """The URL of a pod."""
    return f"http://{f'[{address}]' if ':' in address else address}:{port}{path}"


class Followed:
    """What all pods of a version have counted since it was followed.

    Args:
        begin: what was counted until now, by a keeper that ended. Pods that are seen at the first look are then
            counted from that look on.
    """

    def __init__(self, version: str, begin: Counts | None = None) -> None:
        self._mark = f'version="{version}"'
        self._total, self._resumes = begin or Counts(), begin is not None
        self._pods: dict[str, Counts] = {}

    def look(self, texts: Iterable[tuple[str, str]]) -> Counts | None:
        """The counters after a look at (pod, its metrics); None where no pod of the version answered."""
        seen = [(pod, read_counts(text)) for pod, text in texts if self._mark in text]
        for pod, counts in seen:
            before = self._pods.get(pod)
            if before is not None:
                self._total = self._total.plus(counts.since(before))
            elif not self._resumes:
                self._total = self._total.plus(counts)
            self._pods[pod] = counts
        if seen:
            self._resumes = False
        return self._total if seen else None


class Unreached:
    """Requests that did not reach a version, by all routers together."""

    def __init__(self, begin: float = 0.0) -> None:
        self._total, self._before = begin, dict[str, float]()

    def look(self, counted: Iterable[tuple[str, float]]) -> float:
        """The sum after a look at (router, its counter); what one counted before it was first seen is not ours."""
        for router, count in counted:
            before = self._before.get(router, count)
            self._total += count - before if count >= before else count
            self._before[router] = count
        return self._total


Fetch = Callable[[Iterable[str]], dict[str, str]]
Resolve = Callable[[str], list[str]]
