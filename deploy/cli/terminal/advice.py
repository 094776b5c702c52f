"""Commands that are printed for people to paste."""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from deploy.cli.terminal.options import DEFAULT_PROFILE, PROFILE_VARIABLE

if TYPE_CHECKING:
    from pipelines.run import Placing

_WORD = r"""(?:'[^']*'|"(?:[^"\\]|\\.)*"|\\.|,(?=\S)|[^\s'"\\;,&|<>()])+"""
_SETTING = rf"(?:--set[ =]{_WORD}|--no-cache)"
_COMMAND = rf"\b(?:fairlead|helm|kubectl|make|pip)(?:\s+{_WORD}(?<!:)(?=[\s;,]|$))+"  # not "make it again: --set"
_PARTS = re.compile(rf"(?P<command>{_COMMAND})|(?P<settings>{_SETTING}(?:\s+{_SETTING})*)")
_OPTION = rf"(?:--[a-z][a-z-]*[ =]{_WORD}|--no-cache)"
_OPTIONS = re.compile(rf"(?P<command>{_COMMAND})|(?:(?<=: )|^)(?P<options>{_OPTION}(?:\s+{_OPTION})*)")
_OURS = re.compile(r"\bfairlead((?: [a-z][a-z-]*)+)(?=(?P<rest>(?:(?!\bfairlead )[^;])*))")
_PYTHON = {"set": "settings", "input": "rows", "env": "profile"}
_LISTINGS = {"unknown_model": "fairlead models", "unknown_features": "fairlead features list"}


def resume_command(run_id: str, profile: str) -> str:
    """The command that goes on with a run of a profile."""
    return " ".join([f"fairlead run --resume {shlex.quote(run_id)}", *profile_words(profile)])


def placing_words(placing: Placing) -> list[str]:
    """The options of ``fairlead run`` that say where a run on a cluster runs its steps."""
    words = [f"--image {shlex.quote(placing.image)}"] if placing.image else []
    words += [f"--train-gpus {placing.train_gpus}"] if placing.train_gpus else []
    return words + ([f"--train-nodes {placing.train_nodes}"] if placing.train_nodes > 1 else [])


def new_command(run: Mapping[str, Any], profile: str, settings: Mapping[str, Any] | None = None) -> str:
    """The whole command for a new run that is asked what `run` was, with `settings` changed."""
    from pipelines.run_settings import split
    from pipelines.task import dump_config
    from pipelines.tasks import changed_config, get_task

    if settings:
        of_task, of_run = split(settings)
        config = changed_config(get_task(run["task"]), run["config"], of_task)
        run = {**run, "config": json.loads(dump_config(config)), "settings": {**(run.get("settings") or {}), **of_run}}
    given = {"--recipe": run["recipe"], "--source": run.get("source")}
    words = [f"{option} {shlex.quote(value)}" for option, value in given.items() if value]
    return " ".join(["fairlead run", run["task"], *words, *settings_of(run), *profile_words(profile)])


def settings_of(run: Mapping[str, Any]) -> list[str]:
    """What a run was asked beyond its recipe, as words for a shell; of an unknown task or recipe nothing."""
    from pipelines.settings import changes, setting
    from pipelines.task import dump_config
    from pipelines.tasks import find_recipe, get_task, task_names

    config = run.get("config") or {}
    if run.get("workflow") == "batch_scoring":
        return [setting(key, value) for key, value in config.items()]
    of_run = [setting(key, value) for key, value in (run.get("settings") or {}).items()]
    recipe = find_recipe(get_task(run["task"]), run["recipe"]) if run["task"] in task_names() else None
    if recipe is None:
        return of_run
    base = json.loads(dump_config(recipe))
    return [*(setting(key, value) for key, value in changes(base, config).items()), *of_run]


def pasteable(fix: str, command: str) -> str:
    """`fix` with its settings as words of `command`: ``--set a=1`` becomes ``fairlead run --resume RUN --set a=1``.

    Whole commands in it stay as they are. A fix without a setting ends in `command`.
    """
    if not fix:
        return f"correct it, then: {command}"

    def whole(part: re.Match[str]) -> str:
        return part["command"] or f"{command} {part['settings']}"

    made = _PARTS.sub(whole, fix)
    return made if command in made else f"{fix}; then: {command}"


def trainable(error: PlatformError) -> str:
    """The cure of an error; models and features that are not there are trained only where a task makes them."""
    name, listing = error.context.get("model"), _LISTINGS.get(error.code)
    if listing is None or error.fix != f"fairlead run {name}":
        return error.fix
    from pipelines.tasks import task_names

    known = f"see which there are: {listing}; what can be trained: fairlead tasks"
    return error.fix if name in task_names() else known


def completed(fix: str, words: Sequence[str], profile: str) -> str:
    """`fix` for a person who typed ``fairlead`` and `words`, so that each command in it can be pasted.

    An option that stands behind a colon, or alone, becomes the command that was typed with this option instead. A
    command of ours that says no profile gets the one that was used.
    """

    def whole(part: re.Match[str]) -> str:
        return part["command"] or f"{shlex.join(['fairlead', *_without(words, part['options'])])} {part['options']}"

    def placed(part: re.Match[str]) -> str:
        command, end = _subcommand(part[1].split())
        if not command or re.search(r"\s(--profile|-p|--env|-e)\b", part["rest"]):
            return part[0]
        at = part.start(1) - part.start() + end
        return " ".join([part[0][:at], *profile_words(profile)]) + part[0][at:]

    return _OURS.sub(placed, _OPTIONS.sub(whole, fix))


def as_arguments(fix: str) -> str:
    """`fix` for a person who calls Python: options outside of commands as arguments, ``--url`` as ``url=``."""

    def spelled(part: re.Match[str]) -> str:
        name = (part["name"] or "").replace("-", "_")
        return part["command"] or f"{_PYTHON.get(name, name)}="

    return re.sub(rf"(?P<command>{_COMMAND})|--(?P<name>[a-z][a-z-]*)(?:=| (?=[A-Z0-9]|[\w.]+=))?", spelled, fix)


def _without(words: Sequence[str], options: str) -> list[str]:
    """`words` without the options that are given again and count once."""
    again = [word.partition("=")[0] for word in shlex.split(options) if word.startswith("--")]
    once = {name for name in again if name != "--set"}
    kept: list[str] = []
    value_follows = False
    for word in words:
        name, equals, _ = word.partition("=")
        if not value_follows and name not in once:
            kept.append(word)
        value_follows = name in once and not equals and name != "--no-cache"
    return kept


def _subcommand(words: Sequence[str]) -> tuple[bool, int]:
    """Whether `words` begin with a command that has a profile, and how many characters its name has."""
    command, length = _commands(), 0
    for word in words:
        found = getattr(command, "commands", {}).get(word)
        if found is None:
            break
        command, length = found, length + len(word) + 1
    return any("--profile" in option.opts for option in command.params) if length else False, length


@functools.cache
def _commands() -> Any:
    """The tree of all commands, once: Typer reads the signature of each of them."""
    from typer.main import get_command

    from deploy.cli.terminal.root import app

    return get_command(app)


def profile_words(profile: str) -> list[str]:
    """``--profile NAME``, unless it is the one that a command takes by itself."""
    usual = os.environ.get(PROFILE_VARIABLE) or DEFAULT_PROFILE
    other = profile not in {"", usual}
    return ["--profile", shlex.quote(profile)] if other else []
