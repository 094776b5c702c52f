"""An archive as a folder, for the time in which it is read; what would write elsewhere or without end is refused."""

from __future__ import annotations

import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from contracts.errors import PlatformError
from pipelines.data.formats import named

_FACTOR, _FREE = 50, 1 << 30  # times the size of the archive that its files may have together, and what any may have
_MEMBERS = 5_000_000
_BLOCK = 1 << 20


@contextmanager
def unpacked(path: Path, suffixes: Collection[str], most: int) -> Iterator[Path]:
    """A folder with the files of a zip or tar archive that have one of `suffixes`, in lower case; it goes afterwards.

    Of a file at most `most` + 1 bytes are unpacked, so that who reads it sees that it is too large.

    Raises:
        PlatformError: ``code="bad_source"``: it is damaged or locked, has a link, a device, a name that leads out of it
            or stands twice, or unpacks to more than 50 times its size.
    """
    with tempfile.TemporaryDirectory(prefix="fairlead-boxes-") as folder:
        root, left = Path(folder) / "files", max(_FREE, _FACTOR * path.stat().st_size)
        root.mkdir()
        seen: set[str] = set()
        with named(path):
            for name, wrong, opened in _zip(path) if path.name.lower().endswith(".zip") else _tar(path):
                parts = PurePosixPath(name).parts
                if wrong or ".." in parts or name.startswith("/") or "\0" in name or "\\" in name:
                    raise _refused(path, name, wrong or "has a name that leads out of the archive")
                if name in seen or len(seen) >= _MEMBERS:
                    raise _refused(path, name, "stands twice" if name in seen else f"is one of more than {_MEMBERS:,}")
                seen.add(name)
                if any(part.startswith((".", "__MACOSX")) for part in parts):
                    continue
                if PurePosixPath(name).suffix.lower() in suffixes:
                    left -= _write(opened, root / name, path, min(most, left) + 1)
                    if left < 0:
                        raise _refused(path, name, f"and those before unpack to more than {_FACTOR} times its size")
        yield root


_Member = tuple[str, str, Callable[[], IO[bytes] | None]]  # name, what is wrong with it, and its bytes


def _zip(path: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(path) as archive:
        for item in archive.infolist():
            kind = stat.S_IFMT(item.external_attr >> 16)
            odd = kind and not stat.S_ISREG(kind) and not stat.S_ISDIR(kind)
            if not item.is_dir() or odd:
                yield item.filename, "is a link or a device" if odd else "", lambda item=item: archive.open(item)  # type: ignore[misc]


def _tar(path: Path) -> Iterator[_Member]:
    with tarfile.open(path, "r|*") as archive:
        for item in archive:
            if not item.isdir():
                wrong = "" if item.isfile() else "is a link or a device"
                yield item.name.removeprefix("./"), wrong, lambda item=item: archive.extractfile(item)  # type: ignore[misc]


def _write(opened: Callable[[], IO[bytes] | None], target: Path, archive: Path, most: int) -> int:
    """Write at most `most` bytes of a member; returns how many."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        stream = opened()
        if stream is None:
            raise _refused(archive, target.name, "is no file")
        with stream, target.open("xb") as file:
            while (left := most - file.tell()) and (block := stream.read(min(_BLOCK, left))):
                file.write(block)
            return file.tell()
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise _refused(archive, target.name, "is a file and a folder") from None
    except OSError as err:
        if shutil.disk_usage(target.parent).free < _BLOCK:
            raise PlatformError(
                f"no space to unpack {archive.name}",
                detail=str(err),
                fix="set TMPDIR to a folder with more space, or unpack it and give the folder",
                code="no_space",
            ) from err
        raise


def _refused(path: Path, name: str, wrong: str) -> PlatformError:
    return PlatformError(
        f"{path.name} is refused: {name[:120]!r} {wrong}",
        fix="pack the images and annotations alone, as plain files; or unpack it yourself, and give the folder",
        code="bad_source",
        file=str(path),
    )
