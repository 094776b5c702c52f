"""Ask an endpoint for predictions from several connections, and measure."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any
from urllib.parse import urlsplit

TIMEOUT = 30.0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back for request `index`; status 0 means that there was no answer."""

    index: int
    status: int
    milliseconds: float
    body: Any


def send(
    url: str,
    bodies: Sequence[Any],
    connections: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
    key: str = "",
) -> list[Answer]:
    """POST every body as JSON, `connections` at a time over keep-alive; answers in the order of `bodies`.

    key: API key that each request carries; empty: none.
    """
    answers: list[Answer | None] = [None] * len(bodies)
    encoded = [json.dumps(body).encode() for body in bodies]
    numbers, finished = count(), count(1)

    def worker() -> None:
        client = _Client(url, key)
        try:
            while (index := next(numbers)) < len(encoded):
                answers[index] = client.post(index, encoded[index])
                progress(next(finished), len(encoded))
        finally:
            client.close()

    threads = [threading.Thread(target=worker, daemon=True) for _ in range(min(connections, len(encoded)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [answer for answer in answers if answer is not None]


class _Client:
    """One keep-alive connection; opened again after a failure."""

    def __init__(self, url: str, key: str) -> None:
        self._url = urlsplit(url)
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self._connection: http.client.HTTPConnection | None = None

    def post(self, index: int, body: bytes) -> Answer:
        began = time.perf_counter()
        try:
            if self._connection is None:
                kind = http.client.HTTPSConnection if self._url.scheme == "https" else http.client.HTTPConnection
                self._connection = kind(self._url.hostname or "", self._url.port, timeout=TIMEOUT)
            self._connection.request("POST", self._url.path, body, self._headers)
            response = self._connection.getresponse()
            text, status = response.read(), response.status
        except (OSError, http.client.HTTPException) as err:
            self.close()
            text, status = json.dumps({"error": str(err)}).encode(), 0
        taken = (time.perf_counter() - began) * 1000
        return Answer(index=index, status=status, milliseconds=taken, body=_decoded(text))

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _decoded(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text.decode(errors="replace")


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of `values` do not exceed; NaN without values."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    position = -(-share * len(ordered) // 1) - 1  # ceil, minus one
    return ordered[max(0, min(len(ordered) - 1, int(position)))]
