"""``fairlead new-task``: write a task that runs at once, from the templates beside this file."""

from __future__ import annotations

import keyword
import os
import re
import shutil
import tempfile
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from deploy.cli.terminal.options import DEFAULT_PROFILE
from deploy.cli.terminal.output import emit

if TYPE_CHECKING:
    from rich.console import Console

TEMPLATES = Path(__file__).parent / "templates"
_WORDS = "words.yaml"  # of the problem of a modality
PROJECT = Path(__file__).resolve().parents[3]
_NAME = re.compile(r"[a-z][a-z0-9_]{1,23}")
_IMPORTS = re.compile(r"(?m)(?:^from pipelines\.\S+ import .*\n)+")
_FIRST_PORT = 3001


def create_task(name: str, problem: str, modality: str, root: Path | None, as_json: bool) -> None:
    """Write the task's files and say what to do next."""
    project = (root or PROJECT).resolve()
    files = [str(file.relative_to(project)) for file in write_task(name, problem, modality, project)]

    def show(out: Console) -> None:
        out.print(f"Wrote task [bold]{name}[/] ({problem}, {modality}):")
        for file in files:
            out.print(f"  {file}", markup=False)
        out.print(f"It runs as it is: fairlead run {name}, then: fairlead serve {name}")
        out.print(f"Make it yours: the columns in pipelines/tasks/{name}/__init__.py, the data in data.py")

    document: dict[str, Any] = {"task": name, "problem": problem, "modality": modality, "root": str(project)}
    emit({**document, "files": files}, as_json, show)


def write_task(name: str, problem: str, modality: str, project: Path) -> list[Path]:
    """Write a new task below `project` and return its files; all of them or none.

    Raises:
        PlatformError: a bad name, a combination without templates, a file that exists, or not a project folder.
    """
    _check_name(name)
    if not (project / "pipelines" / "tasks").is_dir() or not (project / "pyproject.toml").is_file():
        raise PlatformError(
            f"not a project folder: {project}",
            detail="it has no pyproject.toml with pipelines/tasks beside it",
            fix="run it in a clone of the project, or give --root",
        )
    targets = _targets(name, problem, modality)
    _check_free(name, project, list(targets))
    words = _words(name, problem, modality) | {"port": str(_port(project))}
    staging = Path(tempfile.mkdtemp(prefix=".new-task-", dir=project))
    try:
        for target, template in targets.items():
            file = staging / target
            file.parent.mkdir(parents=True, exist_ok=True)
            text = Template(template.read_text(encoding="utf-8")).substitute(words)
            file.write_text(_sorted_imports(text), encoding="utf-8")
        return _move(staging, project, list(targets))
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def combinations() -> list[tuple[str, str]]:
    """The (problem, modality) that there are templates for, sorted."""
    return sorted((file.parent.name, file.parents[1].name) for file in TEMPLATES.glob(f"*/*/{_WORDS}"))


def _targets(name: str, problem: str, modality: str) -> dict[str, Path]:
    """Target path -> template; ``NAME`` in a template's path stands for the task's name."""
    if (problem, modality) not in combinations():
        near = max(combinations(), key=lambda known: (known[0] == problem, known[1] == modality))
        known = [f"--problem {one} --modality {other}" for one, other in combinations()]
        raise PlatformError(
            f"no templates for problem {problem!r} of modality {modality!r}",
            detail=f"there are: {', '.join(known)}",
            fix=f"pick one of them: fairlead new-task {name} --problem {near[0]} --modality {near[1]}",
            code="bad_name",
        )
    found = {}
    like = _said(problem, modality).get("like", modality)
    for folder in (TEMPLATES / "shared", TEMPLATES / like / "shared", TEMPLATES / modality / problem):
        for file in sorted(folder.rglob("*.tmpl")):
            found[str(file.relative_to(folder)).removesuffix(".tmpl").replace("NAME", name)] = file
    return found


def _words(name: str, problem: str, modality: str) -> dict[str, str]:
    """What the placeholders of the templates stand for."""
    own = {"name": name, "title": name.replace("_", " "), "class_name": _camel(name)}
    own |= {"problem": problem, "modality": modality}
    return {**{key: Template(text).substitute(own) for key, text in _said(problem, modality).items()}, **own}


def _said(problem: str, modality: str) -> dict[str, str]:
    """The words of a problem of a modality; ``like`` is another modality, whose shared templates it takes."""
    import yaml

    found: dict[str, str] = yaml.safe_load((TEMPLATES / modality / problem / _WORDS).read_text(encoding="utf-8"))
    return found


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise PlatformError(
            f"not a task name: {name!r}",
            detail="accepted: 2 to 24 lower case letters, digits and _, starting with a letter; no Python keyword",
            fix="make new-task NAME=churn",
            code="bad_name",
        )


def _check_free(name: str, project: Path, targets: list[str]) -> None:
    # A module or folder of that name would shadow the new one, or be shadowed by it.
    beside = [
        f"pipelines/tasks/{name}",
        f"pipelines/tasks/{name}.py",
        f"feature_repo/{name}",
        f"feature_repo/{name}.py",
    ]
    taken = [path for path in (*beside, *targets) if (project / path).exists()]
    if taken:
        raise PlatformError(
            f"the name {name} is taken",
            detail=f"{taken[0]} exists",
            fix="choose another name; new-task never changes a file",
            code="bad_name",
        )


def _port(project: Path) -> int:
    """The first port that no deployed model of the default profile asks for."""
    files = (project / "deploy" / "env" / DEFAULT_PROFILE / "models").glob("*.yaml")
    found = [re.search(r"^port:\s*(\d+)", file.read_text(encoding="utf-8"), re.MULTILINE) for file in files]
    return max([_FIRST_PORT - 1, *(int(match[1]) for match in found if match)]) + 1


def _move(staging: Path, project: Path, targets: list[str]) -> list[Path]:
    """Put the files in their places; a failure takes back the ones that were put."""
    moved: list[Path] = []
    try:
        for target in targets:
            file = project / target
            file.parent.mkdir(parents=True, exist_ok=True)
            os.link(staging / target, file)  # unlike a rename, it never replaces a file
            moved.append(file)
    except OSError as err:
        for file in moved:
            file.unlink()
        raise PlatformError(
            f"could not write {target}", detail=str(err), fix="check space and rights, then try again"
        ) from err
    return moved


def _sorted_imports(text: str) -> str:
    """Where the import of the new task belongs among those beside it depends on its name."""
    return _IMPORTS.sub(lambda block: "".join(sorted(block[0].splitlines(keepends=True))), text)


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))
