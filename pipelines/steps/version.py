"""Which code and libraries make an artifact: part of every cache key and of a model's lineage."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from contracts.errors import PlatformError

_ROOT = Path(__file__).parents[2]
# What a task's artifacts are made by, besides its own folder and its own feature definitions.
_SHARED = ("contracts", "pipelines/steps", "pipelines/training", "feature_repo/stores", "feature_repo/transforms")
_SUFFIXES = {".py", ".html", ".tmpl", ".json", ".yaml", ".csv"}
_LIBRARIES = (
    "numpy", "pandas", "pyarrow", "pandera", "duckdb", "feast", "lightgbm", "scikit-learn", "torch", "onnx",
    "onnxruntime", "tokenizers",
)  # fmt: skip


@lru_cache
def code_version(task: str) -> str:
    """``<code>.<libraries>``: hex digests of the sources and of the library versions behind a task's artifacts."""
    return f"{_code(task)}.{_libraries()}"


def require(task: str, expected: str) -> None:
    """Check that this is the code that the run was started with; a run may be started elsewhere than its steps run.

    Libraries are not compared: an image need not have all that the machine has which starts the run.

    Raises:
        PlatformError: ``code="other_code"``.
    """
    wanted, here = expected.partition(".")[0], _code(task)
    if here != wanted:
        raise PlatformError(
            "the steps run other code than the run was started with",
            detail=f"code of task {task}: {wanted} where the run was started, {here} here",
            fix="build and push the image of this commit, and name it: --image; or start it from the image's commit",
            code="other_code",
        )


def _code(task: str) -> str:
    digest = hashlib.sha256()
    for file in _sources(task):
        digest.update(file.relative_to(_ROOT).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _sources(task: str) -> Iterator[Path]:
    folders = [*(_ROOT / name for name in _SHARED), _ROOT / "pipelines/tasks" / task]
    yield from sorted((_ROOT / "pipelines/tasks").glob("*.py"))
    yield from sorted((_ROOT / "feature_repo").glob(f"{task}*.py"))
    for folder in folders:
        yield from sorted(p for p in folder.rglob("*") if p.suffix in _SUFFIXES and p.is_file())


def _libraries() -> str:
    found = [f"python {sys.version_info.major}.{sys.version_info.minor}"]
    for name in _LIBRARIES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return hashlib.sha256("\n".join(found).encode()).hexdigest()[:8]
