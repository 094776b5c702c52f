"""Which code and libraries make an artifact: part of every cache key and of a model's lineage."""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from contracts.errors import PlatformError

_ROOT = Path(__file__).parents[2]
# What a task's artifacts are made by, besides its own folder, its own feature definitions, and what these import.
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


def _sources(task: str) -> list[Path]:
    own, definitions = _ROOT / "pipelines/tasks" / task, sorted((_ROOT / "feature_repo").glob(f"{task}*.py"))
    folders = {own, *(_ROOT / name for name in _SHARED)}
    files = {*(_ROOT / "pipelines/tasks").glob("*.py"), *definitions}
    imported = _imported([*own.rglob("*.py"), *definitions])
    # A module's package may have files that it reads, such as a template; those of all packages are shared already.
    folders |= {file.parent for file in imported if file.parent.parent == own.parent}
    for folder in folders:
        files.update(p for p in folder.rglob("*") if p.suffix in _SUFFIXES and p.is_file())
    return sorted(files | imported)


def _imported(files: Iterable[Path]) -> set[Path]:
    """The modules of this tree that `files` import, themselves or by what they import, in functions too.

    What is shared by all tasks is not followed: it is counted whole, and imports none of them.
    """
    found: set[Path] = set()
    shared = [_ROOT / name for name in _SHARED]
    left = list(files)
    while left:
        file = left.pop()
        for module in _modules(file):
            if (made := _file_of(module)) and made not in found:
                found.add(made)
                if not any(made.is_relative_to(folder) for folder in shared):
                    left.append(made)
    return found


def _modules(file: Path) -> Iterator[str]:
    """Names that a file imports: of a package's members, both the package and what may be a module in it."""
    package = file.relative_to(_ROOT).parent.parts
    for node in ast.walk(ast.parse(file.read_bytes(), str(file))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            name = ".".join([*base, *filter(None, [node.module])])
            yield name
            yield from (f"{name}.{alias.name}" for alias in node.names)


def _file_of(module: str) -> Path | None:
    """The source of a module of this tree."""
    place = _ROOT.joinpath(*module.split("."))
    candidates = (place.with_suffix(".py"), place / "__init__.py")
    return next((file for file in candidates if file.is_file()), None)


def _libraries() -> str:
    found = [f"python {sys.version_info.major}.{sys.version_info.minor}"]
    for name in _LIBRARIES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return hashlib.sha256("\n".join(found).encode()).hexdigest()[:8]
