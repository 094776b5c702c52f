"""Which code and libraries make an artifact: part of every cache key and of a model's lineage."""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from contracts.engines import ENGINES
from contracts.errors import PlatformError
from contracts.problems import PROBLEMS
from feature_repo.transforms import TRANSFORMS
from pipelines.plugins import FEATURES, RECIPES, TASKS, added_recipes, module_file
from pipelines.tasks import get_task

_ROOT = Path(__file__).parents[1]
# What a task's artifacts are made by, besides its own folder, its own feature definitions, and what these import.
_SHARED = (
    "contracts", "pipelines/steps", "pipelines/checks", "pipelines/pages", "pipelines/evaluation",
    "pipelines/training", "pipelines/suites", "pipelines/federation", "pipelines/data", "pipelines/io",
    "pipelines/task.py", "pipelines/gate_limits.py", "pipelines/settings.py", "pipelines/tuning_limits.py",
    "pipelines/formatting.py", "pipelines/plugins.py", "pipelines/code_version.py", "feature_repo/stores",
    "feature_repo/transforms",
)  # fmt: skip
_OURS = ("contracts", "pipelines", "services", "feature_repo", "deploy")
# Rooms of which those of other packages count for every task, as the folders of ours do.
_WHOLE = (PROBLEMS, ENGINES, TRANSFORMS)
_SUFFIXES = {".py", ".html", ".tmpl", ".json", ".yaml", ".csv"}
_LIBRARIES = (
    "numpy", "pandas", "pyarrow", "pandera", "duckdb", "feast", "lightgbm", "scikit-learn", "torch", "onnx",
    "onnxruntime", "tokenizers", "transformers",
)  # fmt: skip


@lru_cache
def code_version(task: str) -> str:
    """``<code>.<libraries>``: hex digests of the sources and of the library versions behind a task's artifacts."""
    return f"{_code(task)}.{_libraries()}"


def require(task: str, expected: str) -> None:
    """Check that this is the code that the run was started with; a run may be started elsewhere than its steps run.

    Libraries are not compared: an image need not have all that the machine has which starts the run. An `expected` that
    is empty is any.

    Raises:
        PlatformError: ``code="other_code"``.
    """
    if not expected:
        return
    wanted, here = expected.partition(".")[0], _code(task)
    if here != wanted:
        raise PlatformError(
            "the steps run other code than the run was started with",
            detail=f"code of task {task}: {wanted} where the run was started, {here} here",
            fix="build and push the image of this commit, and name it: --image; or start it from the image's commit",
            code="other_code",
        )


def _code(task: str) -> str:
    packages, digest = _packages(), hashlib.sha256()
    for name, file in sorted((_place(file, packages)[1].as_posix(), file) for file in _sources(task, packages)):
        digest.update(name.encode() + b"\0")
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _packages() -> dict[str, Path]:
    """The packages whose code counts, and the folder that each lies in: ours, and those that add something."""
    found = dict.fromkeys(_OURS, _ROOT)
    for rooms in (TASKS, RECIPES, FEATURES, *_WHOLE):
        for entry in rooms.entries().values():
            top = entry.module.partition(".")[0]
            file = module_file(top)
            found.setdefault(top, file.parents[1] if file.name == "__init__.py" else file.parent)
    return found


def _place(file: Path, packages: Mapping[str, Path]) -> tuple[Path, Path]:
    """The folder that a file's package lies in, and the file's path from there."""
    for top, root in packages.items():
        if file.is_relative_to(root / top) or file == root / f"{top}.py":
            return root, file.relative_to(root)
    raise ValueError(f"{file} is in none of {', '.join(packages)}")


def _sources(task: str, packages: Mapping[str, Path]) -> set[Path]:
    own, definitions = _ROOT / "pipelines/tasks" / task, sorted((_ROOT / "feature_repo").glob(f"{task}*.py"))
    if entry := FEATURES.entries().get(task):
        definitions = [module_file(entry.module)]
    folders = {_ROOT / name for name in _SHARED}
    files = {*(_ROOT / "pipelines/tasks").glob("*.py"), *definitions}
    if entry := TASKS.entries().get(task):
        files.add(module := module_file(entry.module))
        # Beside the module of a package lie the files that it reads; beside one without a package lies anything.
        own = module.parent if "." in entry.module or module.name == "__init__.py" else module
    folders.add(own)
    added = _added(task)
    followed = [*definitions, *added, *(own.rglob("*.py") if own.is_dir() else [own])]
    imported = _imported([file for file in followed if file.exists()], packages)
    # A module's package may have files that it reads, such as a template; those of all packages are shared already.
    folders |= {file.parent for file in imported if file.parent.parent == _ROOT / "pipelines/tasks"}
    for folder in folders:
        files.update(p for p in (folder, *folder.rglob("*")) if p.suffix in _SUFFIXES and p.is_file())
    return files | imported | added


def _added(task: str) -> set[Path]:
    """Modules of other packages that have a part in the task's artifacts without being imported by it."""
    modules = {entry.module for rooms in _WHOLE for entry in rooms.entries().values()}
    if entries := RECIPES.entries():
        recipes = added_recipes(get_task(task))
        modules |= {entries[name].module for name in recipes} | {type(made).__module__ for made in recipes.values()}
    return {module_file(module) for module in modules}


def _imported(files: Iterable[Path], packages: Mapping[str, Path]) -> set[Path]:
    """The modules of `packages` that `files` import, themselves or by what they import, in functions too.

    What is shared by all tasks is not followed: it is counted whole, and imports none of them.
    """
    found: set[Path] = set()
    shared = [_ROOT / name for name in _SHARED]
    left = list(files)
    while left:
        file = left.pop()
        for module in _modules(file, packages):
            if (made := _file_of(module, packages)) and made not in found:
                found.add(made)
                if not any(made.is_relative_to(folder) for folder in shared):
                    left.append(made)
    return found


def _modules(file: Path, packages: Mapping[str, Path]) -> Iterator[str]:
    """Names that a file imports: of a package's members, both the package and what may be a module in it."""
    package = _place(file, packages)[1].parent.parts
    for node in ast.walk(ast.parse(file.read_bytes(), str(file))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            name = ".".join([*base, *filter(None, [node.module])])
            yield name
            yield from (f"{name}.{alias.name}" for alias in node.names)


def _file_of(module: str, packages: Mapping[str, Path]) -> Path | None:
    """The source of a module, when it is one of `packages`."""
    parts = module.split(".")
    if parts[0] not in packages:
        return None
    place = packages[parts[0]].joinpath(*parts)
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
