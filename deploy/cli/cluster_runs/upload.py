"""Rows of this machine for a run on a cluster: copied to the storage once, in pieces, and shown when they are large."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from contracts import storage

LARGE = 32 * 2**20  # bytes, from which on a person is shown how far it is


def upload_source(source: str, data: str) -> str:
    """Where pods find the rows: a local file or folder is copied to S3, below the hash of its content."""
    if not source or "://" in source:
        return source
    path = Path(source).expanduser()
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(file.name.encode() + hashlib.file_digest(stream, "sha256").digest())
    target = storage.join(data, ".uploads", digest.hexdigest()[:16])
    named = {storage.join(target, _name(path, file)): file for file in files}
    missing = {address: file for address, file in named.items() if not storage.exists(address)}
    with _shown(sum(file.stat().st_size for file in missing.values()), target) as sent:
        for address, file in missing.items():
            storage.upload_file(file, address, sent)
    return storage.join(target, path.name) if path.is_file() else target


def _name(path: Path, file: Path) -> str:
    return file.name if path.is_file() else file.relative_to(path).as_posix()


@contextmanager
def _shown(size: int, target: str) -> Iterator[Callable[[int], None]]:
    """What is told the bytes that have been sent: a bar on stderr, a line where that is no terminal."""
    if size < LARGE:
        yield lambda _: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from deploy.cli.terminal.output import console

    out = console(stderr=True)
    if not out.is_terminal:
        out.print(f"Copying {size / 2**20:.0f} MiB to {target}", markup=False, soft_wrap=True)
    columns = (TextColumn("Copying"), BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=out, transient=True, disable=not out.is_terminal) as bar:
        task = bar.add_task("", total=size)
        yield lambda count: bar.advance(task, count)
