"""One JSON line per event on stderr, without input values and without exception messages."""

from __future__ import annotations

import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any

import orjson

NAME = "fairlead.service"
logger = logging.getLogger(NAME)


class JsonFormatter(logging.Formatter):
    """Renders a record as one JSON line.

    Of an exception only its type and where it was raised are shown: messages of libraries repeat the values that
    they choke on, which here are people's data.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.name != NAME:
            line["logger"] = record.name
        if record.exc_info and record.exc_info[1] is not None:
            frames = traceback.extract_tb(record.exc_info[1].__traceback__)[-5:]
            line["exception"] = type(record.exc_info[1]).__name__
            line["at"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        return orjson.dumps(line, default=str).decode()


def log_event(event: str, level: int = logging.INFO, **fields: Any) -> None:
    """Log `event` with `fields`, which must not hold input values."""
    logger.log(level, event, extra={"fields": fields})


def configure_logging() -> None:
    """Send everything through `JsonFormatter`, BentoML's and uvicorn's messages from WARNING on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logger.setLevel(logging.INFO)
    for name in ("bentoml", "uvicorn", "uvicorn.error", "uvicorn.access"):
        theirs = logging.getLogger(name)
        theirs.handlers.clear()
        theirs.propagate = True
        theirs.setLevel(logging.WARNING)
