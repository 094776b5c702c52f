"""One piece of work for an engine: a function by its name, called with a JSON document."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from contracts.errors import PlatformError
from feature_repo.stores.parts import function
from pipelines.io.events import named


def done(work: str, item: Mapping[str, Any]) -> Any:
    """What ``module:function`` gives for `item`.

    Raises:
        PlatformError: whatever it fails for.
    """
    try:
        return function(work)(item)
    except Exception as err:  # it is told in another process, which knows no types of this one
        raise named(err, f"a worker ({work.partition(':')[2]})") from err


def answered(work: str, item: str) -> str:
    """The same from JSON to JSON, with an error as a document."""
    try:
        return json.dumps({"result": done(work, json.loads(item))})
    except PlatformError as err:
        return json.dumps({"error": err.as_dict()})
