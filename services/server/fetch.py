"""Brings a bundle to a folder and proves it, before a server starts.

``python -m services.server.fetch --source s3://models/fraud/1f2e --digest SHA256 --to /bundles/1f2e [--wait SECONDS]``
runs in a pod's init container. A folder that already holds the proven bundle is left as it is, so a volume that pods
share is filled once. Exit status 1 with one JSON line that says what is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from contracts import storage
from contracts.bundle import DOCUMENT, Bundle, read_bundle
from contracts.errors import PlatformError
from services.logs import configure_logging, log_event

POLL_SECONDS = 2.0


def fetch(source: str, to: Path, *, digest: str = "", wait: float = 0.0) -> Bundle:
    """The verified bundle of `source`, in folder `to`.

    Args:
        digest: sha256 of its ``bundle.json``; empty accepts any bundle that is whole, for demonstrations only.
        wait: seconds to wait for a bundle that is not published yet.

    Raises:
        PlatformError: ``code="bad_bundle"``, ``"not_found"``, or the storage refuses or does not answer.
    """
    to.parent.mkdir(parents=True, exist_ok=True)
    with _alone(to):
        if digest and (known := _proven(to, digest)) is not None:
            return known
        _wait_for(storage.join(source, DOCUMENT), wait)
        staging = to.parent / f".fetching-{to.name}"
        try:
            bundle = read_bundle(storage.download(source, staging, last=DOCUMENT))
            if digest and bundle.digest != digest:
                raise _other(source, bundle.digest, digest)
            shutil.rmtree(to, ignore_errors=True)
            os.replace(staging, to)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return Bundle(to, bundle.document, bundle.digest)


def _proven(folder: Path, digest: str) -> Bundle | None:
    """The bundle in `folder` when it is the one asked for and every byte is right."""
    try:
        bundle = read_bundle(folder)
    except PlatformError:
        return None
    return bundle if bundle.digest == digest else None


def _wait_for(document: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    told = False
    while not storage.exists(document):
        if time.monotonic() >= deadline:
            raise PlatformError(
                f"no bundle at {document.removesuffix('/' + DOCUMENT)}",
                detail=f"{DOCUMENT} is not there{f' after {seconds:g} s' if seconds else ''}",
                fix="publish the model (fairlead run), or correct the source",
                code="not_found",
            )
        if not told:
            log_event("waiting", source=document, seconds=seconds)
            told = True
        time.sleep(min(POLL_SECONDS, max(0.0, deadline - time.monotonic())))


@contextlib.contextmanager
def _alone(to: Path) -> Iterator[None]:
    """Only one pod fills a folder of a volume that pods share; the lock ends with its holder."""
    with (to.parent / f".lock-{to.name}").open("a") as handle:
        with contextlib.suppress(OSError):  # a file system without locks: the last one wins, whole either way
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _other(source: str, got: str, wanted: str) -> PlatformError:
    return PlatformError(
        f"bundle refused: {source}",
        detail=f"it has digest {got}, {wanted} was asked for",
        fix="deploy the version again; never edit a bundle",
        code="bad_bundle",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch once; returns the exit status."""
    import logging

    parser = argparse.ArgumentParser(prog="services.server.fetch", description=__doc__)
    parser.add_argument("--source", required=True, help="folder or s3://bucket/prefix of the bundle")
    parser.add_argument("--digest", default="", help="sha256 of its bundle.json")
    parser.add_argument("--to", required=True, type=Path, help="folder that it is brought to")
    parser.add_argument("--wait", type=float, default=0.0, help="seconds to wait until it is published")
    options = parser.parse_args(arguments)
    configure_logging()
    start = time.perf_counter()
    try:
        bundle = fetch(options.source, options.to, digest=options.digest, wait=options.wait)
    except PlatformError as err:
        log_event("fetch_failed", logging.ERROR, **err.as_dict())
        return 1
    seconds = round(time.perf_counter() - start, 3)
    log_event("fetched", model=bundle.document.name, digest=bundle.digest, folder=str(bundle.path), seconds=seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
