"""Looks after the rollouts of one release until SIGTERM.

``python -m services.rollout`` runs in a pod of the release, with settings in FAIRLEAD_ROLLOUT_*.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Sequence

from contracts.errors import PlatformError
from contracts.settings import load
from services.logs import configure_logging, log_event
from services.rollout.kubernetes import Kubernetes
from services.rollout.service import KeeperService
from services.rollout.settings import PREFIX, KeeperSettings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until it is ended; returns the exit status."""
    argparse.ArgumentParser(prog="services.rollout", description=__doc__).parse_args(arguments)
    configure_logging()
    try:
        settings = load(KeeperSettings, prefix=PREFIX)
        service = KeeperService(settings, Kubernetes(settings.namespace))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, frame: service.end())
        log_event("keeping", model=settings.model, version=service.served().version, release=settings.name)
        service.run()
    except PlatformError as err:
        log_event("ended", logging.ERROR, **err.as_dict())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
