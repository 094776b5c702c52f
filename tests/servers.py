"""Real servers for integration tests: an S3 server over a folder, MLflow with its artifacts in it, and MariaDB."""

from __future__ import annotations

import lzma
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from contracts.ports import free_port
from deploy.cli.machine.subprocesses import stop_group

KEY, SECRET = "access-key", "secret-key-of-tests"


@contextmanager
def s3_server(folder: Path, *buckets: str) -> Iterator[dict[str, str]]:
    """versitygw over `folder`; yields the AWS_* variables of its clients. Skips when there is no binary."""
    with started([str(versitygw(folder)), "posix", str(_made(folder / "s3", *buckets))], folder / "s3.log") as url:
        yield {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }


def versitygw(folder: Path) -> Path:
    """The program: on PATH, or unpacked from the test cluster's folder."""
    if found := shutil.which("versitygw"):
        return Path(found)
    cluster = os.environ.get("FAIRLEAD_TEST_CLUSTER")
    if not cluster:
        pytest.skip("no S3 server: put versitygw on PATH, or set FAIRLEAD_TEST_CLUSTER")
    program = folder / "versitygw"
    program.write_bytes(lzma.decompress((Path(cluster) / "bin" / "versitygw.xz").read_bytes()))
    program.chmod(0o755)
    return program


@contextmanager
def started(command: list[str], log: Path) -> Iterator[str]:
    """versitygw on a free port."""
    port = free_port()
    environment = os.environ | {"ROOT_ACCESS_KEY": KEY, "ROOT_SECRET_KEY": SECRET, "VGW_PORT": f"127.0.0.1:{port}"}
    with running(command, environment, log):
        wait_for(f"http://127.0.0.1:{port}/", log)
        yield f"http://127.0.0.1:{port}"


@contextmanager
def mlflow_server(folder: Path, storage: Mapping[str, str], bucket: str) -> Iterator[str]:
    """``mlflow server`` with proxied artifacts in `bucket`; yields its address."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'server.db'}", "--serve-artifacts"]
    command += ["--artifacts-destination", f"s3://{bucket}/mlflow"]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    quiet["MLFLOW_S3_ENDPOINT_URL"] = storage["AWS_ENDPOINT_URL"]
    with running(command, {**os.environ, **storage, **quiet}, folder / "mlflow.log"):
        wait_for(f"http://127.0.0.1:{port}/health", folder / "mlflow.log")
        yield f"http://127.0.0.1:{port}"


@contextmanager
def running(command: list[str], environment: Mapping[str, str], log: Path) -> Iterator[int]:
    with log.open("wb") as stream:
        child = subprocess.Popen(command, env=dict(environment), stdout=stream, stderr=stream, start_new_session=True)
    try:
        yield child.pid
    finally:
        stop_group(child)


def wait_for(url: str, log: Path, patience: float = 180.0) -> None:
    """Return when something answers at `url`, whatever it says."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"no answer from {url}: {log.read_text(errors='replace')[-2000:]}")


def _made(folder: Path, *buckets: str) -> Path:
    for bucket in buckets:
        (folder / bucket).mkdir(parents=True)
    return folder


class MariaDB:
    """A server with the database `name` and its user ``s``, password ``pw``; `stop` and `started` keep its port."""

    def __init__(self, folder: Path, name: str = "search") -> None:
        if not shutil.which("mariadbd") or os.geteuid() != 0:
            pytest.skip("needs mariadbd (apt-get install mariadb-server) and root, to run it as another user")
        self.folder, self.name, self.port = folder, name, free_port()
        install = ["mariadb-install-db", "--no-defaults", f"--datadir={folder}"]
        subprocess.run([*install, "--auth-root-authentication-method=normal"], check=True, capture_output=True)
        self.process = self.started()
        user = "s@'127.0.0.1'"
        made = f"CREATE DATABASE {name}; CREATE USER {user} IDENTIFIED BY 'pw'; GRANT ALL ON {name}.* TO {user}"
        subprocess.run(["mariadb", "--no-defaults", f"--socket={folder}/s", "-uroot", "-e", made], check=True)

    def started(self) -> subprocess.Popen[bytes]:
        """Start it, and wait until it answers."""
        command = ["mariadbd", "--no-defaults", "--user=root", f"--datadir={self.folder}", f"--socket={self.folder}/s"]
        options = [f"--port={self.port}", "--bind-address=127.0.0.1", "--skip-name-resolve"]
        self.process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self.process
            time.sleep(0.1)
        raise AssertionError("MariaDB does not start")

    def stop(self) -> None:
        """End it, as an upgrade does."""
        self.process.terminate()
        self.process.wait()

    @property
    def address(self) -> str:
        """Without the password."""
        return f"mysql+pymysql://s@127.0.0.1:{self.port}/{self.name}"
