"""The demo's model as the monitor and the loop see it: requests that differ from its training, and what followed."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.e2e.cluster import Platform

# The loop's way from a request to a run without waiting for minutes.
QUICK = {
    "monitoring": {"interval": "5s"},
    "loop": {"seconds": 5},
    "monitor": {"config": {"rules": {"labels_seconds": 5}}},
    "demo": {"config": {"predictions": {"upload_seconds": 2}}},
}
_CLIENT = {"fairlead.io/access-model": "true"}
_ROWS = 50  # of a request
_ASK_ON = """
import sys, time, urllib.request
headers = {"content-type": "application/json", "authorization": "Bearer " + sys.argv[3]}
request = urllib.request.Request(sys.argv[1], sys.argv[2].encode(), headers)
end = time.monotonic() + 240
while time.monotonic() < end:
    try:
        urllib.request.urlopen(request, timeout=10).read()
    except OSError:  # its address is not known to the policies yet
        time.sleep(0.5)
    time.sleep(0.25)
"""
_STARTS = """
import json
from contracts.audit import AuditLog
from contracts.endpoints import Endpoints
log = AuditLog.of(Endpoints(home="/tmp", artifacts="s3://fairlead/bundles"))
assert log.verify().intact
print(json.dumps([entry.as_dict() for entry in log.read(subject="fraud") if entry.action == "start_run"]))
"""


def demo_request(platform: Platform, rows: int = 1) -> tuple[str, str]:
    """A body for the demo's model with the same golden row some times, and its API key."""
    golden = platform.kubectl(
        "exec", "deploy/fairlead-demo", "-c", "server", "--", "head", "-n1", "/bundles/unpinned/golden.jsonl"
    )
    body = json.dumps({"instances": [json.loads(golden)["inputs"]] * rows})
    key = platform.kubectl("get", "secret", "fairlead-demo-keys", "-o", "jsonpath={.data.key}")
    return body, base64.b64decode(key).decode()


@contextmanager
def asking(platform: Platform) -> Iterator[None]:
    """Ask the demo's model for the same row again and again, which no training data look like."""
    with platform.client(_CLIENT, _ASK_ON, ("http://fairlead-demo/predict", *demo_request(platform, _ROWS))):
        yield


def watched_rows(platform: Platform, version: str = "demo") -> float:
    """Rows of the model's version that the monitor's present pod knows of."""
    pod = platform.pod("monitor")["metadata"]["name"]
    found = platform.query(f'fairlead_monitor_rows_total{{model="fraud",version="{version}",pod="{pod}"}}')
    return max((float(each["value"][1]) for each in found), default=0)


def starts(platform: Platform) -> list[Any]:
    """The entries of the audit log about runs that were started for the model."""
    found: list[Any] = json.loads(platform.run_in("loop", "python", "-c", _STARTS))
    return found


def joined_again(platform: Platform) -> dict[str, float]:
    """By input the share of the model's rows that differ from the features' history, by the daily job, run now."""
    platform.kubectl("create", "job", "skew-now", "--from=cronjob/fairlead-skew")
    platform.kubectl("wait", "job/skew-now", "--for=condition=Complete", "--timeout=240s")
    query = 'fairlead_monitor_skew_ratio{model="fraud"}'
    found = platform.until(lambda: platform.query(query), "no skew: " + platform.kubectl("logs", "job/skew-now"))
    return {each["metric"]["input"]: float(each["value"][1]) for each in found}
