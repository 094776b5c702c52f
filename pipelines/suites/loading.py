"""Suites of files: read, completed by the items of their files, and checked before anything is asked."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from contracts.errors import PlatformError
from pipelines.suites.document import Item, Suite, SuiteTask, bad_suite, requests
from pipelines.suites.metrics import METRICS

_MOST = 10_000  # items of a suite


def load_suite(name: str) -> Suite:
    """A suite of ours by its name, or of a YAML file.

    Raises:
        PlatformError: ``code="unknown_suite"``, with those that there are; ``code="bad_suite"``, with the task, the
            item and the key that is wrong.
    """
    path = Path(name).expanduser()
    if not path.is_file():
        built_in = files("pipelines.suites").joinpath(f"{name}.yaml")
        if "/" in name or not built_in.is_file():
            raise PlatformError(
                f"no suite {name!r}",
                detail=f"neither a file nor one of ours: {', '.join(built_in_suites())}",
                fix=f"name one of them or a YAML file: --suite {built_in_suites()[0]}",
                code="unknown_suite",
                suite=name,
            )
        path = Path(str(built_in))
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as err:
        raise bad_suite(name, " ".join(str(err).split())) from err
    if not isinstance(document, dict):
        raise bad_suite(name, "it is no mapping with the keys suite and tasks")
    return parse_suite(document, name, path.parent)


def built_in_suites() -> list[str]:
    """Names of ours."""
    return sorted(
        file.name.removesuffix(".yaml") for file in files("pipelines.suites").iterdir() if file.name.endswith(".yaml")
    )


def parse_suite(document: Mapping[str, Any], place: str, folder: Path | None = None) -> Suite:
    """A suite of a document, with the items of its files in it.

    Raises:
        PlatformError: ``code="bad_suite"``.
    """
    try:
        suite = Suite.model_validate(document)
    except ValidationError as err:
        raise bad_suite(
            place, "; ".join(f"{_where(document, e['loc'])}: {e['msg']}" for e in err.errors()[:5])
        ) from err
    suite = suite.model_copy(update={"tasks": tuple(_completed(suite, task, place, folder) for task in suite.tasks)})
    check_suite(suite, place)
    return suite


def check_suite(suite: Suite, place: str) -> None:
    """That names are told apart, and that items have what their metrics need.

    Raises:
        PlatformError: ``code="bad_suite"``.
    """
    names = Counter(task.name for task in suite.tasks)
    ids = Counter(item.id for task in suite.tasks for item in task.items)
    for kind, counts in (("task", names), ("item", ids)):
        if twice := [name for name, count in counts.items() if count > 1]:
            raise bad_suite(place, f"two {kind}s are called {twice[0]}")
    if ids.total() > _MOST:
        raise bad_suite(place, f"it has {ids.total():,} items, at most {_MOST:,} are taken")
    for task in suite.tasks:
        if unknown := [name for name in task.metrics if name not in METRICS]:
            raise bad_suite(place, f"task {task.name}: no metric {unknown[0]!r}; there are {', '.join(METRICS)}")
        if not task.items:
            raise bad_suite(place, f"task {task.name} has no items")
        for item in task.items:
            for name in task.metrics:
                if absent := METRICS[name].absent(item):
                    raise bad_suite(place, f"task {task.name}, item {item.id}: metric {name} needs {absent}")
            if error := METRICS[task.metrics[0]].wrong(item):
                raise bad_suite(place, f"task {task.name}, item {item.id}: {error}")
    requests(suite)
    if suite.judge and (unknown := [name for name in suite.judge.tasks if name not in names]):
        raise bad_suite(place, f"judge.tasks names {unknown[0]!r}; there are {', '.join(names)}")


def _completed(suite: Suite, task: SuiteTask, place: str, folder: Path | None) -> SuiteTask:
    """The task with the items of its file, all with an id."""
    items = [*task.items, *(_read(task, place, folder) if task.file else [])]
    named = [
        item if item.id else item.model_copy(update={"id": f"{task.name}-{at}"}) for at, item in enumerate(items, 1)
    ]
    return task.model_copy(update={"items": tuple(named), "file": ""})


def _read(task: SuiteTask, place: str, folder: Path | None) -> list[Item]:
    if folder is None:
        raise bad_suite(place, f"task {task.name}: a suite that is no file has no file {task.file} beside it")
    file, found = folder / task.file, []
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise bad_suite(place, f"task {task.name}: {file}: {err}") from err
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            found.append(Item.model_validate(json.loads(line)))
        except ValidationError as err:
            first = err.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise bad_suite(place, f"task {task.name}: {task.file}, line {number}: {key}: {first['msg']}") from err
        except ValueError as err:
            raise bad_suite(place, f"task {task.name}: {task.file}, line {number} is no JSON: {err}") from err
    return found


def _where(document: Mapping[str, Any], place: tuple[int | str, ...]) -> str:
    """The place of an error with names of tasks and ids of items in the place of their numbers."""
    said, value = [], document
    for part in place:
        try:
            value = value[part]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            value = {}
        named = value.get("name") or value.get("id") if isinstance(part, int) and isinstance(value, dict) else None
        said.append(str(named or part))
    return ".".join(said)
