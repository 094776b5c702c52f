"""S3 as a folder, for tests that look at what is in the store and not at how it is spoken to."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError, EndpointConnectionError


class FolderClient:
    """The calls of a client of S3 that `contracts.storage` makes; a bucket is a folder below `root`.

    Attributes:
        fails: whether the server does not answer.
        read: keys of the objects that were fetched, whole or in part.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.fails = root, False
        self.read: list[str] = []

    def get_object(self, **named: str) -> dict[str, Any]:
        data = self._file(named, "GetObject").read_bytes()
        self.read.append(named["Key"])
        if "Range" in named:
            first, last = map(int, named["Range"].removeprefix("bytes=").split("-"))
            data = data[first : last + 1]
        return {"Body": io.BytesIO(data)}

    def head_object(self, **named: str) -> dict[str, Any]:
        return {"ContentLength": self._file(named, "HeadObject").stat().st_size}

    def put_object(self, **named: Any) -> None:
        self._answer()
        target = self.root / named["Bucket"] / named["Key"]
        target.parent.mkdir(parents=True, exist_ok=True)
        part = self.root / f".{threading.get_ident()}"
        part.write_bytes(named["Body"])
        if named.get("IfNoneMatch") == "*":
            try:
                target.hardlink_to(part)
            except FileExistsError:
                raise ClientError({"Error": {"Code": "PreconditionFailed"}}, "PutObject") from None
            finally:
                part.unlink()
            return
        part.replace(target)  # an object appears whole

    def upload_file(self, source: str, bucket: str, key: str, **_: Any) -> None:
        self.put_object(Bucket=bucket, Key=key, Body=Path(source).read_bytes())

    def download_file(self, bucket: str, key: str, target: str) -> None:
        Path(target).write_bytes(self.get_object(Bucket=bucket, Key=key)["Body"].read())

    def delete_object(self, **named: str) -> None:
        self._answer()
        (self.root / named["Bucket"] / named["Key"]).unlink(missing_ok=True)

    def list_objects_v2(self, **named: Any) -> dict[str, Any]:
        return next(self.paginate(**named))

    def get_paginator(self, _: str) -> FolderClient:
        return self

    def paginate(self, **named: Any) -> Iterator[dict[str, Any]]:
        self._answer()
        folder, prefix, end = self.root / named["Bucket"], named.get("Prefix", ""), named.get("Delimiter", "")
        keys = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
        rest = {key: key.removeprefix(prefix) for key in keys if key.startswith(prefix)}
        deeper = {f"{prefix}{left.partition(end)[0]}/" for left in rest.values() if end and end in left}
        direct = [key for key, left in rest.items() if not end or end not in left]
        stats = {key: (folder / key).stat() for key in direct}
        found = [{"Key": key, "Size": one.st_size, "ETag": str(one.st_mtime_ns)} for key, one in stats.items()]
        yield {"Contents": found, "CommonPrefixes": [{"Prefix": p} for p in sorted(deeper)]}

    def _file(self, named: dict[str, str], operation: str) -> Path:
        self._answer()
        found = self.root / named["Bucket"] / named["Key"]
        if not found.is_file():
            raise ClientError({"Error": {"Code": "NoSuchKey"}}, operation)
        return found

    def _answer(self) -> None:
        if self.fails:
            raise EndpointConnectionError(endpoint_url="http://s3")
