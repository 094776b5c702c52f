"""Commands that the code prints for people: each is one that there is, and each key is one that a recipe has."""

from __future__ import annotations

import argparse
import ast
import contextlib
import functools
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

import deploy
from contracts.errors import PlatformError
from contracts.settings import load
from contracts.video.settings import VideoSettings
from deploy.cli.app import app
from pipelines.__main__ import _parser
from pipelines.data_engines import ENGINES, KINDS
from pipelines.run_settings import NODES, PLAN, TASKS, split
from pipelines.settings import apply
from pipelines.task import dump_config
from pipelines.tasks import get_task, task_names

ROOT = Path(deploy.__file__).parents[1]
PACKAGES = ("contracts", "pipelines", "services", "feature_repo", "deploy", "fairlead")
PROSE = {"make": {"it", "the", "room", "a", "them", "one"}, "fairlead": {"is", "is.", "and", "pii"}}
HELM = {
    "deploy/cli/project/checks/kubernetes.py",
    "deploy/cli/project/images.py",
    "deploy/cli/schedules/recurring_runs.py",
}  # whose settings may be values of the platform's chart
SAMPLES = {
    **dict.fromkeys(("other", "free_after(port, host)", "next_free(port)"), "3001"),
    "strategy": "canary",
    "section": "items",
}  # of what is filled in
END = {"or", "and", "to", "for", "with", "refuses"}  # words of a sentence that goes on behind a command
WORD = r"""(?:'[^']*'|"[^"]*"|,(?=\S)|[^\s'";,&|<>()`])+"""
COMMAND = re.compile(rf"(?<![`\w-])(?<!install )(?<!upgrade )(?<!-n )(fairlead|make)((?: {WORD})+)")
SETTING = re.compile(r"--set[ =]'?([A-Za-z_][\w.-]*)=")
OPTION = re.compile(r"(?<![\w-])(--[a-z][a-z-]*)")


@dataclass(frozen=True)
class Text:
    """One string of the code with samples filled in; `cure` is one that is given as ``fix=``."""

    place: str
    words: str
    cure: bool


def _filled(node: ast.AST) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(_filled(part) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        given = ast.unparse(node.value)
        inner = [_filled(part) for part in ast.walk(node.value) if _is_setting(part)]
        return inner[0] if inner else SAMPLES.get(given, "NAME")
    if isinstance(node, ast.Call):  # setting(key, value)
        return f"--set {_filled(node.args[0])}=1"
    return str(node.value) if isinstance(node, ast.Constant) else "NAME"


def _is_setting(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "setting"


def _texts(file: Path) -> Iterator[Text]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    place = file.relative_to(ROOT).as_posix()
    examples = place.startswith("deploy/cli/commands/")
    skipped: set[int] = set()
    cures: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                skipped |= set() if examples else {id(first.value)}
        if isinstance(node, ast.Call):
            cures |= {id(part) for word in node.keywords if word.arg == "fix" for part in ast.walk(word.value)}
        if isinstance(node, ast.JoinedStr) or _is_setting(node):
            skipped |= {id(part) for part in ast.walk(node) if part is not node}
    for node in (found for found in ast.walk(tree) if isinstance(found, ast.expr)):
        text = isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
        if (text or _is_setting(node)) and id(node) not in skipped:
            words = re.sub(r"\[/?bold\]|\[/\]", "", _filled(node))
            yield Text(f"{place}:{node.lineno}", words, id(node) in cures)


TEXTS = [text for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py")) for text in _texts(file)]


def _commands(program: str) -> Iterator[tuple[str, list[str]]]:
    for text in TEXTS:
        for line in text.words.splitlines():
            for found in COMMAND.finditer(line):
                words = shlex.split(found[2], posix=True)
                if found[1] == program and words[0] not in PROSE[program]:
                    yield text.place, _sentence_left_out(words)


def _sentence_left_out(words: list[str]) -> list[str]:
    kept: list[str] = []
    for word in words:
        if kept and word in END:
            break
        kept.append(word.rstrip(".:"))
        if word.endswith((".", ":")):
            break
    return kept


@functools.cache
def our_command() -> Any:
    """The command line; Typer reads the signature of every command again at each call."""
    return get_command(app)


def parse(words: list[str]) -> None:
    """What the command line does before it runs a command; raises its usage error."""
    command: Any = our_command()
    context = command.context_class(command, info_name="fairlead")
    while hasattr(command, "commands"):
        if command.invoke_without_command and (not words or words[0].startswith("-")):
            command.make_context(command.name, words, parent=context)
            return
        name, command, words = command.resolve_command(context, words)
        if not hasattr(command, "commands"):
            context = command.make_context(name, words, parent=context)


def test_there_are_commands_to_look_at() -> None:
    assert len(list(_commands("fairlead"))) > 100
    assert sum(text.cure for text in TEXTS) > 150
    with pytest.raises(Exception, match="No such option"):
        parse(["run", "fraud", "--nothing"])
    with pytest.raises(Exception, match="No such command"):
        parse(["nothing"])
    with pytest.raises(Exception, match="Missing"):
        parse(["promote"])


def test_every_command_of_ours_that_is_printed_is_one() -> None:
    wrong = []
    for place, words in _commands("fairlead"):
        try:
            parse(words)
        except Exception as err:  # noqa: BLE001  of the command line's own kinds, which are private
            wrong.append(f"{place}: fairlead {' '.join(words)}: {err}")
    assert wrong == []


def test_every_target_of_make_that_is_printed_is_one() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = [(place, word) for place, words in _commands("make") for word in words if re.fullmatch(r"[a-z-]+", word)]
    assert named
    assert [each for each in named if each[1] not in targets] == []


def test_every_setting_that_is_printed_is_a_key_of_a_recipe_or_of_the_chart() -> None:
    recipes = [json.loads(dump_config(recipe)) for name in task_names() for recipe in get_task(name).recipes.values()]
    recipes.append({"video": load(VideoSettings, environ={}).model_dump()})  # of a batch of clips
    chart = _values("platform") | {"pipelines": _values("pipelines") | _values("platform")["pipelines"]}
    found, wrong = 0, []
    for text in TEXTS:
        known = [chart, *recipes] if text.place.partition(":")[0] in HELM else recipes
        for key in SETTING.findall(text.words):
            found += 1
            if key != "NAME" and not _of_a_run(key) and not any(_takes(document, key) for document in known):
                wrong.append(f"{text.place}: {key}")
    assert found > 20
    assert wrong == []
    assert [_of_a_run(key) for key in ("resources.train.gpus", "resources.none.memory", "workflow.x", "seed")] == [
        True,
        False,
        False,
        False,
    ]


def _of_a_run(key: str) -> bool:
    """Whether a run takes it beside the settings of its task; NAME is any step, and KEY any of its needs."""
    key = key.replace(".NAME.", ".train.").replace(".KEY", ".memory")
    for value in ("1Gi", 1, *TASKS, *NODES, *PLAN, *ENGINES, *KINDS):
        with contextlib.suppress(PlatformError):
            return bool(split({key: value})[1])
    return False


def _values(chart: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((ROOT / "helm" / chart / "values.yaml").read_text(encoding="utf-8"))
    return values


def _takes(document: dict[str, Any], key: str) -> bool:
    *sections, last = key.split(".")
    if "NAME" in last and ".".join(sections) not in (
        "data.columns",
        "data.times",
        "data.pii",
    ):  # any key there of this form
        for section in sections:
            document = document.get(section, {})
        return any(re.fullmatch(last.replace("NAME", ".+"), name) for name in document)
    try:
        apply(json.loads(json.dumps(document)), key, 1)
    except PlatformError:
        return False
    return True


def test_every_option_in_a_cure_is_one_of_a_command() -> None:
    command: Any = our_command()
    known = {"--set", *_options(_parser())}
    for sub in command.commands.values():
        for leaf in getattr(sub, "commands", {"": sub}).values():
            known |= {option for parameter in leaf.params for option in parameter.opts}
    theirs = {"--experiment-id", "--create-namespace", "--reuse-values"}  # of mlflow and helm
    theirs |= {"--no-deps", "--force-reinstall"}  # of pip
    used = [(text.place, option) for text in TEXTS if text.cure for option in OPTION.findall(text.words)]
    assert len(used) > 30
    assert [each for each in used if each[1] not in known | theirs] == []


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for part in action.choices.values():
                yield from _options(part)


def test_every_extra_that_is_to_be_installed_is_one() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    named = [(text.place, extra) for text in TEXTS for extra in re.findall(r"fairlead\[([a-z]+)\]", text.words)]
    assert named
    assert [each for each in named if each[1] not in extras] == []
