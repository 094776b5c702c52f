"""`helm test` of the platform: every shared part is reached and used once, as its clients do, from inside the cluster.

Reads the addresses from the environment; a part without an address is not installed and is left out.
"""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable

import edges

SECONDS = 30
PATIENCE = 120
MARK = uuid.uuid4().hex


def sql() -> None:
    """Each user logs in to its database, which speaks utf8mb4, and to no other."""
    import pymysql

    for user, database in json.loads(os.environ["SQL_USERS"]).items():
        password = os.environ[f"SQL_PASSWORD_{user.upper()}"]
        host, port = os.environ["SQL"].split(":")
        with pymysql.connect(host=host, port=int(port), user=user, password=password, database=database) as connection:
            cursor = connection.cursor()
            cursor.execute("select @@character_set_database")
            charset = cursor.fetchone()[0]
            assert charset == "utf8mb4", f"database {database} is {charset}; MLflow needs utf8mb4"
            cursor.execute("show databases")
            seen = {row[0] for row in cursor.fetchall()} - {"information_schema"}
            assert database in seen, f"{user} does not see {database}"


def s3() -> None:
    """Write, read and delete one object in the bucket."""
    import boto3
    from botocore.config import Config

    client = boto3.client("s3", config=Config(s3={"addressing_style": "path"}))
    place = {"Bucket": os.environ["BUCKET"], "Key": f"helm-test/{MARK}"}
    client.put_object(**place, Body=MARK.encode())
    assert client.get_object(**place)["Body"].read() == MARK.encode(), "read back something else"
    client.delete_object(**place)


def redis() -> None:
    """Write, read and delete one key."""
    import redis as library

    client = library.from_url(os.environ["REDIS"], password=os.environ["REDIS_PASSWORD"])
    client.set(f"helm-test:{MARK}", MARK, ex=60)
    assert client.get(f"helm-test:{MARK}") == MARK.encode(), "read back something else"
    client.delete(f"helm-test:{MARK}")


def mlflow() -> None:
    """A run with a parameter that is not ASCII, and an artifact through the server."""
    address = os.environ["MLFLOW"]
    made = _post(f"{address}/api/2.0/mlflow/experiments/create", {"name": f"helm-test-{MARK}"})
    experiment = made["experiment_id"]
    run = _post(f"{address}/api/2.0/mlflow/runs/create", {"experiment_id": experiment})["run"]["info"]["run_id"]
    _post(f"{address}/api/2.0/mlflow/runs/log-parameter", {"run_id": run, "key": "text", "value": "\u6d4b\u8bd5"})
    path = f"{address}/api/2.0/mlflow-artifacts/artifacts/helm-test/{MARK}.txt"
    _call(path, MARK.encode(), method="PUT")
    assert _call(path) == MARK.encode(), "read back something else"
    _call(path, method="DELETE")
    _post(f"{address}/api/2.0/mlflow/experiments/delete", {"experiment_id": experiment})


def prometheus() -> None:
    """It evaluates our rules, and every target that it found answers."""
    address = os.environ["PROMETHEUS"]
    groups = json.loads(_call(f"{address}/api/v1/rules"))["data"]["groups"]
    assert {group["name"] for group in groups} >= {"fairlead-models", "fairlead-platform"}, "our rules are not loaded"
    until = time.monotonic() + PATIENCE
    while wrong := _unread(json.loads(_call(f"{address}/api/v1/targets?state=active"))["data"]["activeTargets"]):
        assert time.monotonic() < until, wrong
        time.sleep(2)


def _unread(targets: list[dict[str, str]]) -> str:
    """What Prometheus does not read yet; a part that has just started is not read at once."""
    down = [f"{target['scrapeUrl']}: {target['lastError']}" for target in targets if target["health"] == "down"]
    if down:
        return (
            f"targets are down: {down}. Fix: see that the pod is Ready, and that its network policy lets Prometheus in"
        )
    read = {target["labels"].get("component") for target in targets if target["health"] == "up"}
    missing = {name for name in os.environ.get("TARGETS", "").split(",") if name} - read
    return f"metrics are not read of {sorted(missing)}" if missing else ""


def workflows() -> None:
    """The platform's workflows are uploaded, so that the page of Kubeflow and kfp.Client can start them."""
    until = time.monotonic() + PATIENCE
    while not _uploaded():
        assert time.monotonic() < until, (
            "none is uploaded. Fix: read what the Job says: kubectl logs -l app.kubernetes.io/component=publish, then "
            "upgrade the release to run it again, or upload by fairlead pipelines publish --profile cluster"
        )
        time.sleep(2)


def _uploaded() -> list[str]:
    """Names of our workflows that Kubeflow Pipelines has."""
    found = json.loads(_call(f"{os.environ['WORKFLOWS']}/apis/v2beta1/pipelines?page_size=200")).get("pipelines") or []
    return [each["display_name"] for each in found if each["display_name"].startswith("fairlead-")]


def _post(url: str, body: dict[str, str]) -> dict[str, dict[str, dict[str, str]]]:
    return json.loads(_call(url, json.dumps(body).encode(), {"content-type": "application/json"}, "POST"))


def _call(url: str, body: bytes | None = None, headers: dict[str, str] | None = None, method: str = "GET") -> bytes:
    request = urllib.request.Request(url, data=body, headers=headers or {}, method=method)
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        return answer.read()


CHECKS: dict[str, Callable[[], None]] = {
    "SQL": sql, "S3": s3, "REDIS": redis, "MLFLOW": mlflow, "PROMETHEUS": prometheus, "WORKFLOWS": workflows
}  # fmt: skip


def main() -> int:
    """Try every connection, run every check and report each in one line; 1 when one failed."""
    failed = edges.run()
    for name, check in CHECKS.items():
        if not os.environ.get(name):
            continue
        began = time.monotonic()
        try:
            check()
        except Exception as err:  # noqa: BLE001 - each library has its own errors, and every check shall be reported
            failed += 1
            sys.stdout.write(f"{name}: FAILED, {type(err).__name__}: {err}\n")
        else:
            sys.stdout.write(f"{name}: ok in {time.monotonic() - began:.1f} s\n")
    return min(failed, 1)


if __name__ == "__main__":
    raise SystemExit(main())
