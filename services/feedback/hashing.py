"""How the log redacts values: the same salt gives the same hash, in every process."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any


def hashed(salt: bytes, value: Any) -> str:
    """32 hexadecimal digits that stand for a value, of no use to who has not the salt."""
    data = value if isinstance(value, bytes) else str(value).encode()
    return hmac.new(salt, data, hashlib.sha256).hexdigest()[:32]
