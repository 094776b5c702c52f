"""A document that is replaced only by who has seen the last one: compare and swap, in a folder or in S3.

Each version is an object with the next number, put on condition that it is new; the highest number counts. So nothing
but the storage is needed, and of two that replace the same version one does. A server of S3 must know If-None-Match.
"""

from __future__ import annotations

import json
from typing import Any

from contracts import storage
from contracts.errors import PlatformError


class NumberedBytes:
    """The bytes below one address.

    Args:
        suffix: of the names of versions.
    """

    def __init__(self, place: str, suffix: str) -> None:
        self._place, self._suffix = place, suffix

    def last_bytes(self) -> tuple[int, bytes]:
        """The number and the bytes of the last version; 0 and b"" before the first."""
        while numbers := self._numbers():
            try:
                return numbers[-1], storage.read_bytes(self._address(numbers[-1]))
            except PlatformError as err:
                if err.code != "not_found":
                    raise
                continue  # it has just been replaced
        return 0, b""

    def last_number(self) -> int:
        """The number of the last version; 0 before the first."""
        return max(self._numbers(), default=0)

    def put_bytes(self, number: int, data: bytes) -> bool:
        """Make this the version `number`, one more than the last; False where others went on meanwhile, or where the
        last one was removed: who has seen what is gone must not bring it back.

        Others may have gone on from this very version before it was known here that it counts; then it is False too.
        """
        if not storage.write_new(self._address(number), data):
            return False
        numbers = self._numbers()
        if numbers and numbers[-1] > number:  # who has seen this one may just be looking for it: it must not go
            return False
        if numbers[-1:] != [number] or (number > 1 and number - 1 not in numbers):
            storage.remove(self._address(number))
            return False
        for old in numbers[:-1]:
            storage.remove(self._address(old))
        return True

    def remove(self) -> int:
        """Take all versions away, those that are written meanwhile as well; returns how many there were."""
        count = 0
        while numbers := self._numbers():
            for number in numbers:
                storage.remove(self._address(number))
            count += len(numbers)
        return count

    def _numbers(self) -> list[int]:
        names = (name.removesuffix(self._suffix) for name in storage.list_names(self._place))
        return sorted(int(name) for name in names if name.isdigit())

    def _address(self, number: int) -> str:
        return storage.join(self._place, f"{number:012d}{self._suffix}")


class Numbered(NumberedBytes):
    """The JSON document below one address."""

    def __init__(self, place: str) -> None:
        super().__init__(place, ".json")

    def last(self) -> tuple[int, dict[str, Any]]:
        """The number and the document of the last version; 0 and {} before the first."""
        number, data = self.last_bytes()
        document: dict[str, Any] = json.loads(data) if number else {}
        return number, document

    def put(self, number: int, document: dict[str, Any]) -> bool:
        """Make this the version `number`, one more than the last, see `put_bytes`."""
        return self.put_bytes(number, json.dumps(document).encode())
