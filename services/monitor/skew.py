"""Training-serving skew as it was measured last: who can join features again keeps the result beside the log."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from contracts import storage
from contracts.errors import PlatformError

FOLDER, FILE = "monitor", "skew.json"
_COUNTS = timedelta(days=2)  # what is older says nothing about now


def latest_skew(home: str, now: datetime) -> dict[str, dict[str, float]]:
    """The share of logged rows that differ from the history, by version and input; {} for none, or an old one.

    Args:
        home: the folder of a model's log.

    Raises:
        PlatformError: the storage does not answer; ``code="bad_state"``.
    """
    address = storage.join(home, FOLDER, FILE)
    try:
        document: dict[str, Any] = json.loads(storage.read_bytes(address))
        if now.astimezone(UTC) - datetime.fromisoformat(document["time"]) > _COUNTS:
            return {}
        return {
            version: {name: float(found["ratio"]) for name, found in one["inputs"].items()}
            for version, one in document["versions"].items()
        }
    except PlatformError as err:
        if err.code != "not_found":
            raise
        return {}
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise PlatformError(
            "the measured skew cannot be read",
            detail=f"{address}: {type(err).__name__}: {err}",
            fix="remove the file, and measure again: fairlead monitor MODEL --skew",
            code="bad_state",
        ) from err
