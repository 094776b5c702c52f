"""Settings as people write them, ``key=value``: read, applied to a document, compared, and written for a shell."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from contracts.errors import PlatformError

_NEXT = re.compile(r"\s*[\w.#-]+\s*=")
_FREE = (
    ["recall"],
    ["gate", "redaction", "recall"],
    ["gate", "redaction", "leaked"],
    ["gate", "suite", "minimum"],
)  # mappings whose keys are the user's own
_READ_BY, _OF_COLUMNS = ("data", "test_data"), ("columns", "times", "pii")  # so are these, of any table that is read


def parse_setting(item: str) -> tuple[str, Any]:
    """``model.rounds=50`` as ("model.rounds", 50); values are YAML."""
    key, equals, value = item.partition("=")
    if not equals or not key.strip():
        raise PlatformError(f"not a setting: {item!r}", fix="write a key and a value, such as seed=11")
    return key.strip(), _read(value)


def split_settings(text: str) -> list[str]:
    """The settings of one text, ``key=value`` on a line each or with commas between them, for `parse_setting`.

    A comma inside brackets or quotes, or one that no key follows, belongs to the value.
    """
    found, depth, quote, began = [], 0, "", 0
    for at, sign in enumerate(text):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'" and text[at - 1] in "=[{,: ":
            quote = sign
        elif sign in "[{":
            depth += 1
        elif sign in "]}":
            depth -= 1
        elif depth == 0 and (sign == "\n" or (sign == "," and _NEXT.match(text, at + 1))):
            found.append(text[began:at])
            began = at + 1
    return [item.strip() for item in [*found, text[began:]] if item.strip()]


def setting(key: str, value: Any) -> str:
    """``--set key=value`` as a shell takes it; `parse_setting` reads the same value from it."""
    return f"--set {shlex.quote(assigned(key, value))}"


def assigned(key: str, value: Any) -> str:
    """``key=value``, from which `parse_setting` reads the same value."""
    return f"{key}={_written(value)}"


def apply(document: dict[str, Any], key: str, value: Any) -> None:
    """Replace one value of a configuration by its dotted key.

    Raises:
        PlatformError: a key that is not there, with those that are.
    """
    parts, at = key.split("."), document
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        if part not in at and not (last and _is_free(parts[:-1])):
            raise PlatformError(
                f"--set {key}: unknown key {part!r}",
                detail=f"accepted here: {', '.join(sorted(at))}",
                fix="use one of these keys",
                code="bad_config",
            )
        if last:
            at[part] = value
        elif isinstance(at[part], dict):
            at = at[part]
        else:
            raise PlatformError(
                f"--set {key}: {part} is a value, not a section", fix="leave the rest of the key out", code="bad_config"
            )


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """What `apply` must be given to make `after` of `before`: values of `after` by dotted key."""
    found: dict[str, Any] = {}
    _compare(before, after, [], found)
    return found


def _compare(before: Mapping[str, Any], after: Mapping[str, Any], at: list[str], found: dict[str, Any]) -> None:
    for key, value in after.items():
        old, path = before.get(key), [*at, key]
        if isinstance(old, dict) and isinstance(value, dict) and _may_go_into(old, value, path):
            _compare(old, value, path, found)
        elif key not in before or old != value or isinstance(old, bool) != isinstance(value, bool):
            found[".".join(path)] = value


def _may_go_into(old: Mapping[str, Any], new: Mapping[str, Any], path: list[str]) -> bool:
    """Whether every difference can be written key by key: no key is lost, added or spelled with a dot."""
    same = old.keys() <= new.keys() if _is_free(path) else old.keys() == new.keys()
    return same and not any("." in key for key in new)


def _is_free(path: list[str]) -> bool:
    return path in _FREE or (len(path) > 1 and path[-2] in _READ_BY and path[-1] in _OF_COLUMNS)


def _read(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _written(value: Any) -> str:
    """The shortest of some spellings that is read as the same value."""
    import yaml

    def dumped(style: str | None) -> str:
        text: str = yaml.safe_dump(
            value, default_flow_style=True, default_style=style, width=2**30, allow_unicode=True, sort_keys=False
        )
        return text.removesuffix("\n").removesuffix("\n...")

    spellings: tuple[Callable[[], str], ...] = (
        lambda: value if isinstance(value, str) else "",
        lambda: dumped(None) if isinstance(value, list) else "'",
        lambda: json.dumps(value, ensure_ascii=False),
        lambda: dumped(None),
        lambda: dumped('"'),
    )
    texts = [spelling() for spelling in spellings]
    # A shell writes ' in five characters, so one without it comes first.
    for text in sorted(texts, key=lambda text: "'" in text):
        if _same(_read(text), value):
            return text
    return dumped(None)


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other) and json.dumps(one) == json.dumps(other)
