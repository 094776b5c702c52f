"""A bundle that a newer platform has made."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from contracts.settings import load
from services.monitor.service import Monitor
from services.monitor.settings import MonitorSettings
from tests.monitor_log import Log


def test_it_is_an_error_of_its_model_and_the_monitor_goes_on(tmp_path: Path) -> None:
    log = Log(tmp_path)
    (file,) = log.artifacts.rglob("bundle.json")
    text = json.dumps(json.loads(file.read_text()) | {"news": 1}).encode()
    log.digest = hashlib.sha256(text).hexdigest()[:12]
    file.write_bytes(text)
    file.parent.rename(file.parent.with_name(log.digest))
    log.write(2)
    given = {"predictions": str(log.folder), "artifacts": str(log.artifacts)}
    report = Monitor(load(MonitorSettings, environ={}, overrides=given)).look()["m"]
    assert report["error"]["code"] == "bad_bundle"
    assert "news" in report["error"]["detail"]
