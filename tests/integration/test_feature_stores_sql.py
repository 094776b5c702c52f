"""Feast's registry in a real MariaDB or PostgreSQL, with both of our stores; and sources in a real S3 server."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from contracts.errors import PlatformError
from contracts.ports import free_port
from tests import feature_stores as repos
from tests.servers import MariaDB, s3_server

pytestmark = pytest.mark.integration


def answers(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        assert process.poll() is None, "the server ended"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise AssertionError("the server does not answer")


@contextlib.contextmanager
def running(command: list[str], port: int, **options: Any) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    try:
        answers(port, process)
        yield
    finally:
        # PostgreSQL waits for its clients when it is terminated, and ends at once when it is interrupted.
        process.send_signal(signal.SIGINT if "postgres" in command[0] else signal.SIGTERM)
        process.wait(20)


@pytest.fixture
def mariadb(tmp_path: Path) -> Iterator[str]:
    server = MariaDB(tmp_path / "mariadb", "feast")
    yield server.address.replace("@", ":pw@")
    server.stop()


@pytest.fixture
def postgres() -> Iterator[str]:
    pytest.importorskip("psycopg", reason="needs psycopg (extra feature-store)")
    found = shutil.which("initdb") or max(glob.glob("/usr/lib/postgresql/*/bin/initdb"), default=None)  # as in Debian
    if found is None:
        pytest.skip("needs PostgreSQL (apt-get install postgresql)")
    # It refuses to run as root, and others may not look into root's folders of tests.
    owner: dict[str, Any] = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory() as folder:
        if owner:
            shutil.chown(folder, owner["user"], owner["group"])
        data, port = f"{folder}/data", free_port()
        options = ["-D", data, "-U", "f", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
        subprocess.run([found, *options], check=True, capture_output=True, cwd=folder, **owner)
        command = [str(Path(found).resolve().with_name("postgres")), "-D", data, "-p", str(port), "-h", "127.0.0.1"]
        with running([*command, "-c", "unix_socket_directories="], port, cwd=folder, **owner):
            wait_until_ready(port)
            yield f"postgresql://f@127.0.0.1:{port}/postgres"


def wait_until_ready(port: int) -> None:
    """It listens before it takes connections."""
    import psycopg

    for _ in range(100):
        with (
            contextlib.suppress(psycopg.OperationalError),
            psycopg.connect(host="127.0.0.1", port=port, user="f", dbname="postgres"),
        ):
            return
        time.sleep(0.1)
    raise AssertionError("PostgreSQL takes no connections")


@pytest.mark.parametrize("server", ["mariadb", "postgres"])
def test_the_registry_may_be_a_sql_server(server: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    url = request.getfixturevalue(server)
    registry = {"registry_type": "sql", "path": url, "cache_ttl_seconds": 0}
    repos.write_history(tmp_path, "v", [{"driver": "客", "event": repos.second(0), "f64": 1.5}])
    views = [repos.view_of("v", ["f64"], ttl=timedelta(days=1))]
    store = repos.make_store(tmp_path, views, registry=registry)
    repos.materialise(store, repos.second(10))
    again = repos.CheckedStore(config=store.config)
    (interval,) = again.get_feature_view("v").materialization_intervals
    assert interval[1] == repos.second(10)
    assert repos.reader(again).read({"driver": ["客"]}, repos.second(11)).columns["f64"].tolist() == [1.5]
    frame = repos.frame(["客"], [repos.second(1)])
    assert again.get_historical_features(features=["v:f64"], entity_df=frame).to_df()["f64"].tolist() == [1.5]


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that an S3 server gives as a bucket."""
    with s3_server(tmp_path, "data") as storage:
        for name, value in storage.items():
            monkeypatch.setenv(name, value)
        yield tmp_path / "s3" / "data"


@pytest.mark.parametrize("folder", [False, True])
def test_sources_may_be_in_s3(bucket: Path, tmp_path: Path, folder: bool) -> None:
    rows = [{"driver": "a", "event": repos.second(at), "f64": float(at)} for at in range(3)]
    if folder:
        (bucket / "v").mkdir()
        repos.write_history(bucket / "v", "0", rows[:2])
        repos.write_history(bucket / "v", "1", rows[2:])
    else:
        repos.write_history(bucket, "v", rows)
    view, _ = repos.view_of("v", ["f64"], path="s3://data/v" if folder else "s3://data/v.parquet")
    from feature_repo.stores.join import point_in_time_join
    from feature_repo.stores.plan import compile_view

    plan = {"timestamp": "event_timestamp", "views": [compile_view(view)]}
    frame = repos.frame(["a"] * 4, [repos.second(at) for at in (-1, 0, 1.5, 9)])
    assert point_in_time_join(plan, tmp_path, frame)["f64"].fillna(-1).tolist() == [-1, 0, 1, 2]
    assert repos.materialise_view(repos.engine(tmp_path), view, repos.second(-1), repos.second(5)) == 1


def test_pushed_rows_are_appended_to_a_folder_in_s3(bucket: Path, tmp_path: Path) -> None:
    from feast import PushSource
    from feast.data_source import PushMode

    (bucket / "v").mkdir()
    repos.write_history(bucket / "v", "0", [{"driver": "a", "event": repos.second(0), "f64": 0.0}])
    view, entities = repos.view_of("v", ["f64"], path="s3://data/v")
    push = PushSource(name="pushed", batch_source=view.batch_source)
    pushed = type(view)(name="v", entities=entities, ttl=None, source=push, schema=view.schema)
    store = repos.make_store(tmp_path, [(pushed, entities)])
    for at in (1, 2):
        frame = pd.DataFrame({"driver": ["a"], "event": [repos.second(at)], "f64": [float(at)]})
        store.push("pushed", frame, to=PushMode.ONLINE_AND_OFFLINE)
    asked = repos.frame(["a"] * 3, [repos.second(at) for at in (0, 1.5, 9)])
    joined = store.get_historical_features(features=["v:f64"], entity_df=asked).to_df()
    assert joined["f64"].tolist() == [0, 1, 2]
    assert len(list((bucket / "v").glob("pushed-*.parquet"))) == 2
    assert repos.reader(store).read({"driver": ["a"]}, repos.second(9)).columns["f64"].tolist() == [2.0]


def test_rows_are_not_pushed_to_one_object_in_s3(bucket: Path, tmp_path: Path) -> None:
    from feature_repo.stores.parquet_append import append_remote

    path = repos.write_history(bucket, "v", [{"driver": "a", "event": repos.second(0), "f64": 0.0}])
    before = path.read_bytes()
    with pytest.raises(PlatformError, match=r"cannot be appended to s3://data/v.parquet"):
        append_remote("s3://data/v.parquet", pq.read_table(path))
    assert path.read_bytes() == before
