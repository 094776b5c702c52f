"""Watches deployed models until SIGTERM: ``python -m services.monitor``, with settings in FAIRLEAD_MONITOR_*."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence

import orjson

from contracts.errors import PlatformError
from contracts.settings import load
from services.logs import configure_logging, log_event
from services.monitor.service import Monitor
from services.monitor.settings import PREFIX, MonitorSettings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until it is ended; returns the exit status."""
    parser = argparse.ArgumentParser(prog="services.monitor", description=__doc__)
    parser.add_argument("--config", help="YAML file of settings; the environment wins over it")
    options = parser.parse_args(arguments)
    configure_logging()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: stop.set())
    try:
        settings = load(MonitorSettings, options.config, prefix=PREFIX)
        monitor = Monitor(settings)
        end = monitor.serve() if settings.port else lambda: None
    except PlatformError as err:
        sys.stderr.write(orjson.dumps({"level": "error", "event": "bad_settings", **err.as_dict()}).decode() + "\n")
        return 2
    log_event("watching", predictions=settings.predictions, models=settings.models, port=settings.port)
    monitor.run(stop)
    end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
