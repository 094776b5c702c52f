"""Object storage: the same few calls for a local folder and for ``s3://bucket/prefix``.

S3 is configured by its standard variables: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, and AWS_ENDPOINT_URL
for a server of one's own, which is then addressed by path. boto3 is imported on first use.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from contracts.errors import PlatformError

_SCHEME = "s3://"
_PART = 1 << 18  # bytes that are fetched at least
_AT_ONCE = 8  # objects that are fetched side by side


def is_remote(uri: str) -> bool:
    """Whether `uri` is in S3; anything without a scheme is a local path.

    Raises:
        PlatformError: a scheme that nothing here can read.
    """
    if uri.startswith(_SCHEME):
        return True
    if "://" in uri:
        raise PlatformError(
            f"not a storage address: {uri}",
            detail="accepted: a folder, or s3://bucket/prefix",
            fix="correct the address",
            code="bad_address",
        )
    return False


def join(uri: str, *parts: str) -> str:
    """`uri` with `parts` below it."""
    return "/".join([uri.rstrip("/") if uri != "/" else "", *(part.strip("/") for part in parts)])


def ready(uri: str) -> None:
    """Load in this thread what calls for `uri` need: two threads that import the same library may both fail."""
    if is_remote(uri):
        _client()


def exists(uri: str) -> bool:
    """Whether there is an object or file, or anything below that name."""
    if not is_remote(uri):
        return Path(uri).exists()
    bucket, key = _split(uri)
    found = _call(uri, "list_objects_v2", Bucket=bucket, Prefix=key, MaxKeys=1).get("Contents", [])
    if found and (not key or found[0]["Key"] == key or found[0]["Key"].startswith(key + "/")):
        return True
    # Another name may sort first, such as "model-2" before "model/".
    return bool(key and _call(uri, "list_objects_v2", Bucket=bucket, Prefix=key + "/", MaxKeys=1).get("Contents"))


def read_bytes(uri: str) -> bytes:
    """The content of one object or file.

    Raises:
        PlatformError: ``code="not_found"``, or the storage refuses or does not answer.
    """
    if is_remote(uri):
        bucket, key = _split(uri)
        with _explained(uri):
            body: bytes = _client().get_object(Bucket=bucket, Key=key)["Body"].read()
        return body
    try:
        return Path(uri).read_bytes()
    except FileNotFoundError:
        raise _not_found(uri) from None


def write_bytes(uri: str, data: bytes) -> None:
    """Write one object or file; it appears whole or not at all."""
    if is_remote(uri):
        bucket, key = _split(uri)
        _call(uri, "put_object", Bucket=bucket, Key=key, Body=data)
        return
    with _beside(Path(uri)) as written:
        written.write_bytes(data)
        os.replace(written, uri)


@contextlib.contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """An empty file beside `target`, to be filled and moved there; if it is not, it is gone in the end."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".writing-", delete=False) as staging:
        written = Path(staging.name)
    try:
        written.chmod(0o644)
        yield written
    finally:
        written.unlink(missing_ok=True)


def write_new(uri: str, data: bytes) -> bool:
    """Write one object or file where there is none; False, and nothing is written, where there is one.

    Of several that write at once one succeeds; a server of S3 must know ``If-None-Match``.
    """
    if is_remote(uri):
        bucket, key = _split(uri)
        with _explained(uri):
            try:
                _client().put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
            except _storage_errors() as err:
                reason = str(getattr(err, "response", {}).get("Error", {}).get("Code", ""))
                if reason in ("PreconditionFailed", "ConditionalRequestConflict", "412", "409"):
                    return False
                raise
        return True
    with _beside(Path(uri)) as written:
        written.write_bytes(data)
        try:
            os.link(written, uri)
        except FileExistsError:
            return False
    return True


def remove(uri: str) -> None:
    """Take one object or file away; nothing happens when it is not there."""
    if is_remote(uri):
        bucket, key = _split(uri)
        _call(uri, "delete_object", Bucket=bucket, Key=key)
    else:
        Path(uri).unlink(missing_ok=True)


def upload(folder: Path, uri: str, *, last: str) -> None:
    """Copy all files of `folder` below `uri`; the file named `last` goes at the end, its presence means complete."""
    if not (folder / last).is_file():
        raise _not_found(str(folder / last))
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    for name in [*(name for name in names if name != last), last]:
        upload_file(folder / name, join(uri, name))


def upload_file(source: Path, uri: str, sent: Callable[[int], object] | None = None) -> None:
    """Copy one file, in pieces and whole or not at all; `sent` is told of each number of bytes, also by other threads.

    Raises:
        PlatformError: the storage refuses or does not answer.
    """
    if is_remote(uri):
        bucket, key = _split(uri)
        with _explained(uri):
            _client().upload_file(str(source), bucket, key, Callback=sent)
        return
    with _beside(Path(uri)) as written:
        shutil.copyfile(source, written)
        os.replace(written, uri)
    if sent is not None:
        sent(Path(uri).stat().st_size)


def download(uri: str, folder: Path, *, last: str) -> Path:
    """Copy everything below `uri` to `folder`, which appears whole or not at all and replaces what was there.

    Raises:
        PlatformError: ``code="not_found"`` when `last` is missing, that is, when the upload was never completed.
    """
    if not exists(join(uri, last)):
        raise _not_found(join(uri, last))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=folder.parent) as temporary:
        staging = Path(temporary) / "new"
        if is_remote(uri):
            _fetch(uri, staging)
        else:
            shutil.copytree(uri, staging, copy_function=shutil.copyfile)
        if folder.exists():
            os.replace(folder, Path(temporary) / "old")
        os.replace(staging, folder)
    return folder


def copy_here(uri: str, folder: Path) -> Path:
    """Copy one object, or all that is below a prefix, into `folder`; returns the file or folder to read.

    Raises:
        PlatformError: ``code="not_found"`` when there is nothing at `uri`; another names the first object that failed.
    """
    return folder if _fetch(uri, folder) else _fetch_one(uri, folder / uri.rstrip("/").rpartition("/")[2])


def _fetch(uri: str, folder: Path) -> bool:
    """Copy all below `uri` into `folder`, some side by side, for each waits for the network; whether there is any."""
    names = list(_all_names(uri))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        # The first that fails ends it: those that have not begun are left out.
        list(pool.map(lambda name: _fetch_one(join(uri, name), folder / name), names))
    return bool(names)


def _fetch_one(uri: str, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    bucket, key = _split(uri)
    with _explained(uri):
        _client().download_file(bucket, key, str(target))
    return target


def list_names(uri: str) -> list[str]:
    """Names directly below `uri`, sorted; empty when there is nothing."""
    if not is_remote(uri):
        path = Path(uri)
        return sorted(p.name for p in path.iterdir()) if path.is_dir() else []
    bucket, key = _split(uri)
    prefix = f"{key}/" if key else ""
    names: set[str] = set()
    for page in _pages(uri, Bucket=bucket, Prefix=prefix, Delimiter="/"):
        names.update(item["Key"].removeprefix(prefix) for item in page.get("Contents", []))
        names.update(item["Prefix"].removeprefix(prefix).rstrip("/") for item in page.get("CommonPrefixes", []))
    return sorted(names - {""})


@dataclass(frozen=True, kw_only=True, order=True)
class Listed:
    """One object or file: its address, its bytes, and a mark that is another one when it was replaced."""

    uri: str
    size: int
    mark: str


def listing(uri: str) -> list[Listed]:
    """All objects or files below `uri`, or that one itself, sorted: one listing.

    Raises:
        PlatformError: the storage refuses or does not answer.
    """
    if not is_remote(uri):
        root = Path(uri)
        found = ((p, p.stat()) for p in (root, *root.rglob("*")) if p.is_file())
        return sorted(Listed(uri=str(p), size=stat.st_size, mark=str(stat.st_mtime_ns)) for p, stat in found)
    bucket, key = _split(uri)
    items = (item for page in _pages(uri, Bucket=bucket, Prefix=key) for item in page.get("Contents", []))
    return sorted(
        Listed(uri=f"{_SCHEME}{bucket}/{item['Key']}", size=int(item["Size"]), mark=str(item.get("ETag", "")))
        for item in items
        if not key or item["Key"] == key or item["Key"].startswith(f"{key}/")
    )


def open_parts(uri: str) -> BinaryIO:
    """One object or file to be read in parts: of an object only what is read is fetched.

    Raises:
        PlatformError: ``code="not_found"``, or the storage refuses or does not answer; as `read` does.
    """
    if is_remote(uri):
        return io.BufferedReader(_Parts(uri), _PART)
    try:
        return Path(uri).open("rb")
    except FileNotFoundError:
        raise _not_found(uri) from None


class _Parts(io.RawIOBase):
    """An object of S3, of which each read is a request for a range of bytes."""

    def __init__(self, uri: str) -> None:
        self._uri, self._at = uri, 0
        self._bucket, self._key = _split(uri)
        self._size = int(_call(uri, "head_object", Bucket=self._bucket, Key=self._key)["ContentLength"])

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        end = min(self._at + len(buffer), self._size)
        if end <= self._at:
            return 0
        with _explained(self._uri):
            range_ = f"bytes={self._at}-{end - 1}"
            answer = _client().get_object(Bucket=self._bucket, Key=self._key, Range=range_)
            data: bytes = answer["Body"].read()
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _all_names(uri: str) -> Iterator[str]:
    bucket, key = _split(uri)
    prefix = f"{key}/" if key else ""
    for page in _pages(uri, Bucket=bucket, Prefix=prefix):
        for item in page.get("Contents", []):
            name = item["Key"].removeprefix(prefix)
            if not name or name.endswith("/"):  # what some tools write as a folder
                continue
            if name.startswith("/") or ".." in PurePosixPath(name).parts:
                raise PlatformError(
                    f"refused a name that leaves its folder: {name}", fix=f"remove it from {uri}", code="bad_address"
                )
            yield name


def _split(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix(_SCHEME).partition("/")
    if not bucket:
        raise PlatformError(f"no bucket in {uri!r}", fix="write s3://bucket/prefix", code="bad_address")
    return bucket, key.rstrip("/")


def _client() -> Any:
    keys = (os.environ.get(name, "") for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
    return _client_for(os.environ.get("AWS_ENDPOINT_URL", ""), *keys)


@lru_cache(maxsize=4)
def _client_for(endpoint: str, _user: str, _password: str) -> Any:
    try:
        import boto3
        from botocore.config import Config
    except ImportError as err:
        raise PlatformError(
            "boto3 is not installed", fix="pip install 'fairlead[services]'", code="missing_package"
        ) from err
    config = Config(
        connect_timeout=5,
        read_timeout=60,
        max_pool_connections=4 * _AT_ONCE,  # large objects come in parts
        retries={"mode": "standard", "max_attempts": 4},
        # Servers other than AWS do not all know the newer trailing checksums; every byte is checked by sha256 anyway.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path"} if endpoint else {},
    )
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    return boto3.session.Session().client("s3", endpoint_url=endpoint or None, region_name=region, config=config)


def _call(uri: str, operation: str, **arguments: Any) -> Any:
    with _explained(uri):
        return getattr(_client(), operation)(**arguments)


def _pages(uri: str, **arguments: Any) -> Iterator[Any]:
    with _explained(uri):
        yield from _client().get_paginator("list_objects_v2").paginate(**arguments)


@contextlib.contextmanager
def _explained(uri: str) -> Iterator[None]:
    """Turns what S3 refuses into a PlatformError that names the address, the server and what to look at."""
    try:
        yield
    except _storage_errors() as err:
        response: dict[str, Any] = getattr(err, "response", {})
        reason = str(response.get("Error", {}).get("Code", ""))
        if reason in {"NoSuchKey", "NoSuchBucket", "404"}:
            raise _not_found(uri, reason) from err
        status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        busy = status == 429 or reason in {"RequestTimeout", "SlowDown", "Throttling", "ThrottlingException"}
        denied = (400 <= status < 500 and not busy) or type(err).__name__ == "NoCredentialsError"
        keys = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        raise PlatformError(
            f"the storage {'refused' if denied else 'did not serve'} {uri}",
            detail=f"{os.environ.get('AWS_ENDPOINT_URL') or 'AWS'}: {err}",
            fix=f"check {keys if denied else 'AWS_ENDPOINT_URL and the network, then ' + keys}",
            code="storage_denied" if denied else "storage_unreachable",
        ) from err


def _storage_errors() -> tuple[type[Exception], ...]:
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    return (BotoCoreError, ClientError, Boto3Error)


def _not_found(uri: str, reason: str = "") -> PlatformError:
    detail = "the bucket does not exist" if reason == "NoSuchBucket" else ""
    return PlatformError(f"not found: {uri}", detail=detail, fix="check the address", code="not_found")
