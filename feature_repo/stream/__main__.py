"""Pushes the rows of Kafka topics into the feature store until SIGTERM; settings in FAIRLEAD_STREAM_*."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import orjson

from contracts.errors import PlatformError
from contracts.settings import load
from feature_repo.stream.settings import PREFIX, StreamSettings

if TYPE_CHECKING:
    from feature_repo.stream.exposition import Figures


class _Lines(logging.Formatter):
    """A line of JSON for each record, like those of the services."""

    def format(self, record: logging.LogRecord) -> str:
        said = {"time": self.formatTime(record), "level": record.levelname.lower(), "message": record.getMessage()}
        return orjson.dumps(said).decode()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until it is ended; returns the exit status: 0, or 2 after an error that is printed as JSON."""
    parser = argparse.ArgumentParser(prog="feature_repo.stream", description=__doc__)
    parser.add_argument("--config", help="YAML file of settings; the environment wins over it")
    options = parser.parse_args(arguments)
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: stop.set())
    try:
        follow(load(StreamSettings, options.config, prefix=PREFIX), stop)
    except PlatformError as err:
        sys.stderr.write(orjson.dumps({"level": "error", "event": "stopped", **err.as_dict()}).decode() + "\n")
        return 2
    return 0


def follow(settings: StreamSettings, stop: threading.Event, figures: Figures | None = None) -> None:
    """Consume the topics of the settings until `stop` is set; what is done is counted in `figures`.

    Raises:
        PlatformError: see `Stream.run`.
    """
    from prometheus_client import start_http_server

    from feature_repo.stores.push import CheckedStore
    from feature_repo.stream.consumer import Stream, sources_of
    from feature_repo.stream.exposition import Figures

    figures = figures or Figures()
    store = CheckedStore(repo_path=settings.repo)
    stream = Stream(settings, sources_of(settings, store), figures)
    end = None
    if settings.port:
        server, _ = start_http_server(settings.port, addr=settings.host, registry=figures.registry)
        end = server.shutdown
    try:
        stream.run(stop)
    finally:
        if end is not None:
            end()


if __name__ == "__main__":
    sys.exit(main())
