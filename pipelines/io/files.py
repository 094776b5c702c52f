"""Reading and writing the documents that pass between steps."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from contracts.errors import PlatformError


def user_cache(what: str) -> Path:
    """The folder in the user's cache for what may be lost; it may not be there yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "fairlead" / what


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, document: Any) -> None:
    """Write a JSON document whole or not at all; NaN becomes null, keys keep their order."""
    write_text(path, json.dumps(clean_numbers(document), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Read a document that an earlier step wrote.

    Raises:
        PlatformError: ``code="missing_artifact"`` when it is not there any more or not whole.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError) as err:
        raise missing(path) from err


def missing(path: Path | str) -> PlatformError:
    """An artifact of an earlier step is gone or damaged."""
    return PlatformError(
        f"an earlier step's output is missing or damaged: {path}",
        detail="the step cache refers to it, but its content is not there",
        fix="make it again: --no-cache",
        code="missing_artifact",
        file=str(path),
    )


def clean_numbers(value: Any) -> Any:
    """The same document with plain Python numbers and null instead of NaN and infinities."""
    if isinstance(value, dict):
        return {str(k): clean_numbers(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [clean_numbers(v) for v in value]
    if hasattr(value, "item") and not isinstance(value, str | bytes):  # a numpy scalar
        value = value.item()
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


@contextmanager
def fresh_folder(out: Path) -> Iterator[Path]:
    """Fill a folder that appears at `out` only when the block succeeds; an older one there is replaced."""
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    staging.chmod(0o755)
    try:
        yield staging
        if out.exists():
            shutil.rmtree(out)
        os.replace(staging, out)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
