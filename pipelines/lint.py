"""Refuses what KFP's local runner gets silently wrong, and what would behave differently on a cluster."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from contracts.errors import PlatformError

MAX_BODY_LINES = 10
MAX_ARGUMENT_BYTES = 100_000  # Linux takes 128 KiB in one argument; KFP passes all inputs of a step in one
# Text that the local runner replaces or interprets wherever it occurs in an argument.
_REWRITTEN = {
    "python3": "the local runner replaces it by the path of the interpreter",
    "kfp-workspace": "the local runner takes it for its workspace and replaces the path",
    "{{$": "KFP takes it for a placeholder",
}


def lint_arguments(arguments: Mapping[str, Any], root: Path) -> None:
    """Check the values of a run's parameters and the folder of its outputs.

    Raises:
        PlatformError: ``code="unsafe_workflow"``, with every finding.
    """
    found = [*_bad_text("the folder of runs", str(root))]
    total = 0
    for name, value in arguments.items():
        if isinstance(value, list | dict):
            found.append(f"{name}: a {type(value).__name__} turns whole numbers into floats; pass it as JSON text")
        elif isinstance(value, str):
            total += len(json.dumps(value).encode())
            found += _bad_text(name, value)
    if total > MAX_ARGUMENT_BYTES:
        found.append(f"the parameters have {total:,} bytes, at most {MAX_ARGUMENT_BYTES:,} fit; pass a file's path")
    _refuse(found, "this run's parameters")


def _bad_text(name: str, value: str) -> Iterator[str]:
    for text, why in _REWRITTEN.items():
        if text in value:
            yield f"{name} contains {text!r}: {why}; use another name or folder"


def lint_components(file: Path) -> None:
    """Check a module of components by its source."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            found.append(f"line {node.lineno}: from __future__ import: KFP cannot read annotations that are text")
        if isinstance(node, ast.FunctionDef):
            for decorator in node.decorator_list:
                if "component" in ast.unparse(decorator).split("(")[0]:
                    found += _component(node, decorator)
    _refuse(found, file.name)


def _component(node: ast.FunctionDef, decorator: ast.expr) -> Iterator[str]:
    at = f"{node.name} (line {node.lineno})"
    given = {k.arg: k.value for k in decorator.keywords} if isinstance(decorator, ast.Call) else {}
    if "base_image" not in given:
        yield f"{at}: no base_image: KFP would take an image without this package"
    installs = given.get("install_kfp_package")
    if not (isinstance(installs, ast.Constant) and installs.value is False):
        yield f"{at}: install_kfp_package=False is missing: every step would run pip"
    for argument in ("packages_to_install", "pip_index_urls", "additional_funcs", "embedded_artifact_path"):
        if argument in given:
            yield f"{at}: {argument}: code and packages belong into the image"
    body = [n for n in node.body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))]
    lines = {line for n in body for m in ast.walk(n) if (line := getattr(m, "lineno", None))}
    if len(lines) > MAX_BODY_LINES:
        yield f"{at}: {len(lines)} lines; a body only imports and calls a step, in at most {MAX_BODY_LINES}"
    for given_as in node.args.args:
        kind = ast.unparse(given_as.annotation) if given_as.annotation else ""
        if re.match(r"(typing\.)?(list|dict|List|Dict)\b", kind):
            yield f"{at}: {given_as.arg} is a {kind}: whole numbers in it become floats; pass JSON text"
        if "OutputPath" in kind or "InputPath" in kind:
            yield f"{at}: {given_as.arg} is a {kind}: use Input[...] and Output[...], whose paths are never rewritten"


def lint_workflow(file: Path) -> None:
    """Check a compiled workflow (IR)."""
    spec = next(yaml.load_all(file.read_text(encoding="utf-8"), yaml.CSafeLoader))
    found: list[str] = []
    for name, executor in spec.get("deploymentSpec", {}).get("executors", {}).items():
        container = executor.get("container", {})
        command = [*container.get("command", []), *container.get("args", [])]
        if any("pip install" in part for part in command):
            found.append(f"{name}: runs pip at every start; put the packages into the image")
        if any(len(part.encode()) > MAX_ARGUMENT_BYTES for part in command):
            found.append(f"{name}: its source has more than {MAX_ARGUMENT_BYTES:,} bytes and cannot be started")
        if container and not container.get("image"):
            found.append(f"{name}: has no image")
    for name, component in {"root": spec["root"], **spec.get("components", {})}.items():
        found += _inputs(name, component)
        for task, definition in component.get("dag", {}).get("tasks", {}).items():
            found += _task(f"{name}.{task}", definition)
    _refuse(found, file.name)


def _inputs(name: str, component: Mapping[str, Any]) -> Iterator[str]:
    for parameter, definition in component.get("inputDefinitions", {}).get("parameters", {}).items():
        if definition.get("parameterType") in ("LIST", "STRUCT"):
            yield f"{name}: {parameter} is a list or dict: whole numbers in it become floats; pass JSON text"


def _task(at: str, definition: Mapping[str, Any]) -> Iterator[str]:
    condition = definition.get("triggerPolicy", {}).get("condition", "")
    if re.search(r"""['"]""", condition) and "string_value" in condition:
        yield f"{at}: branches on a text ({condition}): a quote in it changes the result; branch on a bool or a number"
    for name, given in definition.get("inputs", {}).get("parameters", {}).items():
        constant = given.get("runtimeValue", {}).get("constant")
        if isinstance(constant, str):
            yield from _bad_text(f"{at}: {name}", constant)


def _refuse(found: list[str], what: str) -> None:
    if found:
        raise PlatformError(
            f"{what}: KFP would run this wrongly",
            detail="\n  ".join(found),
            fix="correct the points above",
            code="unsafe_workflow",
            findings=found,
        )
