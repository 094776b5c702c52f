"""What the console of the platform shows, asked in its pod."""

from __future__ import annotations

import base64
import json
import urllib.parse
from collections.abc import Mapping

from tests.e2e.cluster import Platform

_LOOK = """
import json, sys, urllib.error, urllib.parse, urllib.request
key, form, *paths = sys.argv[1:]
found = []
for path in paths:
    headers = {"x-api-key": key} if key else {}
    request = urllib.request.Request("http://127.0.0.1:8600" + path, form.encode() or None, headers)
    try:
        answer = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as err:
        answer = err
    found.append((answer.status, answer.read().decode()))
print(json.dumps(found))
"""


def look_at_the_demo(platform: Platform) -> None:
    """Without a key and with a wrong one it shows nothing; with one the demo, its release, and what it answers."""
    found = json.loads(platform.kubectl("get", "secret", "fairlead-console-keys", "-o", "json"))["data"]
    key = base64.b64decode(found["key"]).decode()
    platform.kubectl("wait", "deploy/fairlead-console", "--for=condition=Available", "--timeout=300s")
    for wrong in ("", "wrong"):
        assert [status for status, _ in _look(platform, wrong, "/", "/models/fraud", "/runs")] == [401] * 3

    def shown() -> list[str] | None:
        pages = _look(platform, key, "/", "/models/fraud", "/audit")
        return [text for _, text in pages] if all(status == 200 for status, _ in pages) else None

    models, model, _ = platform.until(shown, "MLflow has just begun, and the pages are not there")
    assert "/models/fraud" in models
    for word in ("<code>http://fairlead-demo:80</code>", "1 / 1", ">demo<"):
        assert word in model, "its release, with the pod that is ready and its version"
    golden = platform.kubectl(
        "exec", "deploy/fairlead-demo", "-c", "server", "--", "head", "-n1", "/bundles/unpinned/golden.jsonl"
    )
    form = {"by": "features", "explain": "on"}
    given = json.loads(golden)["inputs"].items()
    form |= {f"f.{name}": json.dumps(value).strip('"') for name, value in given if value is not None}
    ((status, page),) = _look(platform, key, "/models/fraud/try", form=form)
    assert status == 200, page
    assert "Probability" in page, "the form has reached the endpoint with its key"


def _look(platform: Platform, key: str, *paths: str, form: Mapping[str, str] | None = None) -> list[tuple[int, str]]:
    """Status and text of pages; with `form` it is sent there."""
    sent = urllib.parse.urlencode(form) if form else ""
    found: list[tuple[int, str]] = json.loads(platform.run_in("console", "python", "-c", _LOOK, key, sent, *paths))
    return [(status, text) for status, text in found]
