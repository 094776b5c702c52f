"""Prompts as documents: versions named by their content, tested against a model, promoted like models.

They lie beside the bundles, in a folder or in S3: ``prompts/<name>/<version>/prompt.json``, the evidence of its last
test beside it, and ``prompts/<name>/champion/<moment>-<version>.json`` for each promotion, so that two machines lose
neither's.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from contracts import storage
from contracts.document import Document
from contracts.endpoints import Endpoints
from contracts.errors import PlatformError

_NAME = re.compile(r"[\w-]+", re.ASCII)
_PLACE = re.compile(r"\{([A-Za-z_]\w*)\}")
_PROMPT, _TEST, _CHAMPION = "prompt.json", "test.json", "champion"
_CHARACTERS = 12  # of a version


class PromptDocument(Document):
    """One prompt.

    Attributes:
        name: letters, digits, _ and -.
        template: the user's message, with the variables in braces.
        variables: names of what a request fills in; each stands in the template.
        system: the system message.
        options: of the request, such as temperature and max_tokens.
        model: the chat model that it is written for and tested with: name, name@alias, name:version, or an address.
        examples: items of a suite, each with ``variables`` and what is expected, see `pipelines.suites.document.Item`.
        metrics: of each example, the first one is what `minimum` limits.
        minimum: the least mean of the first metric with which it may be promoted.
    """

    format: Literal[1] = 1
    name: str
    title: str = ""
    template: str = Field(min_length=1)
    variables: tuple[str, ...] = ()
    system: str = ""
    options: Mapping[str, Any] = Field(default_factory=lambda: {"temperature": 0, "max_tokens": 64})
    model: str
    examples: tuple[Mapping[str, Any], ...] = Field(min_length=1)
    metrics: tuple[str, ...] = Field(min_length=1)
    minimum: float = Field(ge=0, le=1)

    @model_validator(mode="after")
    def _fits(self) -> PromptDocument:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"name {self.name!r} has other signs than letters, digits, _ and -")
        if wrong := sorted(set(self.variables) ^ placeholders(self.template)):
            where = "the template" if wrong[0] in self.variables else "variables"
            raise ValueError(f"{wrong[0]!r} is not in {where}")
        return self

    @property
    def version(self) -> str:
        """By content."""
        return content_version(self.model_dump(mode="json"))

    def messages(self, values: Mapping[str, Any]) -> list[dict[str, str]]:
        """The conversation that is asked, with `values` in the places of the variables.

        Raises:
            PlatformError: ``code="bad_prompt"``: a variable has no value.
        """
        first = [{"role": "system", "content": self.system}] if self.system else []
        return [*first, {"role": "user", "content": fill(self.template, values)}]


def placeholders(template: str) -> set[str]:
    """The names in braces; braces around anything else, as in JSON, are text."""
    return set(_PLACE.findall(template))


def fill(template: str, values: Mapping[str, Any]) -> str:
    """The template with the values in their places; what stands in a value is text, whatever braces it has.

    Raises:
        PlatformError: ``code="bad_prompt"``: a name has no value.
    """
    if absent := sorted(placeholders(template) - set(values)):
        raise PlatformError(
            f"the prompt's {{{absent[0]}}} has no value",
            detail=f"given: {', '.join(sorted(values)) or 'nothing'}",
            fix=f"give a variable {absent[0]}",
            code="bad_prompt",
        )
    return _PLACE.sub(lambda found: str(values[found[1]]), template)


def content_version(document: Any) -> str:
    """The version of a document: twelve hex digits of the sha256 of its canonical JSON."""
    text = json.dumps(document, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:_CHARACTERS]


def parse_prompt(document: Any, place: str) -> PromptDocument:
    """A prompt of a document.

    Raises:
        PlatformError: ``code="bad_prompt"``, with each key that is wrong.
    """
    try:
        return PromptDocument.model_validate(document)
    except ValidationError as err:
        lines = [f"{'.'.join(map(str, e['loc'])) or 'document'}: {e['msg']}" for e in err.errors()]
        fix = "correct the file; see docs/language.md"
        raise PlatformError(
            f"no prompt: {place}", detail="; ".join(lines[:5]), fix=fix, code="bad_prompt", file=place
        ) from err


@dataclass(frozen=True, kw_only=True)
class PromptVersion:
    """One version that is kept. `test`: the evidence of its last test, None without one; `champion`: since when."""

    document: PromptDocument
    version: str
    test: Mapping[str, Any] | None
    champion: str

    @property
    def passed(self) -> bool:
        """Whether its last test reached the minimum."""
        return bool(self.test and self.test["passed"])

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        shown = {"name": self.document.name, "version": self.version, "model": self.document.model}
        return {**shown, "passed": self.passed, "test": self.test, "champion": self.champion}


class Prompts:
    """The prompts of a registry. Versions are never edited; safe to use from several processes at once."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._root = storage.join(endpoints.uri("artifacts"), "prompts")

    def add(self, document: PromptDocument) -> str:
        """Keep a prompt, and return its version; the same content is kept once."""
        text = document.model_dump_json(indent=1) + "\n"
        storage.write_new(self._place(document.name, document.version, _PROMPT), text.encode())
        return document.version

    def keep_test(self, name: str, version: str, evidence: Mapping[str, Any]) -> None:
        """Keep what a test has shown, in the place of an earlier one."""
        text = json.dumps(evidence, indent=1, ensure_ascii=False) + "\n"
        storage.write_bytes(self._place(name, version, _TEST), text.encode())

    def names(self) -> list[str]:
        """Of all prompts, sorted."""
        return storage.list_names(self._root)

    def versions(self, name: str) -> list[PromptVersion]:
        """All versions of a prompt, the champion first, then by version; empty for an unknown name."""
        kept = [each for each in storage.list_names(self._place(_checked(name))) if each != _CHAMPION]
        when, now = self._champion(name)
        found = [self._version(name, each, when if each == now else "") for each in kept]
        return sorted(found, key=lambda one: (not one.champion, one.version))

    def _version(self, name: str, version: str, since: str) -> PromptVersion:
        place = self._place(name, version, _PROMPT)
        document = parse_prompt(json.loads(storage.read_bytes(place)), place)
        if document.version != version:
            raise PlatformError(
                f"prompt {name}:{version} was changed",
                detail=f"its content is of version {document.version}",
                fix=f"give the changed one as a file: fairlead prompts test FILE; and delete the folder of {place}",
                code="bad_prompt",
            )
        tested = _TEST in storage.list_names(self._place(name, version))
        test = json.loads(storage.read_bytes(self._place(name, version, _TEST))) if tested else None
        return PromptVersion(document=document, version=version, test=test, champion=since)

    def resolve(self, ref: str) -> PromptVersion:
        """The version that ``name`` or ``name@champion`` (its champion) or ``name:version`` means now.

        Raises:
            PlatformError: ``code="unknown_prompt"``, listing what there is.
        """
        name, _, version = ref.removesuffix(f"@{_CHAMPION}").partition(":")
        found = self.versions(name)
        for one in found:
            if (version and one.version.startswith(version)) or (not version and one.champion):
                return one
        have = ", ".join(one.version for one in found) or "none"
        fix = f"fairlead prompts promote {name}:{found[0].version}" if found else "fairlead prompts test FILE"
        raise PlatformError(
            f"no prompt {ref!r}", detail=f"versions of {name}: {have}", fix=fix, code="unknown_prompt", prompt=name
        )

    def promote(self, ref: str, override: str = "") -> PromptVersion:
        """Make a version the champion. One whose last test did not pass needs `override`, a reason that is recorded.

        Raises:
            PlatformError: ``code="gate"``: it was not tested, or did not pass, and no reason is given.
        """
        one = self.resolve(ref)
        name = one.document.name
        if not one.passed and not override.strip():
            shown = f"its test gave {one.test['value']:.4g}" if one.test else "it was never tested"
            raise PlatformError(
                f"prompt {name}:{one.version} is not promoted",
                detail=f"{shown}; {one.document.metrics[0]} must be at least {one.document.minimum:.4g}",
                fix=f"fairlead prompts test {name}:{one.version}, or record why not: "
                f'fairlead prompts promote {name}:{one.version} --override "REASON"',
                code="gate",
            )
        moment = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        record = {"version": one.version, "time": moment, "override": override.strip(), "test": one.test}
        text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
        storage.write_new(self._place(name, _CHAMPION, f"{time.time_ns():020d}-{one.version}.json"), text.encode())
        return self.resolve(f"{name}:{one.version}")

    def _champion(self, name: str) -> tuple[str, str]:
        """Since when, and which version; two empty texts without one."""
        kept = storage.list_names(self._place(name, _CHAMPION))
        if not kept:
            return "", ""
        stamp, _, version = kept[-1].removesuffix(".json").partition("-")
        return f"{datetime.fromtimestamp(int(stamp) / 1e9, UTC):%Y-%m-%dT%H:%M:%SZ}", version

    def _place(self, *parts: str) -> str:
        return storage.join(self._root, *parts)


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        fix = "fairlead prompts"
        raise PlatformError(f"not a prompt's name: {name!r}", fix=fix, code="unknown_prompt")
    return name
