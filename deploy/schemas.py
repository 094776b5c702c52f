"""Write the JSON Schemas that are committed: ``python -m deploy.schemas [ROOT]``.

The schema of a chart's values is made of its class (`deploy.values`) and of the comments of its ``values.yaml``. Helm
refuses values that do not fit; that the committed file is the generated one is checked by ``make verify``.
"""

from __future__ import annotations

import json
import re
import sys
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

_COMMENT = re.compile(r"^\s*# (?:-- )?(.*)$")
_KEY = re.compile(r"^(\s*)([A-Za-z_][\w.-]*):")
Schema = dict[str, Any]


def charts() -> dict[str, Any]:
    """The class of values of every chart, by the chart's folder below ``helm/``."""
    from deploy import values

    names = sorted(module.name for module in iter_modules(values.__path__) if module.name != "shared")
    return {name.replace("_", "-"): import_module(f"deploy.values.{name}").ChartValues for name in names}


def write_schemas(root: Path) -> list[Path]:
    """Write every schema below `root` (the project's folder) and return the files."""
    from contracts import bundle

    schemas = {root / "contracts" / "bundle.schema.json": bundle.schema()}
    for chart, cls in charts().items():
        folder = root / "helm" / chart
        schemas[folder / "values.schema.json"] = values_schema(cls, (folder / "values.yaml").read_text("utf-8"))
    for file, schema in schemas.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(schema, indent=1) + "\n", encoding="utf-8")
    return list(schemas)


def values_schema(cls: Any, values_yaml: str) -> Schema:
    """The schema of a chart's values; descriptions come from the comments of the file, then from the class."""
    made: Schema = cls.model_json_schema(by_alias=True)
    definitions = made.pop("$defs", {})
    schema = _plain(_inlined(made, definitions))
    for path, text in comments(values_yaml).items():
        _node(schema, path)["description"] = text
    for key, new in cls.removed.items():
        *parents, last = key.split(".")
        _node(schema, tuple(parents))["properties"][last] = {"description": f"Removed: use {new}."}
    # Draft 7 is what every Helm from 3.14 on understands.
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "values", **schema}


def comments(text: str) -> dict[tuple[str, ...], str]:
    """The comment above each key of a ``values.yaml``, from its ``# --`` on, by path."""
    found: dict[tuple[str, ...], str] = {}
    stack: list[tuple[int, str]] = []
    pending: list[str] = []
    for line in text.splitlines():
        if comment := _COMMENT.match(line):
            pending = [comment[1]] if line.lstrip().startswith("# --") else [*pending, comment[1]] if pending else []
            continue
        if key := _KEY.match(line):
            depth = len(key[1])
            stack = [item for item in stack if item[0] < depth] + [(depth, key[2])]
            if pending:
                found[tuple(name for _, name in stack)] = " ".join(pending)
        pending = []
    return found


def _inlined(node: Any, definitions: Schema) -> Any:
    """`node` with every reference replaced by what it names, so that each place can have its own description."""
    if isinstance(node, list):
        return [_inlined(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if reference := node.get("$ref"):
        own = {key: value for key, value in node.items() if key != "$ref"}
        node = {**definitions[reference.removeprefix("#/$defs/")], **own}
    return {key: _inlined(value, definitions) for key, value in node.items()}


def _plain(node: Any, *, named: bool = False) -> Any:
    """`node` without the titles that pydantic adds; in `named` mappings the keys are people's."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    if "required" in node and not named:  # Helm drops keys that are null before it looks
        keep = [key for key in node["required"] if {"type": "null"} not in node["properties"][key].get("anyOf", ())]
        node = {**node, "required": keep}
    return {key: _plain(value, named=key == "properties") for key, value in node.items() if named or key != "title"}


def _node(schema: Schema, path: tuple[str, ...]) -> Schema:
    """The schema of the key at `path`; an unknown one is empty and belongs to nobody."""
    for key in path:
        schema = schema.get("properties", {}).get(key, {})
    return schema


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1]
    for written in write_schemas(target):
        sys.stdout.write(f"{written}\n")
