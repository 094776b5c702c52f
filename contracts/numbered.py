"""A JSON document that is replaced only by who has seen the last one: compare and swap, in a folder or in S3.

Each version is an object with the next number, put on condition that it is new; the highest number counts. So nothing
but the storage is needed, and of two that replace the same version one does. A server of S3 must know If-None-Match.
"""

from __future__ import annotations

import json
from typing import Any

from contracts import storage
from contracts.errors import PlatformError


class Numbered:
    """The document below one address."""

    def __init__(self, place: str) -> None:
        self._place = place

    def last(self) -> tuple[int, dict[str, Any]]:
        """The number and the document of the last version; 0 and {} before the first."""
        while numbers := self._numbers():
            try:
                document: dict[str, Any] = json.loads(storage.read_bytes(self._address(numbers[-1])))
            except PlatformError as err:
                if err.code != "not_found":
                    raise
                continue  # it has just been replaced
            return numbers[-1], document
        return 0, {}

    def put(self, number: int, document: dict[str, Any]) -> bool:
        """Make this the version `number`, one more than the last; False where others went on meanwhile."""
        if not storage.write_new(self._address(number), json.dumps(document).encode()):
            return False
        numbers = self._numbers()
        if numbers[-1] != number:  # they took the numbers before theirs away
            storage.remove(self._address(number))
            return False
        for old in numbers[:-1]:
            storage.remove(self._address(old))
        return True

    def _numbers(self) -> list[int]:
        names = (name.removesuffix(".json") for name in storage.list_names(self._place))
        return sorted(int(name) for name in names if name.isdigit())

    def _address(self, number: int) -> str:
        return storage.join(self._place, f"{number:012d}.json")
