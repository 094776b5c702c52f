"""Trains the demo's model and publishes it where the demo's pods wait for it; when it is there, nothing happens."""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.request
from typing import Any

from contracts import storage
from contracts.bundle import DOCUMENT
from contracts.errors import PlatformError
from contracts.registry import Registry
from deploy.cli.profiles.loading import load_endpoints
from deploy.cli.runs.workflow import RunOptions, execute, plan_run

WAIT_SECONDS = 600


def main(address: str, recipe: str, *settings: str) -> int:
    """Publish to `address`; `settings` are key=value of the fraud task."""
    _wait_for_mlflow()
    if storage.exists(storage.join(address, DOCUMENT)):
        _say({"event": "published_already", "address": address})
        return 0
    endpoints = load_endpoints("local")
    execute(plan_run(endpoints, "fraud", recipe, RunOptions(overrides=settings)), _say)
    bundle = Registry(endpoints).fetch("fraud@champion")
    storage.upload(bundle.path, address, last=DOCUMENT)
    _say({"event": "published", "address": address, "digest": bundle.digest})
    return 0


def _wait_for_mlflow() -> None:
    """Everything starts at once, and MLflow last."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(os.environ["FAIRLEAD_TRACKING"] + "/health", timeout=5).close()
        except OSError:
            time.sleep(1)
        else:
            return


def _say(event: dict[str, Any]) -> None:
    if event.get("event") != "progress":
        sys.stdout.write(json.dumps(event, default=str) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    try:
        raise SystemExit(main(*sys.argv[1:]))
    except PlatformError as err:
        _say({"event": "failed", **err.as_dict()})
        raise SystemExit(1) from err
