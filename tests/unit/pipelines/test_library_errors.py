"""Exceptions of libraries reach people as named errors."""

from __future__ import annotations

import gzip
import io
import sqlite3
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.io.events import from_os_error, unexpected


def _mlflow() -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

    raise MlflowException("may not write", error_code=PERMISSION_DENIED)


def _lightgbm() -> None:
    import lightgbm

    data = lightgbm.Dataset(np.zeros((9, 1)), np.zeros(9), feature_name=["a,b"])
    lightgbm.train({"verbosity": -1}, data, num_boost_round=1)


def _duckdb() -> None:
    import duckdb

    duckdb.sql("SELECT CAST('x' AS INTEGER)").fetchall()


def _duckdb_full() -> None:
    import duckdb

    full: dict[str, str | bool | int | float | list[str]] = {"memory_limit": "10MB", "temp_directory": "", "threads": 1}
    with duckdb.connect(config=full) as connection:
        connection.execute("CREATE TABLE t AS SELECT range AS x, hash(range) AS y FROM range(3000000)")


def _arrow() -> None:
    import pyarrow as pa

    pa.array(["x"]).cast(pa.int64())


def _onnx() -> None:
    import onnxruntime

    onnxruntime.InferenceSession(b"no model")


def _redis_gone() -> None:
    import redis

    redis.Redis(port=1, socket_connect_timeout=1).ping()


def _redis_says(text: str) -> Callable[[], None]:
    def fail() -> None:
        from redis.exceptions import ResponseError

        raise ResponseError(text)

    return fail


def _no_login() -> None:
    from botocore.exceptions import NoCredentialsError

    raise NoCredentialsError


def _s3_says(code: str) -> Callable[[], None]:
    def fail() -> None:
        from botocore.exceptions import ClientError

        raise ClientError({"Error": {"Code": code, "Message": ""}}, "PutObject")

    return fail


def _locked() -> None:
    raise sqlite3.OperationalError("database is locked")


def _memory() -> None:
    raise MemoryError


def _refused() -> None:
    import urllib.request

    urllib.request.urlopen("http://127.0.0.1:1/", timeout=1)


def _requests() -> None:
    import requests

    requests.get("http://127.0.0.1:1/", timeout=1)


def _mlflow_away() -> None:
    from mlflow.utils.rest_utils import MlflowHostCreds, http_request

    http_request(MlflowHostCreds("http://127.0.0.1:1"), "/x", "GET", max_retries=0, timeout=1)


def _mlflow_busy() -> None:
    from mlflow.exceptions import MlflowException

    raise MlflowException("API request to endpoint /x failed with error code 503 != 200. Response body: ''")


def _mysql_away() -> None:
    from sqlalchemy.exc import OperationalError

    raise OperationalError("SELECT 1", {}, Exception("(2003, \"Can't connect to MySQL server on 'db'\")"))


def _s3_away() -> None:
    import boto3
    from botocore.config import Config

    given = Config(retries={"max_attempts": 0}, connect_timeout=1)
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "x"}
    boto3.client("s3", endpoint_url="http://127.0.0.1:1", config=given, **keys).list_buckets()


def _arrow_s3_away() -> None:
    from pyarrow.fs import S3FileSystem

    keys = {"access_key": "a", "secret_key": "b", "connect_timeout": 1.0, "request_timeout": 1.0}
    S3FileSystem(endpoint_override="http://127.0.0.1:1", **keys).get_file_info("bucket/key")


def _reset() -> None:
    raise ConnectionResetError(104, "Connection reset by peer")


CASES: list[tuple[Callable[[], Any], str]] = [
    (_mlflow, "no_access"),
    (_lightgbm, "training_refused"),
    (lambda: zlib.decompress(b"plain"), "bad_source"),
    (lambda: gzip.decompress(gzip.compress(b"whole" * 99)[:-9]), "bad_source"),
    (_duckdb, "bad_data"),
    (_duckdb_full, "out_of_memory"),
    (_arrow, "bad_data"),
    (_onnx, "bad_model"),
    (_locked, "database_busy"),
    (_redis_gone, "unreachable"),
    (_redis_says("READONLY You can't write against a read only replica."), "read_only_store"),
    (_redis_says("OOM command not allowed when used memory > 'maxmemory'."), "store_full"),
    (_redis_says("NOPERM this user has no permissions"), "no_access"),
    (_no_login, "no_access"),
    (_s3_says("AccessDenied"), "no_access"),
    (_s3_says("NoSuchBucket"), "not_found"),
    (_memory, "out_of_memory"),
    (_refused, "unreachable"),
    (_requests, "unreachable"),
    (_reset, "unreachable"),
    (_mlflow_away, "no_tracking"),
    (_mlflow_busy, "no_tracking"),
    (_mysql_away, "database_unreachable"),
    (_s3_away, "storage_unreachable"),
    (_s3_says("SlowDown"), "storage_unreachable"),
    (_s3_says("InvalidBucketName"), "storage_failed"),
    (_arrow_s3_away, "storage_unreachable"),
]


@pytest.mark.parametrize(("fail", "code"), CASES)
def test_an_exception_of_a_library_is_named_with_its_cause_and_a_cure(fail: Callable[[], Any], code: str) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011  the kind is what the library gives
        fail()
    error = unexpected(caught.value, "train")
    assert error.code == code
    assert error.headline.startswith("train: ")
    assert type(caught.value).__name__ in error.detail
    assert str(caught.value)[:60] in error.detail
    assert error.fix
    assert "not an expected failure" not in error.fix


def test_files_that_are_not_sqlite_or_gzip_are_named(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    file.write_bytes(b"not a database, but long enough to look like one" * 99)
    with pytest.raises(sqlite3.DatabaseError) as caught:
        sqlite3.connect(file).execute("SELECT * FROM x")
    assert unexpected(caught.value, "register").code == "damaged_database"
    with pytest.raises(gzip.BadGzipFile) as broken:
        gzip.GzipFile(fileobj=io.BytesIO(file.read_bytes())).read()
    assert from_os_error(broken.value, "ingest").code == "bad_source"


def test_a_defect_of_ours_stays_a_defect_with_its_place() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        _ = 1 / 0
    error = unexpected(caught.value, "train")
    assert error.code == "unexpected"
    assert "test_library_errors.py" in error.detail
