"""Keys of the embedded S3: the server of the chart, with the accounts and the policy that the chart makes."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from contracts import storage
from contracts.audit import AuditLog
from contracts.errors import PlatformError
from contracts.lease import Lease
from tests.helm.chart import Object, containers, environment, named, pods, render
from tests.servers import KEY, SECRET, started, versitygw

B = "s3://fairlead"
Use = Callable[[str], None]


def _decoded(made: list[Object], name: str) -> dict[str, str]:
    return {key: base64.b64decode(value).decode() for key, value in named(made, "Secret", name)["data"].items()}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, tuple[str, str]]]]:
    """Address of a server whose bucket has the policy, and the keys of each account."""
    folder = tmp_path_factory.mktemp("s3")
    made = render("platform")
    accounts, data = folder / "accounts", folder / "data"
    data.mkdir()
    accounts.mkdir()
    keys = {"root": (KEY, SECRET)}
    for who in ("models", "watchers"):
        secret = _decoded(made, f"fairlead-s3-{who}")
        keys[who] = (secret["access-key"], secret["secret-key"])
        if "users.json" in secret:
            (accounts / "users.json").write_text(secret["users.json"])
    command = [str(versitygw(folder)), "--iam-dir", str(accounts), "posix", str(data)]
    with started(command, folder / "log") as url:
        first = containers(dict(pods(made))["Deployment/fairlead-mlflow"])[0]
        own = {name: environment(first)[name] for name in ("BUCKET", "POLICY")}
        aws = {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
        program = [sys.executable, *first["command"][1:]]
        subprocess.run(program, env={**os.environ, **aws, **own, "AWS_REGION": "us-east-1"}, check=True)
        yield url, keys


@pytest.fixture
def use(server: tuple[str, dict[str, tuple[str, str]]], monkeypatch: pytest.MonkeyPatch) -> Use:
    """Go on with the key of an account."""
    url, keys = server

    def with_key(who: str) -> None:
        for name, value in zip(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), keys[who], strict=True):
            monkeypatch.setenv(name, value)

    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    with_key("root")
    for name in ("bundles/m/1/bundle.json", "demo/fraud/bundle.json", "data/rows.csv", "features/t/features.json"):
        storage.write_bytes(f"{B}/{name}", b"{}")
    return with_key


def _refused(call: Callable[..., Any], *arguments: Any) -> None:
    with pytest.raises(PlatformError) as caught:
        call(*arguments)
    assert caught.value.code != "not_found"


def test_a_model_reads_what_it_serves_and_writes_what_it_answered_and_no_more(use: Use, tmp_path: Path) -> None:
    use("models")
    assert storage.exists(f"{B}/predictions/m") is False
    storage.write_bytes(f"{B}/predictions/m/2026-01-01.a-1.jsonl", b"answer")
    assert storage.exists(f"{B}/predictions/m")
    for place in ("bundles/m/1", "demo/fraud"):
        assert (storage.download(f"{B}/{place}", tmp_path / place, last="bundle.json") / "bundle.json").exists()
    with pytest.raises(PlatformError) as missing:
        storage.read_bytes(f"{B}/bundles/m/2/bundle.json")
    assert missing.value.code == "not_found", "what is not published yet can be waited for"
    for read in ("data/rows.csv", "features/t/features.json", "predictions/m/2026-01-01.a-1.jsonl"):
        _refused(storage.read_bytes, f"{B}/{read}")
    for write in ("bundles/m/1/bundle.json", "bundles/.audit/000000000001.json", "data/rows.csv", "kfp/x"):
        _refused(storage.write_bytes, f"{B}/{write}", b"mine")
    _refused(storage.list_names, f"{B}/data")
    _refused(storage.remove, f"{B}/predictions/m/2026-01-01.a-1.jsonl")


def test_who_watches_keeps_the_log_and_the_audit_log_and_cannot_remove_from_it(use: Use, tmp_path: Path) -> None:
    use("watchers")
    for read in ("bundles/m/1/bundle.json", "data/rows.csv", "features/t/features.json"):
        assert storage.read_bytes(f"{B}/{read}") == b"{}"
    lease = Lease(f"{B}/bundles/.loop/lease", 60)
    assert lease.keep()
    lease.release()
    large = tmp_path / "day.parquet"
    large.write_bytes(os.urandom(20 << 20))  # in parts
    storage.upload_file(large, f"{B}/predictions/m/2026-01-01.parquet")
    storage.remove(f"{B}/predictions/m/2026-01-01.parquet")
    log = AuditLog(f"{B}/bundles/.audit")
    log.append(actor="controller", action="start_run", subject="m", reason="drift", evidence={})
    assert log.verify().intact
    names = storage.list_names(f"{B}/bundles/.audit")
    _refused(storage.remove, f"{B}/bundles/.audit/{names[0]}")
    for write in ("bundles/m/1/bundle.json", "data/rows.csv", "features/t/features.json", "mlflow/x"):
        _refused(storage.write_bytes, f"{B}/{write}", b"mine")
