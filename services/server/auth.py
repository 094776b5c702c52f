"""API keys: only their hashes are stored, each has a name and a rate; the file may change while the service runs.

One key per line, ``name:sha256-of-the-key[:requests per second][:operator][:labels=a|b]``; empty lines and lines with
``#`` are skipped. An operator may also act in the console; labels open documents that have them. Keys are random and
long, so one round of SHA-256 is enough. ``python -m services.server.auth NAME`` makes one.
"""

from __future__ import annotations

import hashlib
import logging
import math
import re
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from contracts.errors import PlatformError
from services.errors import Problem
from services.logs import log_event
from services.request_options import Holder

_LINE = re.compile(
    r"(?P<name>[\w.-]{1,64}):(?P<hash>[0-9a-f]{64})(?::(?P<rate>\d+(?:\.\d+)?))?(?P<operator>:operator)?"
    r"(?P<bound>:labels=(?P<labels>.*))?"
)
_LOOK_AGAIN_SECONDS = 5.0


@dataclass
class _Key:
    """A key's bucket of tokens: `rate` per second come in, and one second's worth is kept."""

    holder: Holder
    rate: float
    left: float
    seen: float

    def take(self) -> float:
        """Take one token; returns the seconds to wait when there is none, else 0."""
        if self.rate == math.inf:
            return 0.0
        now = monotonic()
        self.left = min(max(1.0, self.rate), self.left + (now - self.seen) * self.rate)
        self.seen = now
        if self.left < 1:
            return (1 - self.left) / self.rate
        self.left -= 1
        return 0.0


class KeyRing:
    """The keys of one file.

    Raises:
        PlatformError: the file cannot be read, or one of its lines is not a key.
    """

    def __init__(self, file: str) -> None:
        self._file = Path(file)
        self._looked = monotonic()
        self._stamp, self._keys = self._read()

    def check(self, headers: Mapping[bytes, bytes]) -> Holder:
        """Let a request pass, or not; whose key it has.

        Raises:
            Problem: 401 without a known key in ``authorization: Bearer`` or ``x-api-key``; 429 above its rate.
        """
        self._look_again()
        given = given_key(headers)
        key = self._keys.get(digest_of(given)) if given else None
        if key is None:
            title = "the API key is not known" if given else "an API key is needed"
            raise Problem(
                401,
                "unauthorized",
                title,
                fix="send the header authorization: Bearer KEY",
                headers={"www-authenticate": "Bearer"},
            )
        if wait := key.take():
            detail = f"at most {key.rate:g} requests per second are accepted"
            raise Problem(
                429, "rate-limited", "too many requests", detail, headers={"retry-after": str(max(1, math.ceil(wait)))}
            )
        return key.holder

    def holder(self, digest: str) -> Holder | None:
        """Whose key it is, by its `digest_of`; None for one that is not valid now."""
        self._look_again()
        key = self._keys.get(digest)
        return key.holder if key else None

    def _look_again(self) -> None:
        if monotonic() - self._looked < _LOOK_AGAIN_SECONDS:
            return
        self._looked = monotonic()
        try:
            if self._file.stat().st_mtime_ns != self._stamp:
                stamp, keys = self._read()
                for digest, key in keys.items():
                    keys[digest] = (
                        old
                        if (old := self._keys.get(digest)) and (old.rate, old.holder) == (key.rate, key.holder)
                        else key
                    )
                self._stamp, self._keys = stamp, keys
                log_event("keys_read", keys=len(keys))
        except (OSError, PlatformError):
            log_event("keys_unreadable", logging.ERROR, file=str(self._file), fix="the keys read before stay valid")

    def _read(self) -> tuple[int, dict[str, _Key]]:
        keys: dict[str, _Key] = {}
        try:
            stamp = self._file.stat().st_mtime_ns
            lines = self._file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as err:
            raise PlatformError(
                f"cannot read the API keys: {self._file}",
                detail=type(err).__name__,
                fix="correct FAIRLEAD_SERVICE_KEYS_FILE, or mount the Secret",
                code="bad_keys",
            ) from err
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            found = _LINE.fullmatch(line.strip())
            if found is None or (found["rate"] and not float(found["rate"])):
                raise PlatformError(
                    f"not an API key: {self._file}, line {number}",
                    fix="write name:sha256[:requests per second][:operator][:labels=a|b], see `python -m "
                    "services.server.auth NAME`",
                    code="bad_keys",
                )
            rate = float(found["rate"] or math.inf)
            labels = frozenset(one.strip() for one in (found["labels"] or "").split("|")) - {""}
            holder = Holder(
                name=found["name"], operator=bool(found["operator"]), labels=labels if found["bound"] else None
            )
            keys[found["hash"]] = _Key(holder, rate, max(1.0, rate), monotonic())
        return stamp, keys


def given_key(headers: Mapping[bytes, bytes]) -> bytes:
    """The API key that a request carries; empty without one."""
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key") or b""


def digest_of(key: bytes) -> str:
    """What the file has of a key, which is looked up by it: how long that takes tells nothing about the keys."""
    return hashlib.sha256(key).hexdigest()


def make_key(name: str) -> tuple[str, str]:
    """A new key, and the line that goes into the file."""
    key = secrets.token_urlsafe(32)
    return key, f"{name}:{digest_of(key.encode())}"


if __name__ == "__main__":
    made, line = make_key(sys.argv[1] if len(sys.argv) > 1 else "client")
    sys.stderr.write(f"Give this to the client, it is shown once: {made}\n")
    sys.stdout.write(line + "\n")
