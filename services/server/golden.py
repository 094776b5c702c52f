"""Asks a running service for a bundle's golden examples: what ``helm test`` does.

``python -m services.server.golden --bundle /bundles/1f2e --url http://fraud`` posts them as any client would, and then
looks whether the metrics are those of this bundle. An API key is taken from FAIRLEAD_API_KEY. Exit status 1 names the
first example that was answered differently.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import sys
from collections.abc import Sequence
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from contracts.bundle import Bundle, Golden, read_bundle
from contracts.errors import PlatformError
from contracts.metric_names import MODEL_INFO, PREDICTIONS
from services.logs import configure_logging, log_event
from services.problems import get_serving

TIMEOUT_SECONDS = 30
ROWS = 50


def check(bundle: Bundle, url: str, key: str = "") -> int:
    """Ask the service at `url` for every golden example of `bundle`; returns how many there are.

    Raises:
        PlatformError: ``code="golden_mismatch"``, ``"bad_metrics"``, or the service does not answer.
    """
    signature = bundle.document.signature
    names, serving = [item.name for item in signature.inputs], get_serving(signature.problem)
    examples = list(bundle.golden())
    for start in range(0, len(examples), ROWS):
        part = examples[start : start + ROWS]
        instances = [{name: one.inputs.get(name) for name in names} for one in part]
        answer = json.loads(_ask(f"{url}/predict", key, {"instances": instances}))
        answers = serving.answers(signature.output, answer["predictions"])
        for row, one in enumerate(part):
            _compare(bundle, start + row, one, answers, row)
    _check_metrics(bundle, _ask(f"{url}/metrics", key).decode())
    return len(examples)


def _compare(bundle: Bundle, index: int, example: Golden, answers: Any, row: int) -> None:
    signature = bundle.document.signature
    differs = signature.problem.differs(signature.output, example.expected, answers, row, example.tolerance)
    if differs:
        raise PlatformError(
            f"{bundle.document.name} answers golden example {index} differently",
            detail=differs,
            fix="helm rollback, then publish the model again",
            code="golden_mismatch",
        )


def _check_metrics(bundle: Bundle, text: str) -> None:
    served = re.findall(rf'^{MODEL_INFO}\{{[^}}]*digest="([0-9a-f]+)"', text, re.MULTILINE)
    if served != [bundle.digest[:12]] or f"\n{PREDICTIONS}{{" not in text:
        raise PlatformError(
            "the metrics are not those of this bundle",
            detail=f"{MODEL_INFO} has digest {', '.join(served) or 'none'}, the bundle {bundle.digest[:12]}",
            fix="wait until the rollout has ended, and look for a second release that selects the same pods",
            code="bad_metrics",
        )


def _ask(url: str, key: str, document: Any = None) -> bytes:
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    request = Request(url, None if document is None else json.dumps(document).encode(), headers)
    try:
        with urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            body: bytes = answer.read()
    except HTTPError as err:
        raise _unanswered(url, f"status {err.code}: {err.read()[:500].decode(errors='replace')}") from None
    except (URLError, TimeoutError, ConnectionError) as err:
        raise _unanswered(url, str(err)) from err
    return body


def _unanswered(url: str, detail: str) -> PlatformError:
    fix = "look at the pods, and at who the NetworkPolicy lets in"
    return PlatformError(f"no answer from {url}", detail=detail, fix=fix, code="no_answer")


def main(arguments: Sequence[str] | None = None) -> int:
    """Check once; returns the exit status."""
    parser = argparse.ArgumentParser(prog="services.server.golden", description=__doc__)
    parser.add_argument("--bundle", required=True, help="folder of the bundle")
    parser.add_argument("--url", required=True, help="address of the service")
    options = parser.parse_args(arguments)
    configure_logging()
    try:
        count = check(read_bundle(options.bundle), options.url.rstrip("/"), os.environ.get("FAIRLEAD_API_KEY", ""))
    except PlatformError as err:
        log_event("golden_failed", logging.ERROR, **err.as_dict())
        return 1
    log_event("golden_passed", url=options.url, examples=count)
    return 0


if __name__ == "__main__":
    sys.exit(main())
